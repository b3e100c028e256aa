"""Sketches for training: python -m inpaint_jax.sketching --data=folder:PATH --output=sketches/train [--size=256 ...].

For each photo: edge map by PiDiNet, threshold, area opening, skeleton (§IV-F). The same command goes on
with a run that was killed.
"""

import logging
import sys

from absl import app, flags

from inpaint_jax.data import sketches
from inpaint_jax.errors import UserError

_DATA = flags.DEFINE_string("data", None, "folder:PATH, tfds:NAME:SPLIT or skimage:train; as config.data.train.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the sketches.")
_SIZE = flags.DEFINE_integer("size", 256, "As config.data.image_size.")
_RESIZE = flags.DEFINE_enum("resize", "shortest", ["shortest", "stretch"], "As config.data.resize.")
_WEIGHTS = flags.DEFINE_string("weights", None, "File of PiDiNet's weights; otherwise from the cache or by download.")
_THRESHOLD = flags.DEFINE_float("threshold", sketches.THRESHOLD, "What lies above it in an edge map is an edge.")
_MIN_SIZE = flags.DEFINE_float(
    "min_size", sketches.MIN_SIZE, "Edges of fewer pixels are dropped; for --size=256, scaled by area for others."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "Photos at a time; by default 1 on a CPU, 16 elsewhere.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Processes that read photos and thin lines.")
_LIMIT = flags.DEFINE_integer("limit", None, "Take only the first photos; as config.data.validation_limit.")
flags.mark_flags_as_required(["data", "output"])


def main(argv: list[str]) -> None:
    """Hands over to the library."""
    if len(argv) > 1:
        raise app.UsageError(f"Flags are written --name=value; what is {argv[1]!r}?")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("inpaint_jax").setLevel(logging.INFO)
    from inpaint_jax.compilation import keep_programs
    from inpaint_jax.sketching import make

    keep_programs()
    settings = make.Settings(
        data=_DATA.value,
        size=_SIZE.value,
        resize=_RESIZE.value,
        threshold=_THRESHOLD.value,
        min_size=_MIN_SIZE.value,
        weights=_WEIGHTS.value,
        batch_size=_BATCH_SIZE.value,
        workers=_WORKERS.value,
        limit=_LIMIT.value,
    )
    try:
        make.make_sketches(_OUTPUT.value, settings)
    except UserError as error:
        sys.exit(f"sketching: {error}")


if __name__ == "__main__":
    app.run(main)
