"""Trains a model: inpaint-jax train --config=quickstart [--workdir=runs/quickstart] [--config.field=value].

The same command goes on with a run that was stopped.
"""

from pathlib import Path

from absl import flags

from inpaint_jax.cli import configs
from inpaint_jax.errors import UserError

REQUIRED = ("config",)


def define(values: flags.FlagValues) -> None:
    """The flags."""
    configs.define(values, "What to train: a file, or the name of one in configs/; :sketch behind it as a variant.")
    flags.DEFINE_string(
        "workdir", None, "Where the run lives; runs/<name of the config> by default.", flag_values=values
    )
    flags.DEFINE_string(
        "init_from",
        None,
        "Workdir, exported file, name or hf:// address of a model, to fine-tune its networks; config.train.init_from.",
        flag_values=values,
    )
    flags.DEFINE_bool("profile", False, "Write a trace of five steps into the workdir.", flag_values=values)
    flags.DEFINE_string("coordinator", None, "host:port of process 0, to train on several hosts.", flag_values=values)
    flags.DEFINE_integer("processes", None, "How many processes take part.", flag_values=values)
    flags.DEFINE_integer("process", None, "Which of them this is, from 0.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Hands over to `training.loop.train`."""
    from inpaint_jax.training import loop

    hosts = (values.coordinator, values.processes, values.process)
    workdir = values.workdir or Path("runs", _folder_name(values.config.name))
    if values.init_from:
        values.config.train.init_from = values.init_from
    loop.train(values.config, workdir, None if hosts == (None, None, None) else hosts, values.profile)


def _folder_name(name: str) -> str:
    """Refuses a name that would lead out of runs/."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise UserError(f"config.name is {name!r}, which cannot name a folder in runs/; change it, or give --workdir.")
    return name
