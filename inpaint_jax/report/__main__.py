"""A run as one HTML page: inpaint-jax report WORKDIR [--output=FILE.html] [--evaluation=DIR,DIR].

It shows config, hardware, curves, validation sheets and evaluations. The file holds all its pictures and loads nothing.
"""

import logging
import sys
from pathlib import Path

from absl import app, flags

from inpaint_jax.files import write_file

_OUTPUT = flags.DEFINE_string("output", None, "The file to write; WORKDIR/report.html by default.")
_EVALUATION = flags.DEFINE_list("evaluation", [], "Folders of evaluations; by default those below WORKDIR.")

logger = logging.getLogger("inpaint_jax")


def main(argv: list[str]) -> None:
    """Hands over to the library."""
    if len(argv) != 2:
        raise app.UsageError("Give one workdir: inpaint-jax report runs/mine.")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True)
    logger.setLevel(logging.INFO)
    from inpaint_jax.report import facts, page

    workdir = Path(argv[1])
    output = Path(_OUTPUT.value) if _OUTPUT.value else workdir / "report.html"
    try:
        run = facts.gather(workdir, _EVALUATION.value)
    except facts.ReportError as error:
        sys.exit(f"report: {error}")
    content = page.render(run).encode("utf-8", "replace")  # a file name may hold what UTF-8 cannot
    try:
        write_file(output, content)
    except OSError as error:
        sys.exit(f"report: {output} cannot be written ({error.strerror}); give another file as --output.")
    logger.info(
        "Wrote %s (%.1f MiB): %d log lines, %d evaluation(s).",
        output,
        len(content) / 2**20,
        len(run.rows),
        len(run.evaluations),
    )


if __name__ == "__main__":
    app.run(main)
