"""Whole models, one file a system: networks, losses, optimizers and steps behind one interface."""

from typing import Any, Protocol

import jax

from inpaint_jax.config import Config
from inpaint_jax.systems.state import TrainState

Batch = dict[str, jax.Array]
"""image uint8 [B, H, W, 3]; mask [B, H, W], 1 = missing; crop int [B, 2], the corner of a discriminator's local crop;
sketch [B, H, W], for models that are guided; in validation also weight [B], 0 for padding."""


class System(Protocol):
    """What training knows of a model. All methods are pure, to be jitted.

    Attributes:
        frozen: parameters that are never trained, such as VGG's: an argument of the steps, so that they are not
            compiled in as constants.
    """

    frozen: Any

    def initial_state(self, key: jax.Array) -> TrainState:
        """The state before the first step; a function of `key` alone."""
        ...

    def train_step(self, state: TrainState, batch: Batch, frozen: Any, /) -> tuple[TrainState, dict[str, jax.Array]]:
        """One update of all networks, and scalars to log."""
        ...

    def validation_step(self, params: Any, batch: Batch, frozen: Any, /) -> dict[str, tuple[jax.Array, jax.Array]]:
        """Scores of the published parameters: name -> (sum, count) over the batch. "loss" and "hole_l1" are among them,
        of which config.train.select_by chooses."""
        ...

    def complete(
        self, params: Any, image: jax.Array, mask: jax.Array, sketch: jax.Array | None
    ) -> dict[str, jax.Array]:
        """Images [B, H, W, 3] in [0, 1] by name, for sample sheets; "completed" is among them."""
        ...


def make_system(config: Config) -> System:
    """The system that a config describes.

    Raises:
        UserError: weights that it needs are nowhere.
    """
    from inpaint_jax.systems.mhtma import MHTMASystem

    return MHTMASystem(config)
