"""One file to publish: inpaint-jax export --checkpoint=runs/places2 --output=places2.safetensors [--step=1000]."""

from pathlib import Path

from absl import flags

from inpaint_jax.errors import UserError

REQUIRED = ("checkpoint", "output")


def define(values: flags.FlagValues) -> None:
    """The flags."""
    flags.DEFINE_string("checkpoint", None, "The workdir of a training run.", flag_values=values)
    flags.DEFINE_string("output", None, "The file to write, NAME.safetensors.", flag_values=values)
    flags.DEFINE_enum("dtype", "float32", ["float32", "float16"], "Of the parameters in the file.", flag_values=values)
    flags.DEFINE_string("terms", "", "Terms of use, shown to whoever loads the model.", flag_values=values)
    flags.DEFINE_string("card", None, "A Markdown file, the model card; goes into the file.", flag_values=values)
    flags.DEFINE_integer("step", None, "Which checkpoint; the best one by default.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Hands over to `models.export`."""
    from inpaint_jax.models import export

    try:
        card = Path(values.card).expanduser().read_text("utf-8") if values.card else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{values.card} is no text in UTF-8; save it as such.") from error
    export(values.checkpoint, values.output, values.step, terms=values.terms, card=card, dtype=values.dtype)
