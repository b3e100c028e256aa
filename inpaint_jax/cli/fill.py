"""Fills holes: inpaint-jax fill --image=photo.jpg --mask=hole.png --output=out.png [--checkpoint=runs/places2].

--checkpoint is a workdir, a file of inpaint-jax export, or a model that comes along (inpaint-jax models). --image may
be a folder; then --mask is a folder with a mask of the same name for every photo, or one file for all, and --output a
folder. Without --mask, the transparent part of a photo is the hole. A model that is guided by sketches takes
--sketch=lines.png, found like masks: white lines on black, or lines of any colour on a transparent ground, one pixel
wide at best, as in its training; only those in the hole count. --method=telea (or another classical method) fills
without a model.
"""

from typing import Literal

from absl import flags

from inpaint_jax.cli import checkpoint
from inpaint_jax.errors import UserError

REQUIRED = ("image", "output")


def define(values: flags.FlagValues) -> None:
    """The flags."""
    checkpoint.define(values)
    flags.DEFINE_string("image", None, "A photo, or a folder of photos.", flag_values=values)
    flags.DEFINE_string(
        "mask", None, "White = missing; a file, or a folder. Without it, transparent = missing.", flag_values=values
    )
    flags.DEFINE_string(
        "sketch",
        None,
        "White = line or, in a file with transparent parts, whatever is drawn; a file, or a folder; for models guided "
        "by sketches.",
        flag_values=values,
    )
    flags.DEFINE_string("output", None, "The file to write, or a folder.", flag_values=values)
    flags.DEFINE_bool("invert_mask", False, "Black (or opaque) = missing.", flag_values=values)
    flags.DEFINE_bool(
        "invert_sketch",
        False,
        "Black = line: a drawing on white paper; not needed for a transparent ground.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "resize_mask", False, "Bring a mask or sketch of another size to that of its photo.", flag_values=values
    )
    flags.DEFINE_bool(
        "plain",
        False,
        "One pass of the network over the whole photo, as in the paper: no windows, smaller sizes or texture.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "method",
        None,
        "Fill by a classical method in place of a model: telea, navier_stokes, biharmonic, patchmatch, mean.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "grow",
        "0",
        "Grow holes by so many pixels, for masks that were drawn roughly; auto: by 4, more in photos of more than 1024 "
        "pixels and less in those of less than 512.",
        flag_values=values,
    )


def run(values: flags.FlagValues) -> int:
    """Hands over to `inference.files.inpaint_files`; 0, or 1 if some photos failed, or 2 if all did."""
    from inpaint_jax.inference import files

    for flag in ("checkpoint", "step"):
        if values.method and values[flag].present:
            raise UserError(f"--method is for filling without a model; leave out --{flag}, or --method.")
    rules = files.HoleRules(
        invert=values.invert_mask,
        resize=values.resize_mask,
        invert_sketch=values.invert_sketch,
        plain=values.plain,
        method=values.method,
        grow=_growth(values.grow),
    )
    summary = files.inpaint_files(
        values.checkpoint, values.image, values.output, values.mask, values.sketch, step=values.step, rules=rules
    )
    if not summary.failed:
        return 0
    return 1 if summary.written else 2


def _growth(text: str) -> int | Literal["auto"]:
    if text == "auto":
        return "auto"
    if text.isascii() and text.isdigit():
        return int(text)
    raise UserError(f"--grow is auto or a number of pixels, not {text!r}.")
