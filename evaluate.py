"""Evaluates models by mask ratio: python evaluate.py --workdir=runs/places2 --output=runs/places2/eval [--data=...]."""

import logging
import sys

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file("config", None, "Names data.test and the size; the workdir's by default.")
_WORKDIR = flags.DEFINE_list("workdir", [], "Runs to evaluate, or exported files, separated by commas.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for tables, plot and pictures.")
_DATA = flags.DEFINE_string("data", None, "folder:PATH, tfds:NAME:SPLIT or skimage:validation; config.data.test.")
_MASKS = flags.DEFINE_string(
    "masks",
    "generated",
    "folder:PATH (white = missing; folder:PATH?missing=black); generated, strokes that hit the bins' ratios; or "
    "freeform, training masks.",
)
_PAIRING = flags.DEFINE_enum(
    "pairing", "every_bin", ["every_bin", "once"], "Each image once in every bin of mask ratios, or with one mask."
)
_METHODS = flags.DEFINE_list(
    "methods",
    [],
    "Methods beside the models: mean, telea, navier_stokes, biharmonic, patchmatch, tension_spline (a model's fill).",
)
_SIZE = flags.DEFINE_integer("size", None, "Side of the images; config.data.image_size.")
_SKETCHES = flags.DEFINE_string(
    "sketches", "none", "For models guided by sketches: a folder of python -m inpaint_jax.sketching, made of the data."
)
_LIMIT = flags.DEFINE_integer("limit", None, "Take only the first images.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the masks and the choice of pictures.")
_FID = flags.DEFINE_string("fid", "auto", "auto (weights from the cache or by download), off, or a file of weights.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Images at a time.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Processes that read images, and as many for classical methods.")
_SAMPLES = flags.DEFINE_integer("samples", 6, "Rows of the picture sheet.")
_SAVE_IMAGES = flags.DEFINE_bool("save_images", False, "Write every completed image.")
_RESUME = flags.DEFINE_bool("resume", False, "Go on with a run that was stopped.")
_SAVE_EVERY = flags.DEFINE_float("save_every_seconds", 60, "How often to save what a stopped run goes on from.")
flags.mark_flag_as_required("output")


def main(argv: list[str]) -> None:
    """Hands over to the library."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags are written --name=value; what is {argv[1]!r}?")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("inpaint_jax").setLevel(logging.INFO)
    # Imported here because the processes that read photos import this file again, and need none of it.
    from inpaint_jax.compilation import keep_programs
    from inpaint_jax.config import Config
    from inpaint_jax.evaluation import run

    keep_programs()
    settings = run.Settings(
        data=_DATA.value,
        masks=_MASKS.value,
        pairing=_PAIRING.value,
        classical=_METHODS.value,
        size=_SIZE.value,
        sketches=_SKETCHES.value,
        limit=_LIMIT.value,
        seed=_SEED.value,
        fid=_FID.value,
        batch_size=_BATCH_SIZE.value,
        workers=_WORKERS.value,
        samples=_SAMPLES.value,
        save_images=_SAVE_IMAGES.value,
        resume=_RESUME.value,
        save_every_seconds=_SAVE_EVERY.value,
    )
    try:
        run.evaluate(_WORKDIR.value, _OUTPUT.value, settings, _CONFIG.value and Config.read(_CONFIG.value))
    except run.EvaluationError as error:
        sys.exit(f"evaluate.py: {error}")


if __name__ == "__main__":
    app.run(main)
