"""Published weights of others: inpaint-jax import --system=deepfillv2 --weights=FILE.pth --output=model.safetensors.

FILE.pth is of PyTorch; it is read without PyTorch, and nothing in it is executed. docs/compare.md tells where the
authors keep such files. fill, evaluate and demo take the result as they take a file of inpaint-jax export.
"""

from absl import flags

REQUIRED = ("system", "weights", "output")


def define(values: flags.FlagValues) -> None:
    """The flags."""
    flags.DEFINE_enum("system", None, ["deepfillv2", "parconv"], "What the weights are of.", flag_values=values)
    flags.DEFINE_string("weights", None, "The file to read.", flag_values=values)
    flags.DEFINE_string("output", None, "The file to write, NAME.safetensors.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Hands over to `models.import_weights`."""
    from inpaint_jax.models import import_weights

    import_weights(values.system, values.weights, values.output)
