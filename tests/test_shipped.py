"""The models that come with the package: small, free of paths, found by name, better than the fill they start from."""

import json
import re

import numpy as np
import pytest
from conftest import REPOSITORY

from inpaint_jax import models
from inpaint_jax.cli import main
from inpaint_jax.data.masks import free_form_mask_of_ratio
from inpaint_jax.data.sketches import sketch_from_edges
from inpaint_jax.data.sources import open_source
from inpaint_jax.errors import MissingFile
from inpaint_jax.features import pidinet
from inpaint_jax.inference import Inpainter
from inpaint_jax.nets.fill import tension_spline

LARGEST = 10 * 2**20  # bytes


def test_files():
    shipped = models.shipped_models()
    assert "scenes" in shipped
    for path in shipped.values():
        assert path.stat().st_size < LARGEST
        assert "research" in models.read_metadata(path)["terms"]
        _, config, _ = models.read_model(path)
        assert not [word for word in json.dumps(config).split('"') if word.startswith("/") or "folder:/" in word]


def test_a_name_is_a_string_and_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert models.load_model("scenes")[0].name == "scenes"
    with pytest.raises(MissingFile, match="scenes does not exist"):
        models.load_model("./scenes")


def test_the_command_lists_them_and_prints_their_cards(capsys):
    assert main(["models"]) == 0
    listed = capsys.readouterr().out
    for name in models.shipped_models():
        assert main(["models", f"--card={name}"]) == 0
        assert capsys.readouterr().out.rstrip() == (REPOSITORY / "docs" / f"{name}.md").read_text().rstrip()
        assert f"{name}: " in listed
    sums = re.findall(r"SHA-256: (\w{64})", listed)
    assert len(sums) == len(models.shipped_models())
    documented = (REPOSITORY / "docs" / "models.md").read_text()
    assert all(checksum in documented for checksum in sums)
    assert listed.count("dB") >= len(models.shipped_models())
    assert all(f"inpaint-jax import --system={system}\n" in listed for system in ("deepfillv2", "parconv"))


@pytest.mark.parametrize("ratio", [(0.1, 0.2), (0.3, 0.4)])
def test_it_is_better_than_its_fill(ratio):
    """On photos of scikit-image, which were not trained on."""
    inpainter, rng, source = Inpainter.load("scenes"), np.random.default_rng(0), open_source("skimage:validation")
    images = np.stack([np.asarray(source[number])[:128, :128] for number in range(0, len(source), 4)])
    masks = np.stack([free_form_mask_of_ratio(rng, 128, 128, *ratio) for _ in images])
    fills = np.asarray(tension_spline(images.astype(np.float32) / 255, masks)) * 255

    def error(made):
        return np.abs(made.astype(float) - images)[masks].mean()

    assert error(inpainter(images, masks)) < error(fills)


def test_lines_help_the_guided_one(shared):
    """With PiDiNet's lines of the true photo, holes are nearer to it than without, and than those of other photos."""
    weights = shared / "weights" / pidinet.PIDINET.name
    if not weights.exists():
        pytest.skip(f"no weights of PiDiNet at {weights}")
    inpainter, rng, source = (
        Inpainter.load("scenes-sketch"),
        np.random.default_rng(0),
        open_source("skimage:validation"),
    )
    images = np.stack([np.asarray(source[number])[:128, :128] for number in range(0, len(source), 4)])
    masks = np.stack([free_form_mask_of_ratio(rng, 128, 128, 0.2, 0.3) for _ in images])
    edges = np.asarray(pidinet.edge_map(pidinet.load(weights), images.astype(np.float32) / 255))
    lines = np.stack([sketch_from_edges(edge, scaled=True) for edge in edges])

    def error(*sketches):
        return np.abs(inpainter(images, masks, *sketches).astype(float) - images)[masks].mean()

    assert error(lines) < error() < error(np.roll(lines, 1, axis=0))
