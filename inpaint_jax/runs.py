"""A workdir belongs to one config: written down at the start, compared when a run goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inpaint_jax.checkpoints import load_config
from inpaint_jax.errors import UserError
from inpaint_jax.files import write_file

CONFIG_FILE = "config.json"

# What may change when a run goes on: how long, how often, by how many workers, and what training does not use. None of
# it changes a step. Where sketches lie neither: what they are is kept with every checkpoint, see sketching.plan.
FREE_FIELDS = (
    *("train.", "data.test", "data.workers", "loss.vgg_weights"),
    *("data.sketches", "data.validation_sketches", "data.pidinet_weights"),
)

# Among these, what does change a run: scores of one kind cannot be compared with those of another, and the cosine's
# learning rates depend on where it ends.
BOUND_FIELDS = ("train.select_by",)
BOUND_BY_COSINE = ("train.max_steps",)

# Fields that came later, with what every run did before they were there: a run whose config lacks them can go on.
LATER_FIELDS = {
    "model.attention": "mhtma",
    "model.sketch": False,
    "data.sketch_dropout": 0.3,  # of no use without sketches
    "data.zoom": 1.0,
    "loss.adversarial": "hinge",
    "loss.gradient_penalty_weight": 10.0,
    "loss.l1": "mean",
    "loss.hole_weight": 6.0,  # of no use for "mean"
    "model.fill": "constant",
    "model.output": "image",
    "model.skips": False,
    "optimizer.schedule": "constant",
    "optimizer.warmup_steps": 0,
    "optimizer.ema_decay": 0.0,
    "train.select_by": "loss",
}


def check_workdir(workdir: str | Path, config: Mapping[str, Any]) -> None:
    """Checks that the folder is free, or belongs to a run of this config; writes nothing.

    Args:
        workdir: the folder of the run.
        config: nested dict, as JSON can hold.

    Raises:
        UserError: the folder holds a run of another config, and the message names the fields that differ; or a damaged
            one.
    """
    path = Path(workdir) / CONFIG_FILE
    if path.exists():
        old = LATER_FIELDS | flatten(load_config(workdir))
        new = LATER_FIELDS | flatten(json.loads(json.dumps(config)))
        bound = BOUND_FIELDS + (BOUND_BY_COSINE if new["optimizer.schedule"] == "cosine" else ())
        differing = [
            f"{name}: {old.get(name, 'absent')!r} there, {new.get(name, 'absent')!r} now"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name) and (name in bound or not name.startswith(FREE_FIELDS))
        ]
        if differing:
            raise UserError(
                f"{workdir} belongs to a run with another config ({'; '.join(differing)}). "
                "Give another --workdir, or the old values to go on with that run."
            )


def claim_workdir(workdir: str | Path, config: Mapping[str, Any]) -> None:
    """Makes the folder and writes the config into it, once it is checked that no other run has it.

    Args:
        workdir: the folder of the run.
        config: nested dict, as JSON can hold.

    Raises:
        UserError: as `check_workdir`.
    """
    check_workdir(workdir, config)
    path = Path(workdir) / CONFIG_FILE
    write_file(path, json.dumps(config, indent=2) + "\n")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
