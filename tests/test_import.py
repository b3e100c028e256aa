"""Weights that were published elsewhere, by the command: files as torch writes them, with the reference's weights.

Files that torch itself wrote, with optimizers and in both layouts, were imported once by hand.
"""

import os
import pickle
import runpy
import zipfile

import jax
import numpy as np
import pytest
import torch_files
from torch_files import write_plain, write_zip

from inpaint_jax import models
from inpaint_jax.cli import main
from inpaint_jax.demo.studio import Studio
from inpaint_jax.inference import Inpainter
from inpaint_jax.systems import deepfillv2_weights


@pytest.fixture(scope="module", params=["deepfillv2", "deepfillv2_tf"])
def published(request, shared):
    """(variant, the generator's state_dict, arrays of the reference)."""
    folder = shared / "reference" / "compared"
    if not (folder / f"{request.param}.npz").is_file():
        pytest.skip(f"no reference outputs at {folder}")
    recipe = runpy.run_path(str(folder / "compared_systems_recipe.py"))
    with np.load(folder / f"{request.param}.npz") as file:
        wanted = ("keys_generator", "b/image_uint8", "b/mask_uint8", "b/composite_uint8_stride4")
        arrays = {name: file[name] for name in wanted}
    state = recipe["state"](request.param, recipe["read_keys"](arrays["keys_generator"]))
    return "tf" if request.param.endswith("tf") else "pt", state, arrays


def run(weights, output, system="deepfillv2"):
    return main(["import", f"--system={system}", f"--weights={weights}", f"--output={output}"])


def test_an_imported_file_fills_as_the_published_network_does(published, tmp_path):
    variant, state, arrays = published
    optimizer = {"state": {0: {"step": np.array(7.0, np.float32)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    write = write_zip if variant == "pt" else write_plain
    write(tmp_path / "states.pth", {"G": state, "D": {}, "G_optim": optimizer, "n_iter": 7})
    assert run(tmp_path / "states.pth", tmp_path / "model.safetensors") == 0
    assert "education and research" in models.read_metadata(tmp_path / "model.safetensors")["terms"]
    inpainter = Inpainter.load(tmp_path / "model.safetensors")
    assert (inpainter.name, inpainter.step, inpainter.config.system) == ("states", 7, "deepfillv2")
    assert inpainter.config.model.variant == variant
    image, mask = arrays["b/image_uint8"], arrays["b/mask_uint8"].astype(bool)
    filled = inpainter(image, mask)
    np.testing.assert_array_equal(filled[~mask], image[~mask])
    difference = filled[::4, ::4].astype(int) - arrays["b/composite_uint8_stride4"]
    assert set(np.unique(difference)) <= {0, 1}  # ours is rounded, theirs cut off

    studio = Studio(inpainter, None)
    shown = studio.fill(image, mask, None, 256)
    np.testing.assert_array_equal(shown.pixels, filled)
    assert (studio.learns_temperatures, shown.temperatures.shape) == (False, (0,))

    # A bare state_dict, from before the fuse had a buffer, of half precision.
    bare = {name: tensor.astype(np.float16) for name, tensor in state.items() if "fuse" not in name}
    write_zip(tmp_path / "bare.pth", bare)
    assert run(tmp_path / "bare.pth", tmp_path / "half.safetensors") == 0
    params, _, step = models.read_model(tmp_path / "half.safetensors")
    assert step == 0
    exact = deepfillv2_weights.to_params(state, variant)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), params, exact)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


def test_keys_that_are_missing_or_left_over_are_named(published, tmp_path, capsys):
    _, state, _ = published
    names = [name for name in state if "fuse" not in name]
    removed, misshapen = names[0], names[1]
    changed = {name: tensor for name, tensor in state.items() if name != removed}
    changed |= {"stage3.conv.weight": np.ones(2, np.float32), misshapen: np.ones(5, np.float32)}
    write_zip(tmp_path / "states.pth", {"G": changed})
    assert run(tmp_path / "states.pth", tmp_path / "model.safetensors") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"inpaint-jax import: {tmp_path}/states.pth does not hold the weights of this network")
    assert f"missing: {removed}; extra: stage3.conv.weight; wrong shape: {misshapen} (5,) instead of" in said
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.slow
def test_partial_convolutions_fill_as_published(shared, tmp_path):
    """A whole checkpoint, with the kernels of ones that its masks are counted by."""
    folder = shared / "reference" / "compared"
    if not (folder / "parconv.npz").is_file():
        pytest.skip(f"no reference outputs at {folder}")
    recipe = runpy.run_path(str(folder / "compared_systems_recipe.py"))
    with np.load(folder / "parconv.npz") as file:
        arrays = {
            name: file[name] for name in ("keys_generator", "b/image_uint8", "b/mask_uint8", "b/composite_sample")
        }
    state = recipe["state"]("parconv", recipe["read_keys"](arrays["keys_generator"]))
    write_zip(tmp_path / "1000000.pth", {"n_iter": 1_000_000, "model": state, "optimizer": {"state": {}}})
    assert run(tmp_path / "1000000.pth", tmp_path / "model.safetensors", "parconv") == 0
    assert "MIT licence, (c) 2018 Naoto Inoue" in models.read_metadata(tmp_path / "model.safetensors")["terms"]
    inpainter = Inpainter.load(tmp_path / "model.safetensors")
    assert (inpainter.name, inpainter.step, inpainter.config.system) == ("1000000", 1_000_000, "parconv")
    assert not inpainter.is_smooth
    image, mask = arrays["b/image_uint8"], arrays["b/mask_uint8"].astype(bool)
    filled = inpainter(image, mask)
    np.testing.assert_array_equal(filled[~mask], image[~mask])
    # Theirs is CHW, less ImageNet's mean, divided by its standard deviation.
    chosen = np.linspace(0, filled.size - 1, 4096).astype(np.int64)
    channel = chosen // mask.size
    theirs = arrays["b/composite_sample"] * np.array([0.229, 0.224, 0.225])[channel]
    theirs = 255 * np.clip(theirs + np.array([0.485, 0.456, 0.406])[channel], 0, 1)
    assert np.abs(filled.transpose(2, 0, 1).ravel()[chosen] - theirs).max() < 0.6
    np.testing.assert_array_equal(Studio(inpainter, None).fill(image, mask, None, 256).pixels, filled)


def test_keys_of_partial_convolutions_that_are_missing_or_left_over_are_named(tmp_path, capsys):
    state = {"enc_1.conv.input_conv.weight": np.ones(5, np.float32), "enc_1.conv.mask_conv.weight": np.ones(5)}
    state |= {"enc_2.bn.num_batches_tracked": np.array(3), "enc_8.bn.weight": np.ones(2, np.float32)}
    write_zip(tmp_path / "1.pth", {"model": state})
    assert run(tmp_path / "1.pth", tmp_path / "model.safetensors", "parconv") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "missing: dec_1.conv.input_conv.bias, dec_1.conv.input_conv.weight, dec_2.conv.input_conv.weight, " in said
    assert (
        "more; extra: enc_8.bn.weight; wrong shape: enc_1.conv.input_conv.weight (5,) instead of (64, 3, 7, 7)" in said
    )
    write_zip(tmp_path / "2.pth", np.ones(5, np.float32))
    assert run(tmp_path / "2.pth", tmp_path / "model.safetensors", "parconv") == 2
    assert "holds no state_dict; give a checkpoint of partial convolutions" in capsys.readouterr().err
    assert not (tmp_path / "model.safetensors").exists()


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("layout", ["zip", "plain"])
def test_a_malicious_file_is_refused_and_runs_nothing(layout, tmp_path, capsys):
    evil = pickle.dumps({"G": {"conv1.conv.weight": Evil(tmp_path / "ran")}}, protocol=2)
    path = tmp_path / "states.pth"
    if layout == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("archive/data.pkl", evil)
    else:
        head = torch_files.MAGIC + torch_files.dumps(1001) + torch_files.dumps({"little_endian": True})
        path.write_bytes(head + evil)
    assert run(path, tmp_path / "model.safetensors") == 2
    assert "it names posix.mkdir, which no state_dict needs" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "model.safetensors").exists()
    pickle.loads(evil)  # what torch.load would have done once
    assert (tmp_path / "ran").exists()
