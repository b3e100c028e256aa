"""Prepares a TFDS data set for training: inpaint-jax prepare tfds:places365_small.

DATA is written as in config.data.train: tfds:NAME[/CONFIG], with ?data_dir=PATH for another place than TFDS's own. What
is downloaded already is not downloaded again, and a copy in TFRECORD is converted without a download.
"""

import os

from absl import flags

POSITIONAL = ("DATA",)
REQUIRED = ()


def define(values: flags.FlagValues) -> None:
    """It has no flags."""


def run(values: flags.FlagValues, data: str) -> None:
    """Hands over to `data.prepare.prepare`."""
    from inpaint_jax.data.prepare import prepare

    try:
        prepare(data)
    except KeyboardInterrupt:
        # Python would wait for the downloads, which run in threads of TFDS: hours, perhaps.
        os._exit(130)
