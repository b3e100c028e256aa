"""The pack of photos, and the day on a GPU as far as seconds on a CPU show it; --rehearsal runs the whole."""

import importlib
import json
import os

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from inpaint_jax.data.sources import open_source

BENCHMARKS = REPOSITORY / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Calls give a module of benchmarks/."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_a_pack_takes_of_all_folders_and_keeps_their_parts_apart(benchmark, photos, tmp_path):
    """Two data sets, the second with twice the photos: half of the bytes take about half of each."""
    few = tmp_path / "few"
    for part, step in (("train", 2), ("val", 1)):
        (few / part).mkdir(parents=True)
        for file in sorted((photos / part).iterdir())[::step]:
            os.symlink(file, few / part / file.name)
    pack = benchmark("pack_photos").pack
    settings = {"side": 32, "quality": 75, "validation": 2}
    whole = pack([few, photos], tmp_path / "whole", size=10**9, **settings)
    assert whole["train"] == {"few": 5, "photos": 10}
    assert whole["val"] == {"few": 2, "photos": 2}
    files = sorted((tmp_path / "whole").glob("*/*.jpg"))
    size = sum(file.stat().st_size for file in files)
    validation = sum(file.stat().st_size for file in files if file.parent.name == "val")

    half = pack([few, photos], tmp_path / "half", size=(size + validation) // 2, **settings)
    assert half["val"] == whole["val"]
    assert 1 <= half["train"]["few"] <= 4
    assert 3 <= half["train"]["photos"] <= 7
    assert json.loads((tmp_path / "half" / "pack.json").read_text()) == half
    for part in ("train", "val"):
        source = open_source(f"folder:{tmp_path / 'half' / part}")
        assert len(source) == sum(half[part].values())
        assert all(min(source[i].shape[:2]) == 32 for i in range(len(source)))
        for index in range(len(source)):  # each is the photo of its name, in the part that it was in
            _, folder, name = os.path.basename(source.name(index)).removesuffix(".jpg").split("_")
            with Image.open(photos / part / f"{name}.png") as original:
                shown = np.asarray(original.convert("RGB").resize(source[index].shape[1::-1], Image.Resampling.LANCZOS))
            assert folder in ("few", "photos")
            assert np.abs(shown.astype(int) - source[index]).mean() < 12
    with pytest.raises(SystemExit, match="val/ alone"):
        pack([photos], tmp_path / "none", size=100, **settings)
