"""The paper's system: coarse and refinement network with MHTMA, global-local discriminator, the losses of eq. (6)."""

import dataclasses
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from inpaint_jax.config import Config
from inpaint_jax.data.masks import local_crop_side
from inpaint_jax.errors import UserError
from inpaint_jax.features import vgg
from inpaint_jax.features.weights import tree_faults
from inpaint_jax.losses import LossWeights
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator, PatchDiscriminator
from inpaint_jax.nets.generator import Generator, GeneratorOutputs
from inpaint_jax.systems import steps
from inpaint_jax.systems.critics import Critic, GlobalLocalCritic, PatchCritic
from inpaint_jax.systems.state import TrainState, create_state


class MHTMASystem:
    """See `systems.System`.

    Args:
        config: of the run. Unless the perceptual loss has no weight, VGG's weights are read from
            config.loss.vgg_weights or the cache, or downloaded.

    Raises:
        WeightsUnavailable: they are nowhere.
    """

    def __init__(self, config: Config):
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
        self.generator = make_generator(config)
        self.critic = make_critic(config)
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


def make_generator(config: Config) -> Generator:
    """The generator of a config: its attributes are the fields of config.model that bear their names."""
    names = {field.name for field in dataclasses.fields(Generator)} & set(vars(config.model))
    return Generator(**{name: getattr(config.model, name) for name in names}, dtype=jnp.dtype(config.dtype))


def make_critic(config: Config) -> Critic:
    """The discriminator of a config, with its losses."""
    model, loss, dtype = config.model, config.loss, jnp.dtype(config.dtype)
    if model.discriminator == "patch":
        network = PatchDiscriminator(model.discriminator_width, dtype)
        return PatchCritic(network, feature_matching=loss.feature_matching_weight > 0)
    return GlobalLocalCritic(
        GlobalLocalDiscriminator(
            model.discriminator_width,
            model.discriminator_features,
            dtype=dtype,
            spectral_norm=loss.adversarial == "hinge",
        ),
        local_crop_side(config.data.image_size, config.data.image_size),
        gradient_penalty_weight=loss.gradient_penalty_weight,
        seed=config.seed,
    )


def make_optimizer(config: Config, peak: float) -> optax.GradientTransformation:
    """Adam by config.optimizer, for a network whose learning rate is at most `peak`."""
    adam = optax.adam(learning_rate(config, peak), b1=config.optimizer.beta1, b2=config.optimizer.beta2)
    if not config.optimizer.clip_norm:
        return adam
    return optax.chain(optax.clip_by_global_norm(config.optimizer.clip_norm), adam)


def learning_rate(config: Config, peak: float) -> optax.ScalarOrSchedule:
    """The learning rate by the number of updates: `peak` after the warm-up; "cosine" ends at config.train.max_steps."""
    warmup = config.optimizer.warmup_steps
    if config.optimizer.schedule == "cosine":
        assert config.train.max_steps is not None  # `Config.read` demands it
        return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, config.train.max_steps)
    return optax.linear_schedule(0.0, peak, warmup) if warmup else peak


def check_params(config: Config, params: Any, where: str | Path) -> None:
    """Compares parameters with those that the generator of a config has; nothing is computed.

    Args:
        config: of the run.
        params: nested dict of arrays.
        where: what messages call the model.

    Raises:
        UserError: the parameters have other names or shapes.
    """
    side = 4 * max(8, config.model.patch_size)
    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, side, side), jnp.float32)
    key = jax.eval_shape(jax.random.key, 0)
    init = make_generator(config).init
    expected = jax.eval_shape(init, key, image, mask, mask if config.model.sketch else None)["params"]
    if faults := tree_faults(params, jax.tree.map(lambda leaf: leaf.shape, expected)):
        raise UserError(
            f"The parameters of {where} are not those of the model that its config describes ({faults}); put back the "
            "config of the run, or its checkpoints."
        )
