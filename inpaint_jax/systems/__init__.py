"""Whole models, one file a system: networks, losses, optimizers and steps behind one interface."""

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp

from inpaint_jax.config import Config
from inpaint_jax.errors import UserError
from inpaint_jax.features.weights import tree_faults
from inpaint_jax.systems.state import TrainState

if TYPE_CHECKING:
    from inpaint_jax.nets.deepfillv2 import DeepFillV2
    from inpaint_jax.nets.generator import Generator
    from inpaint_jax.nets.parconv import ParConvUNet

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
    return _module(config).make_system(config)


def make_generator(config: Config) -> "Generator | DeepFillV2 | ParConvUNet":
    """The generator of a config's system: called as `Generator` is, it gives `GeneratorOutputs`."""
    return _module(config).make_generator(config)


def read_published(system: str, path: str | Path) -> tuple[Config, Any, int, str]:
    """Reads a generator from a file that was published for a system other than the paper's; nothing is executed.

    Args:
        system: of `config.SYSTEMS`.
        path: of the file.

    Returns:
        a config that describes the generator, its parameters, the step that they are of, and terms of use.

    Raises:
        UserError: there is no such file, it is damaged, or it holds something else.
    """
    reader = _readers()[system]
    return *reader.read(path), reader.TERMS


def published_systems() -> dict[str, str]:
    """What `read_published` reads: system -> terms of its weights."""
    return {system: reader.TERMS for system, reader in _readers().items()}


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


def _readers() -> dict[str, ModuleType]:
    """The files that know the weights that were published for a system."""
    from inpaint_jax.systems import deepfillv2_weights, parconv_weights

    return {"deepfillv2": deepfillv2_weights, "parconv": parconv_weights}


def _module(config: Config) -> ModuleType:
    """The file of a system."""
    from inpaint_jax.systems import deepfillv2, mhtma, parconv

    return {"mhtma": mhtma, "deepfillv2": deepfillv2, "parconv": parconv}[config.system]
