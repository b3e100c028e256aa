"""A workdir belongs to one config: written down at the start, compared when a run goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inpaint_jax.config import Config, free_fields
from inpaint_jax.errors import MissingFile, UserError
from inpaint_jax.files import write_file

CONFIG_FILE = "config.json"


def check_workdir(workdir: str | Path, config: Config) -> None:
    """Checks that the folder is free, or belongs to a run of this config; writes nothing.

    Args:
        workdir: the folder of the run.
        config: of the run.

    Raises:
        UserError: the folder holds a run of another config; the message names the fields that differ.
    """
    path = Path(workdir) / CONFIG_FILE
    if path.exists():
        old, new = flatten(read_config(workdir).to_dict()), flatten(config.to_dict())
        free = free_fields()
        if config.optimizer.schedule == "cosine":
            free.remove("train.max_steps")  # all learning rates depend on it
        differing = [
            f"{name}: {old[name]!r} there, {value!r} now"
            for name, value in new.items()
            if old[name] != value and name not in free
        ]
        if differing:
            raise UserError(
                f"{workdir} belongs to a run with another config ({'; '.join(differing)}). "
                "Give another --workdir, or the old values to go on with that run."
            )


def claim_workdir(workdir: str | Path, config: Config) -> None:
    """Makes the folder and writes the config into it, once it is checked that no other run has it.

    Args:
        workdir: the folder of the run.
        config: of the run.

    Raises:
        UserError: as `check_workdir`.
    """
    check_workdir(workdir, config)
    path = Path(workdir) / CONFIG_FILE
    write_file(path, json.dumps(config.to_dict(), indent=2) + "\n")


def read_config(workdir: str | Path) -> Config:
    """The config of a run.

    Raises:
        UserError: the folder is no workdir, or its config is damaged.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.is_file():
        what = f"holds no {CONFIG_FILE}" if Path(workdir).is_dir() else "does not exist"
        raise MissingFile(f"{workdir} {what}; give the workdir of a training run.")
    try:
        fields = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); put back the config of the run.") from error
    return Config.read(fields, source=str(path))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
