"""Whether parameters are those of the generator that a config describes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from inpaint_jax.checkpoints import check_config_of_run
from inpaint_jax.errors import UserError
from inpaint_jax.features.weights import tree_faults
from inpaint_jax.nets.generator import Generator

_SIDE = 32  # of the image that shapes are worked out for; parameters have the same at any


def check_fits(config: Mapping[str, Any], params: Any, where: str | Path) -> None:
    """Compares parameters with those that the generator of a config has; nothing is computed.

    Args:
        config: of the run, as JSON gave it.
        params: nested dict of arrays.
        where: what messages call the model.

    Raises:
        UserError: the config is none or describes no generator, or the parameters have other names or shapes.
    """
    check_config_of_run(config, where)
    try:
        generator = Generator.from_fields(config["model"], jnp.dtype(config["dtype"]))
        image = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, 3), jnp.float32)
        mask = jax.ShapeDtypeStruct(image.shape[:3], jnp.float32)
        sketch = mask if config["model"].get("sketch") else None
        expected = jax.eval_shape(generator.init, jax.eval_shape(jax.random.key, 0), image, mask, sketch)["params"]
    except Exception as error:  # a field of any type at all may stand there
        reason = " ".join(str(error).split())
        raise UserError(f"The config of {where} describes no model ({reason}); put back that of the run.") from error
    faults = tree_faults(params, jax.tree.map(lambda leaf: leaf.shape, expected))
    if faults:
        raise UserError(
            f"The parameters of {where} are not those of the model that its config describes ({faults}); put back the "
            "config of the run, or its checkpoints."
        )
