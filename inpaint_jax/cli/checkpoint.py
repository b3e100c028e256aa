"""The flags --checkpoint and --step: which model a command fills with."""

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines both flags."""
    flags.DEFINE_string(
        "checkpoint",
        "scenes",
        "The workdir of a training run, an exported file, the name of a model that comes with the package, or "
        "hf://OWNER/NAME.",
        flag_values=values,
    )
    flags.DEFINE_integer("step", None, "Which checkpoint of a workdir; the best one by default.", flag_values=values)
