"""Sketches for training: inpaint-jax sketch --data=folder:PATH --output=sketches/train [--size=256 ...].

For each photo: edge map by PiDiNet, threshold, area opening, skeleton (Section IV-F). The same command goes on with a
run that was killed.
"""

from typing import Any

from absl import flags

REQUIRED = ("data", "output")


def define(values: flags.FlagValues) -> None:
    """The flags."""
    flags.DEFINE_string(
        "data", None, "folder:PATH, tfds:NAME:SPLIT or skimage:train; as config.data.train.", flag_values=values
    )
    flags.DEFINE_string("output", None, "Folder for the sketches.", flag_values=values)
    flags.DEFINE_integer("size", 256, "As config.data.image_size.", flag_values=values)
    flags.DEFINE_enum("resize", "shortest", ["shortest", "stretch"], "As config.data.resize.", flag_values=values)
    flags.DEFINE_string(
        "weights", None, "File of PiDiNet's weights; otherwise from the cache or by download.", flag_values=values
    )
    flags.DEFINE_float(
        "threshold",
        None,
        "What lies above it in an edge map is an edge; that of the paper by default.",
        flag_values=values,
    )
    flags.DEFINE_float(
        "min_size",
        None,
        "Edges of fewer pixels are dropped, that of the paper by default; for --size=256, scaled by area for others.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size", None, "Photos at a time; by default 1 on a CPU, 16 elsewhere.", flag_values=values
    )
    flags.DEFINE_integer("workers", 2, "Processes that read photos and thin lines.", flag_values=values)
    flags.DEFINE_integer(
        "limit", None, "Take only the first photos; as config.data.validation_limit.", flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Hands over to `sketching.make.make_sketches`."""
    from inpaint_jax.sketching import make

    every: dict[str, Any] = {name: values[name].value for name in values if name != "output"}
    given = {name: value for name, value in every.items() if value is not None}
    make.make_sketches(values.output, make.Settings(**given))
