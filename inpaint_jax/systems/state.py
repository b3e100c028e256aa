"""What a training step changes: arrays only, so that it can be donated, sharded and saved as it is."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

if TYPE_CHECKING:
    from inpaint_jax.systems.critics import Critic


@flax.struct.dataclass
class TrainState:
    """Everything that the next step depends on, but for the data (whose position is the step).

    Attributes:
        step: int32 scalar, steps done.
        generator: parameters of the generator.
        average: their exponential moving average; empty if none is kept.
        discriminator: parameters of the discriminator.
        spectral: the discriminator's `batch_stats`: the power iteration of its spectral norms; empty without them.
        generator_optimizer: optax state.
        discriminator_optimizer: optax state.
    """

    step: jax.Array
    generator: Any
    average: Any
    discriminator: Any
    spectral: Any
    generator_optimizer: Any
    discriminator_optimizer: Any

    @property
    def published(self) -> Any:
        """The generator's parameters to validate, sample and use: the average if one is kept."""
        return self.average or self.generator

    def split(self) -> tuple[Any, dict[str, Any]]:
        """The published parameters, and by name all else that the next step depends on: what a checkpoint keeps."""
        kept = "average" if self.average else "generator"
        names = [field.name for field in dataclasses.fields(self)]
        return getattr(self, kept), {name: getattr(self, name) for name in names if name != kept}

    @classmethod
    def join(cls, published: Any, rest: Mapping[str, Any]) -> "TrainState":
        """The opposite of `split`."""
        return cls(**rest, **{"generator" if "average" in rest else "average": published})


def averaged(state: TrainState, params: Any, decay: float) -> Any:
    """The moving average after a step, if the state has one.

    Args:
        state: before the step.
        params: of the generator, after it.
        decay: the weight of the average so far. It is lower at first, at most (1 + n) / (10 + n) after n steps, so that
            the untrained parameters are soon forgotten.
    """
    decay_now = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    return optax.incremental_update(params, state.average, 1 - decay_now) if state.average else {}


def create_state(
    key: jax.Array,
    generator: nn.Module,
    critic: "Critic",
    generator_optimizer: optax.GradientTransformation,
    discriminator_optimizer: optax.GradientTransformation,
    *,
    image_size: int,
    sketch: bool = False,
    average: bool = False,
) -> TrainState:
    """The state before the first step; a function of `key` alone.

    Args:
        key: PRNG key of the initial parameters.
        generator: the `Generator`.
        critic: the discriminator and its losses.
        generator_optimizer: of the generator.
        discriminator_optimizer: of the discriminator.
        image_size: side of the training images; it fixes the dense layers of a discriminator that has some.
        sketch: whether the generator has a fifth input channel, for sketches.
        average: whether to keep a moving average of the generator.

    Returns:
        TrainState at step 0.
    """
    generator_key, discriminator_key = jax.random.split(key)
    image = jnp.zeros((1, image_size, image_size, 3))
    lines = image[..., 0] if sketch else None
    params = generator.init(generator_key, image, image[..., 0], lines)["params"]
    variables = critic.init(discriminator_key, image_size)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        generator=params,
        average=jax.tree.map(jnp.copy, params) if average else {},
        discriminator=variables["params"],
        spectral=variables.get("batch_stats", {}),
        generator_optimizer=generator_optimizer.init(params),
        discriminator_optimizer=discriminator_optimizer.init(variables["params"]),
    )
