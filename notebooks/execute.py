"""Runs the notebooks from top to bottom, to look at a run of one's own or to bring the committed ones up to date.

    python notebooks/execute.py --output=runs/quickstart/notebooks          # copies, as .ipynb and .html
    INPAINT_JAX_WORKDIR=runs/mine python notebooks/execute.py 03_temperatures --output=runs/mine/notebooks
    python notebooks/execute.py                                             # in place, to be committed

Needs the extra `notebooks`. What is written is stamped with a digest of the notebook's own code and of the code of the
figures that it calls and of the arrays behind them (`WATCHED`); a test compares the stamps of the committed notebooks
with that code. What lies below it (networks, data, evaluation) and the run itself are not covered: after a change there
that can be seen in the pictures, run this by hand.
"""

import argparse
import ast
import base64
import hashlib
import importlib.util
import io
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from PIL import Image

FOLDER = Path(__file__).resolve().parent
PACKAGE = "inpaint_jax"
WATCHED = ("visualize", "inspection")
"""Parts of the package whose code a stamp covers, as far as the notebook reaches it. All else may change freely."""

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
        the executed notebook, stamped; without what only a running kernel can show (widgets), standard error, and
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
    notebook.metadata[PACKAGE] = {"digest": digest(notebook)}
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


# ------------------------------------------------------------------------------------------------- freshness


def digest(notebook: nbformat.NotebookNode, repository: Path = FOLDER.parent) -> str:
    """Tells whether a notebook's outputs are those of the code: changes with it, not with comments and docstrings.

    Args:
        notebook: its code cells count, and the modules of `WATCHED` that they use by name, with those that these use.
        repository: the folder that holds the package.

    Returns:
        sixteen hexadecimal digits.
    """
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    found = hashlib.sha256("\n\n".join(cells).encode())
    for path in sorted(_used(cells, repository)):
        found.update(path.relative_to(repository).as_posix().encode())
        found.update(repr(_canonical(ast.parse(path.read_text(encoding="utf-8")))).encode())
    return found.hexdigest()[:16]


def _used(cells: list[str], repository: Path) -> set[Path]:
    """The watched files that code cells reach."""
    shell = TransformerManager()  # turns !command and %magic into Python
    trees, found = [ast.parse("\n".join(shell.transform_cell(cell) for cell in cells))], set()
    while trees:
        fresh = _files_behind(trees.pop(), repository) - found
        found |= fresh
        trees += [ast.parse(path.read_text(encoding="utf-8")) for path in fresh]
    return found


def _files_behind(tree: ast.Module, repository: Path) -> set[Path]:
    """The watched files in which the names that a module takes from the package are defined."""
    modules: dict[str, str] = {}  # what is imported as a whole: name -> dotted name below the package
    wanted: set[tuple[str, str]] = set()  # (module, name in it)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            below = node.module.partition(".")[2]
            for alias in node.names:
                module = f"{below}.{alias.name}".strip(".")
                if _file(module, repository):
                    modules[alias.asname or alias.name] = module
                else:
                    wanted.add((below, alias.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            wanted.add((modules[node.value.id], node.attr))
    watched = {(module, name) for module, name in wanted if f"{module}.".startswith(tuple(f"{w}." for w in WATCHED))}
    return {_definition(module, name, repository) for module, name in watched}


def _definition(module: str, name: str, repository: Path) -> Path:
    """The file of a module, or the one from which a package takes a name."""
    path = _file(module, repository)
    if path.name == "__init__.py":
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
                return _definition(node.module.removeprefix(f"{PACKAGE}."), name, repository)
    return path


def _file(module: str, repository: Path) -> Path | None:
    path = repository / PACKAGE / Path(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def _canonical(node: Any) -> Any:
    """A syntax tree as tuples, without docstrings and positions, and the same for all versions of Python."""
    if isinstance(node, list):
        return tuple(_canonical(each) for each in node)
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if value not in (None, [])}
    if isinstance(fields.get("body"), list):
        fields["body"] = [each for each in fields["body"] if not _is_string(each)]
    return type(node).__name__, *((name, _canonical(fields[name])) for name in sorted(fields))


def _is_string(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


if __name__ == "__main__":
    main()
