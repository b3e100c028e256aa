"""The notebooks: all run, on the quickstart; and what is committed is small and whole."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, shared_folder
from PIL import Image

pytest.importorskip("nbclient", reason="nbclient is not installed (extra notebooks)")
import nbformat

from inpaint_jax.features import pidinet
from notebooks import execute

# How many pictures each shows, widgets aside.
PICTURES = {"01_quickstart": 4, "02_masks_and_data": 5, "03_temperatures": 7, "04_results": 5}


def read(name):
    return nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def pictures(notebook):
    found = [output.data["image/png"] for output in outputs(notebook) if "image/png" in output.get("data", {})]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")) for png in found]


def texts(notebook):
    parts = []
    for output in outputs(notebook):
        parts.append(output.get("text", ""))
        parts += [output.get("data", {}).get(f"text/{kind}", "") for kind in ("plain", "markdown", "html")]
    return "\n".join(parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_runs_on_the_quickstart(name, quickstart_workdir, photos, monkeypatch):
    monkeypatch.setenv("INPAINT_JAX_WORKDIR", str(quickstart_workdir))
    monkeypatch.setenv("INPAINT_JAX_CONFIG", str(quickstart_workdir.with_name("short.py")))
    # What takes longest is made shorter.
    monkeypatch.setenv("INPAINT_JAX_METHODS", "mean,telea")
    monkeypatch.setenv("INPAINT_JAX_PHOTO", str(photos / "val" / "00.png"))
    weights = shared_folder() / "weights" / pidinet.PIDINET.name
    monkeypatch.setenv("INPAINT_JAX_PIDINET_WEIGHTS", str(weights))
    executed = execute.execute(REPOSITORY / "notebooks" / f"{name}.ipynb", timeout=300)
    shown, expected = pictures(executed), PICTURES[name]
    if name == "02_masks_and_data" and not weights.exists():
        expected -= 1
        assert "No sketches: There is no file" in texts(executed)
    assert len(shown) == expected
    assert all(picture.std() > 10 for picture in shown)
    if name == "01_quickstart":
        assert "Nothing to do: the limit of 60 steps is reached" in texts(executed)
    if name in ("01_quickstart", "04_results"):
        tables = [
            output.data["text/markdown"] for output in outputs(executed) if "text/markdown" in output.get("data", {})
        ]
        assert "| PSNR (dB) ↑ | (0.0, 0.1] | 15 |" in tables[0]
        methods = [cell.strip() for cell in tables[0].partition("\n")[0].strip("|").split("|")][3:]
        assert methods == ["mean", "telea", quickstart_workdir.name]


def test_all_are_there():
    assert sorted(PICTURES) == execute.names()
    assert sum(path.stat().st_size for path in (REPOSITORY / "notebooks").glob("*.ipynb")) < 2e6


@pytest.mark.parametrize("name", PICTURES)
def test_committed_outputs_are_whole(name):
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run from top to bottom"
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert len(pictures(notebook)) == PICTURES[name]


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_in_them_belongs_to_one_machine(name):
    notebook = read(name)
    printed = texts(notebook)
    assert not re.findall(r"/(?:home|tmp|root|Users|mnt)/\S*", printed)
    assert not re.findall(r"\d\d:\d\d:\d\d", printed)
    assert str(Path.home()) not in printed
    # The badge opens this very notebook in the repository that the first cell clones.
    source = notebook.cells[1].source
    repository = re.search(r'REPOSITORY = "https://github.com/(.+)"', source)[1]
    badge = f"https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}.ipynb"
    assert badge in notebook.cells[0].source
    assert all(read(other).cells[1].source == source for other in PICTURES)


@pytest.mark.parametrize("name", ["01_quickstart", "04_results"])
def test_they_take_the_evaluation_that_make_quickstart_leaves(name):
    (methods,) = re.findall(r'ALL_METHODS = "(.+)"', "\n".join(cell.source for cell in read(name).cells))
    assert f"--methods={methods}\n" in (REPOSITORY / "Makefile").read_text()


def test_what_is_kept_of_an_execution(tmp_path):
    cells = [
        'import sys\nprint("10 %\\r100 %")\nprint("a warning", file=sys.stderr)',
        "!echo 12:34:56 INFO Nothing to do.; exit 3\nassert _exit_code == 3",
        "import numpy as np\nfrom PIL import Image\n"
        "Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))",
        "import ipywidgets\nipywidgets.IntSlider()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, tmp_path / "notebook.ipynb")
    executed = execute.execute(tmp_path / "notebook.ipynb", timeout=300)
    printed, logged, picture = outputs(executed)
    assert printed.text == "100 %\n"
    assert logged.text.splitlines() == ["INFO Nothing to do."]
    assert sorted(picture.data) == ["image/png", "text/plain"]
    assert Image.open(io.BytesIO(base64.b64decode(picture.data["image/png"]))).mode == "P"
