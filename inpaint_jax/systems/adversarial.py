"""What systems have in common whose generator and critic learn in turns, by the steps of `steps.py`."""

from typing import Any, cast

import flax.linen as nn
import jax

from inpaint_jax.config import Config
from inpaint_jax.features import vgg
from inpaint_jax.losses import LossWeights
from inpaint_jax.nets.generator import GeneratorOutputs
from inpaint_jax.systems import steps
from inpaint_jax.systems.critics import Critic
from inpaint_jax.systems.optimizers import make_optimizer
from inpaint_jax.systems.state import TrainState, create_state


class AdversarialSystem:
    """A `systems.System` of two networks and the weights of config.loss.

    Args:
        config: of the run.
        generator: is called as `Generator` is, and gives `GeneratorOutputs`.
        critic: its opponent.

    Raises:
        WeightsUnavailable: the perceptual loss has a weight, and VGG's weights are nowhere.
    """

    def __init__(self, config: Config, generator: nn.Module, critic: Critic):
        loss = config.loss
        weights = LossWeights(
            l1=loss.l1,
            hole=loss.hole_weight,
            coarse=loss.coarse_weight,
            refined=loss.refined_weight,
            perceptual=loss.perceptual_weight,
            adversarial=loss.adversarial_weight,
            feature_matching=loss.feature_matching_weight,
        )
        self._config = config
        self.frozen: Any = vgg.load(loss.vgg_weights) if weights.perceptual else None
        self.generator = generator
        self.critic = critic
        self._optimizers = (
            make_optimizer(config, config.optimizer.generator_learning_rate),
            make_optimizer(config, config.optimizer.discriminator_learning_rate),
        )
        self.train_step = steps.make_train_step(
            self.generator,
            self.critic,
            *self._optimizers,
            weights,
            ema_decay=config.optimizer.ema_decay,
            guesses=config.train.guesses,
            seed=config.seed,
        )
        self.validation_step = steps.make_validation_step(self.generator, weights)

    def initial_state(self, key: jax.Array) -> TrainState:
        """The state before the first step."""
        return create_state(
            key,
            self.generator,
            self.critic,
            *self._optimizers,
            image_size=self._config.data.image_size,
            sketch=self._config.model.sketch,
            average=self._config.optimizer.ema_decay > 0,
        )

    def complete(
        self, params: Any, image: jax.Array, mask: jax.Array, sketch: jax.Array | None
    ) -> dict[str, jax.Array]:
        """The coarse image, and the completed one."""
        outputs = cast(GeneratorOutputs, self.generator.apply({"params": params}, image, mask, sketch))
        return {"coarse": outputs.coarse, "completed": outputs.completed}
