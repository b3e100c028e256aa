"""Fills holes: python inpaint.py --checkpoint=runs/places2 --image=photo.jpg --mask=hole.png --output=out.png.

--checkpoint is a workdir or a file of `inpaint-jax export`. --image may be a folder; then --mask is a folder
with a mask of the same name for every photo, or one file for all, and --output a folder. Without --mask, the
transparent part of a photo is the hole. A model that is guided by sketches takes --sketch=lines.png, found like masks:
white lines on black, or lines of any colour on a transparent ground, one pixel wide at best, as in its training; only
those in the hole count.
"""

import logging

from absl import app, flags

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The workdir of a training run, or an exported file.")
_STEP = flags.DEFINE_integer("step", None, "Which checkpoint of a workdir; the best one by default.")
_IMAGE = flags.DEFINE_string("image", None, "A photo, or a folder of photos.")
_MASK = flags.DEFINE_string("mask", None, "White = missing; a file, or a folder. Without it, transparent = missing.")
_SKETCH = flags.DEFINE_string(
    "sketch",
    None,
    "White = line or, in a file with transparent parts, whatever is drawn; a file, or a folder; for models guided by "
    "sketches.",
)
_OUTPUT = flags.DEFINE_string("output", None, "The file to write, or a folder.")
_INVERT = flags.DEFINE_bool("invert_mask", False, "Black (or opaque) = missing.")
_INVERT_SKETCH = flags.DEFINE_bool(
    "invert_sketch", False, "Black = line: a drawing on white paper; not needed for a transparent ground."
)
_RESIZE = flags.DEFINE_bool("resize_mask", False, "Bring a mask or sketch of another size to that of its photo.")
flags.mark_flags_as_required(["checkpoint", "image", "output"])


def main(argv: list[str]) -> int | str:
    """Hands over to the library; 0, or 1 if a photo failed, or a sentence (which exits with 1) if all is in vain."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags are written --name=value; what is {argv[1]!r}?")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("inpaint_jax").setLevel(logging.INFO)
    from inpaint_jax.compilation import keep_programs
    from inpaint_jax.inference import files  # takes seconds, which --help need not wait for

    keep_programs()
    rules = files.HoleRules(invert=_INVERT.value, resize=_RESIZE.value, invert_sketch=_INVERT_SKETCH.value)
    try:
        summary = files.inpaint_files(
            _CHECKPOINT.value, _IMAGE.value, _OUTPUT.value, _MASK.value, _SKETCH.value, step=_STEP.value, rules=rules
        )
    except files.InpaintingError as error:
        return str(error)
    return 1 if summary.failed else 0


if __name__ == "__main__":
    app.run(main)
