"""A run as one HTML page: inpaint-jax report WORKDIR [--output=FILE.html] [--evaluation=DIR,DIR].

Config, hardware, curves, validation sheets, evaluations; the file holds all its pictures and loads nothing.
"""

from absl import flags

POSITIONAL = ("WORKDIR",)
REQUIRED = ()


def define(values: flags.FlagValues) -> None:
    """The flags."""
    flags.DEFINE_string("output", None, "The file to write; WORKDIR/report.html by default.", flag_values=values)
    flags.DEFINE_list(
        "evaluation", [], "Folders of inpaint-jax evaluate; by default those below WORKDIR.", flag_values=values
    )


def run(values: flags.FlagValues, workdir: str) -> None:
    """Hands over to `report.page.write_report`."""
    from inpaint_jax.report.page import write_report

    write_report(workdir, values.output, values.evaluation)
