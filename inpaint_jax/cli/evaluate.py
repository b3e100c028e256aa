"""Evaluates models by mask ratio: inpaint-jax evaluate --workdir=runs/places2 --output=runs/places2/eval [--data=...].

All models and classical methods see the same images and masks.
"""

from absl import flags

from inpaint_jax.cli import configs

REQUIRED = ("output",)


def define(values: flags.FlagValues) -> None:
    """The flags."""
    configs.define(values, "Names data.test and the size; the workdir's by default.")
    flags.DEFINE_list("workdir", [], "Runs to evaluate, or exported files, separated by commas.", flag_values=values)
    flags.DEFINE_string("output", None, "Folder for tables, plot and pictures.", flag_values=values)
    flags.DEFINE_string(
        "data",
        None,
        "folder:PATH, tfds:NAME:SPLIT or skimage:validation; config.data.test by default.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "masks",
        "generated",
        "folder:PATH (white = missing; folder:PATH?missing=black); generated, strokes that hit the bins' ratios; or "
        "freeform, training masks.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "pairing",
        "every_bin",
        ["every_bin", "once"],
        "Each image once in every bin of mask ratios, or with one mask.",
        flag_values=values,
    )
    flags.DEFINE_list(
        "methods",
        [],
        "Methods beside the models: mean, telea, navier_stokes, biharmonic, patchmatch, tension_spline (a model's "
        "fill).",
        flag_values=values,
    )
    flags.DEFINE_integer("size", None, "Side of the images; config.data.image_size by default.", flag_values=values)
    flags.DEFINE_string(
        "sketches",
        "none",
        "For models guided by sketches: a folder of inpaint-jax sketch, made of the data.",
        flag_values=values,
    )
    flags.DEFINE_integer("limit", None, "Take only the first images.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Of the masks and the choice of pictures.", flag_values=values)
    flags.DEFINE_string(
        "fid", "auto", "auto (weights from the cache or by download), off, or a file of weights.", flag_values=values
    )
    flags.DEFINE_integer("batch_size", 8, "Images at a time.", flag_values=values)
    flags.DEFINE_integer(
        "workers", 2, "Processes that read images, and as many for classical methods.", flag_values=values
    )
    flags.DEFINE_bool(
        "retouch", False, "Models fill as inpaint-jax fill does, with texture, not in one pass.", flag_values=values
    )
    flags.DEFINE_integer("samples", 6, "Rows of the picture sheet.", flag_values=values)
    flags.DEFINE_bool("save_images", False, "Write every completed image.", flag_values=values)
    flags.DEFINE_bool("resume", False, "Go on with a run that was stopped.", flag_values=values)
    flags.DEFINE_float(
        "save_every_seconds", 60, "How often to save what a stopped run goes on from.", flag_values=values
    )


def run(values: flags.FlagValues) -> None:
    """Hands over to `evaluation.run.evaluate`."""
    from inpaint_jax.config import Config
    from inpaint_jax.evaluation import run as evaluation

    settings = evaluation.Settings(
        data=values.data,
        masks=values.masks,
        pairing=values.pairing,
        classical=values.methods,
        size=values.size,
        sketches=values.sketches,
        retouch=values.retouch,
        limit=values.limit,
        seed=values.seed,
        fid=values.fid,
        batch_size=values.batch_size,
        workers=values.workers,
        samples=values.samples,
        save_images=values.save_images,
        resume=values.resume,
        save_every_seconds=values.save_every_seconds,
    )
    config = Config.read(values.config) if values.config else None
    evaluation.evaluate(values.workdir, values.output, settings, config)
