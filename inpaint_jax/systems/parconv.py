"""Partial convolutions (Liu et al. 2018), as the PyTorch version trains them that the paper compares itself with.

One network, and no critic. Its losses are L1 in the hole and around it, perceptual and style losses of what VGG-16
sees, and total variation, of images less the mean colour of ImageNet, divided by its standard deviation.
"""

import dataclasses
import functools
import logging
import operator
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

from inpaint_jax import losses
from inpaint_jax.config import Config
from inpaint_jax.features import vgg_pools
from inpaint_jax.nets.generator import GeneratorOutputs
from inpaint_jax.nets.parconv import STATISTICS, ParConvUNet, standardised, with_statistics
from inpaint_jax.systems import Batch
from inpaint_jax.systems.optimizers import make_optimizer
from inpaint_jax.systems.state import TrainState, averaged
from inpaint_jax.systems.steps import sum_scores, to_float

_log = logging.getLogger("inpaint_jax")


def make_system(config: Config) -> "ParConvSystem":
    """See `systems.make_system`."""
    return ParConvSystem(config)


def make_generator(config: Config) -> ParConvUNet:
    """The network of a config."""
    return ParConvUNet(config.model.width, config.train.freeze_encoder_statistics, jnp.dtype(config.dtype))


class ParConvSystem:
    """A `systems.System`. In its state, the running statistics of batch normalisation are among the parameters.

    Args:
        config: of the run.

    Raises:
        WeightsUnavailable: a loss that looks through VGG has a weight, and VGG's weights are nowhere.
    """

    def __init__(self, config: Config):
        loss = config.loss
        self._config = config
        self._weights = {
            "valid": 1.0,
            "hole": loss.hole_weight,
            "perceptual": loss.perceptual_weight,
            "style": loss.style_weight,
            "total_variation": loss.total_variation_weight,
        }
        needs_vgg = bool(loss.perceptual_weight or loss.style_weight)
        self.frozen: Any = vgg_pools.load(loss.vgg_weights) if needs_vgg else None
        if off := [name for name, weight in self._weights.items() if not weight]:
            _log.warning("These losses are off, since their weights are 0: %s.", ", ".join(off))
        self.generator = make_generator(config)
        self._optimizer = make_optimizer(config, config.optimizer.generator_learning_rate)

    def initial_state(self, key: jax.Array) -> TrainState:
        """The state before the first step."""
        side = self._config.data.image_size
        image = jnp.zeros((1, side, side, 3))
        params = self.generator.init(key, image, image[..., 0])["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            generator=params,
            average=jax.tree.map(jnp.copy, params) if self._config.optimizer.ema_decay else {},
            discriminator={},
            spectral={},
            generator_optimizer=self._optimizer.init(params),
            discriminator_optimizer={},
        )

    def train_step(self, state: TrainState, batch: Batch, frozen: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update, and scalars to log."""
        target = to_float(batch["image"])

        def objective(params: Any) -> tuple[jax.Array, tuple[dict[str, jax.Array], Any]]:
            called = self.generator.apply({"params": params}, target, batch["mask"], train=True, mutable=[STATISTICS])
            outputs, updates = cast(tuple[GeneratorOutputs, dict[str, Any]], called)
            terms = self._terms(outputs.refined, target, batch["mask"], frozen)
            return self._weighted(terms).mean(), (terms, updates.get(STATISTICS, {}))

        (loss, (terms, statistics)), grads = jax.value_and_grad(objective, has_aux=True)(state.generator)
        # Statistics have a gradient of zero, by which Adam leaves them where they are.
        updates, optimizer = self._optimizer.update(grads, state.generator_optimizer, state.generator)
        params = with_statistics(cast(dict, optax.apply_updates(state.generator, updates)), statistics)
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            generator=params,
            average=averaged(state, params, self._config.optimizer.ema_decay),
            generator_optimizer=optimizer,
        )
        logged = {f"loss/{name}": value.mean() for name, value in terms.items()}
        return new_state, logged | {"loss/generator": loss, "gradient_norm/generator": optax.tree.norm(grads)}

    def validation_step(self, params: Any, batch: Batch, frozen: Any) -> dict[str, tuple[jax.Array, jax.Array]]:
        """See `systems.System`."""
        target = to_float(batch["image"])
        outputs = cast(GeneratorOutputs, self.generator.apply({"params": params}, target, batch["mask"]))
        terms = self._terms(outputs.refined, target, batch["mask"], frozen)
        shown = jnp.clip(outputs.refined, 0, 1)
        scores = sum_scores(
            dataclasses.replace(outputs, coarse=shown, refined=shown), target, batch, terms, self._weighted(terms)
        )
        del scores["hole_psnr_coarse"]  # there is one stage
        return scores

    def complete(
        self, params: Any, image: jax.Array, mask: jax.Array, sketch: jax.Array | None
    ) -> dict[str, jax.Array]:
        """What the network gives everywhere, and the completed image."""
        outputs = cast(GeneratorOutputs, self.generator.apply({"params": params}, image, mask, sketch))
        return {"network": jnp.clip(outputs.refined, 0, 1), "completed": outputs.completed}

    def _terms(self, refined: jax.Array, target: jax.Array, mask: jax.Array, vgg: Any) -> dict[str, jax.Array]:
        """The terms of eq. 7 whose weights are not 0, each [B]."""
        weights, hole = self._weights, (mask > 0.5).astype(jnp.float32)
        image, truth = standardised(refined), standardised(target)
        completed = jnp.where(hole[..., None] > 0, image, truth)
        terms = {"valid": losses.l1_within(image, truth, 1 - hole), "hole": losses.l1_within(image, truth, hole)}
        if vgg is not None:
            of_truth, both = vgg_pools.pools(vgg, truth), [vgg_pools.pools(vgg, x) for x in (image, completed)]
            for name, loss in (("perceptual", losses.features_loss), ("style", losses.style_loss)):
                terms[name] = loss(both[0], of_truth) + loss(both[1], of_truth)
        terms["total_variation"] = losses.total_variation(completed)
        return {name: value for name, value in terms.items() if weights[name]}

    def _weighted(self, terms: dict[str, jax.Array]) -> jax.Array:
        return functools.reduce(operator.add, (self._weights[name] * value for name, value in terms.items()))
