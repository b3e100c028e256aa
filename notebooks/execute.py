"""Runs the notebooks from top to bottom, to look at a run of one's own or to bring the committed ones up to date.

    python notebooks/execute.py --output=runs/quickstart/notebooks          # copies, as .ipynb and .html
    INPAINT_JAX_WORKDIR=runs/mine python notebooks/execute.py 03_temperatures --output=runs/mine/notebooks
    python notebooks/execute.py                                             # in place, to be committed

Needs the extra `notebooks`. After a change that can be seen in their pictures, run this in place and commit.
"""

import argparse
import base64
import importlib.util
import io
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

FOLDER = Path(__file__).resolve().parent
_CLOCK = re.compile(r"^\d\d:\d\d:\d\d (?=[A-Z]+ )", re.MULTILINE)  # in front of a line of a command's log
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LARGE = 130_000  # characters, for 100 kB
_WIDGET = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    """Executes the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="for example 03_temperatures; all by default")
    parser.add_argument("--output", type=Path, help="folder for executed copies; in place by default")
    arguments = parser.parse_args()
    paths = [FOLDER / f"{Path(name).stem}.ipynb" for name in arguments.names] or sorted(FOLDER.glob("*.ipynb"))
    if missing := [path.stem for path in paths if not path.exists()]:
        sys.exit(f"There is no notebook {', '.join(missing)}; choose from {', '.join(names())}.")
    for path in paths:
        print(f"{path.name} ...", flush=True)
        executed = execute(path)
        target = path
        if arguments.output is not None:
            arguments.output.mkdir(parents=True, exist_ok=True)
            target = arguments.output / path.name
        nbformat.write(executed, target)
        page = to_html(executed, target) if arguments.output is not None else None
        print(f"  {page or target}")


def names() -> list[str]:
    """All notebooks, without their extension."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def execute(path: Path, timeout: float = 1800) -> nbformat.NotebookNode:
    """Runs a notebook in a fresh kernel of this Python, in the folder of the notebooks.

    Args:
        path: of the notebook.
        timeout: seconds for a cell.

    Returns:
        the executed notebook, without what only a running kernel can show (widgets), standard error, and
        the clock in front of a command's log lines.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        resources={"metadata": {"path": str(FOLDER)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [_as_read(output) for output in cell.outputs if _is_lasting(output)]
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}  # else the version of this Python makes a difference
    return notebook


def _is_lasting(output: Any) -> bool:
    return _WIDGET not in output.get("data", {}) and output.get("name") != "stderr"


def _as_read(output: Any) -> Any:
    """As it stays: of a line that was written over, as a progress bar is, the last state; pictures small."""
    if output.output_type == "stream":
        lines = _CONTROL.sub("", output.text).replace("\r\n", "\n").split("\n")
        output.text = _CLOCK.sub("", "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines))
    if "image/png" in output.get("data", {}):
        output.data.pop("image/jpeg", None)  # the same once more
        if len(output.data["image/png"]) > _LARGE:
            output.data["image/png"] = _in_256_colours(output.data["image/png"])
    return output


def _in_256_colours(png: str) -> str:
    """A third of the bytes, for sheets of photos; the few pixels of a mark in a figure might lose their colour."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def to_html(notebook: nbformat.NotebookNode, path: Path) -> Path | None:
    """Writes a notebook beside itself as a page that any browser shows; None where nbconvert is not installed."""
    if importlib.util.find_spec("nbconvert") is None:
        return None
    from nbconvert import HTMLExporter

    page = path.with_suffix(".html")
    page.write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    return page


if __name__ == "__main__":
    main()
