"""The Inpainter: any size, any mask, given pixels untouched, few compilations, several devices."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import REPOSITORY, several_devices
from flax.traverse_util import flatten_dict, unflatten_dict

from inpaint_jax.checkpoints import load_generator
from inpaint_jax.errors import UserError
from inpaint_jax.inference import inpainter as inference
from inpaint_jax.inference.inpainter import Inpainter, as_bool, padded_side
from inpaint_jax.models import export
from inpaint_jax.nets.attention import masked_patch_attention

SIZES = [(1, 1), (3, 5), (37, 61), (130, 170)]


@pytest.fixture(scope="module")
def inpainter(tiny_workdir):
    return Inpainter.load(tiny_workdir)


def sample(height, width, count=None, seed=0):
    """Noise and square holes, a third of the side; at least one pixel."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count or 1, height, width, 3), dtype=np.uint8)
    masks = np.zeros((count or 1, height, width), bool)
    for mask in masks:
        top, left = rng.integers(0, height - height // 3), rng.integers(0, width - width // 3)
        mask[top : top + max(1, height // 3), left : left + max(1, width // 3)] = True
    return (images, masks) if count else (images[0], masks[0])


def directly(inpainter, image, mask):
    """The generator as it is, without padding, in float."""
    outputs = jax.jit(inpainter.generator.apply)(
        {"params": inpainter.params}, image[None] / np.float32(255), mask[None]
    )
    return np.asarray(outputs.completed[0]) * 255, np.asarray(outputs.temperatures)


def test_load_reads_config_and_the_best_checkpoint(inpainter, tiny_workdir, make_config):
    params, step = load_generator(tiny_workdir)
    jax.tree.map(np.testing.assert_array_equal, inpainter.params, params)
    assert inpainter.config.to_dict() == make_config(train__max_steps=2, train__samples=0).to_dict()
    assert (inpainter.step, inpainter.name, inpainter.image_size, inpainter.guided) == (step, "tiny", 32, False)
    assert inpainter.generator.width == 4
    assert Inpainter.load(tiny_workdir, step=2).step == 2


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_given_pixels_are_bit_identical_at_any_size(inpainter, height, width):
    image, mask = sample(height, width)
    before = image.copy(), mask.copy()
    completed = inpainter(image, mask)
    assert completed.dtype == np.uint8
    assert completed.shape == image.shape
    np.testing.assert_array_equal(completed[~mask], image[~mask])
    assert (completed[mask] != image[mask]).any()
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])


@pytest.mark.parametrize(("height", "width"), [(96, 32), (320, 64)])
def test_a_size_that_needs_no_padding_is_the_generators_own(inpainter, height, width):
    image, mask = sample(height, width)
    expected, temperatures = directly(inpainter, image, mask)
    prediction = inpainter.predict(image[None], mask[None])
    assert np.abs(prediction.completed[0] - expected).max() <= 0.5 + 1e-2  # rounding to bytes
    np.testing.assert_allclose(prediction.temperatures, temperatures, rtol=1e-4)


def test_a_padded_size_is_the_generator_on_the_reflected_image(inpainter):
    image, mask = sample(37, 61)
    below_and_right = [(0, 64 - 37), (0, 64 - 61)]
    expected, _ = directly(
        inpainter,
        np.pad(image, [*below_and_right, (0, 0)], mode="reflect"),
        np.pad(mask, below_and_right, mode="reflect"),
    )
    assert np.abs(inpainter(image, mask) - expected[:37, :61]).max() <= 0.5 + 1e-2


def test_what_the_hole_holds_is_never_looked_at(inpainter):
    image, mask = sample(37, 61)
    other = np.where(mask[..., None], 255 - image, image)
    np.testing.assert_array_equal(inpainter(image, mask), inpainter(other, mask))


def test_predict_hands_back_both_stages_and_temperatures(inpainter):
    images, masks = sample(37, 61, count=3)
    prediction = inpainter.predict(images, masks)
    assert [field.name for field in dataclasses.fields(prediction)] == [
        "completed",
        "coarse",
        "refined",
        "temperatures",
    ]
    for pictures in (prediction.completed, prediction.coarse, prediction.refined):
        assert pictures.dtype == np.uint8
        assert pictures.shape == images.shape
    np.testing.assert_array_equal(prediction.completed, np.where(masks[..., None], prediction.refined, images))
    assert (prediction.coarse != prediction.refined).any()
    assert prediction.temperatures.shape == (3, 2)
    assert prediction.temperatures.dtype == np.float32
    assert (prediction.temperatures > 0).all()


def test_a_batch_is_its_images_one_by_one(inpainter):
    images, masks = sample(40, 50, count=3)
    together = inpainter(images, masks)
    for image, mask, completed in zip(images, masks, together):
        # Another batch size sums in another order: a byte may round the other way.
        assert np.abs(inpainter(image, mask).astype(int) - completed).max() <= 1


def test_programs_are_shared_between_sizes(inpainter):
    image, mask = sample(130, 170)
    inpainter(image, mask)  # padded to 160 x 192
    before = inference._run._cache_size()
    for height, width in [(129, 161), (160, 192), (130, 170), (159, 180)]:
        inpainter(*sample(height, width))
    assert inference._run._cache_size() == before
    inpainter(*sample(161, 170))
    assert inference._run._cache_size() == before + 1


def test_few_padded_sizes_and_little_padding():
    sides = np.arange(1, 2049)
    padded = np.array([padded_side(int(side), 256) for side in sides])
    assert (padded >= sides).all()
    assert len(set(padded.tolist())) == 20
    assert (padded / sides)[127:].max() < 1.25
    assert all(padded_side(int(side), 256) == side for side in set(padded.tolist()))


@pytest.mark.parametrize("size", [16, 100, 250, 256, 300])
def test_training_images_are_not_padded(size):
    assert padded_side(size, size) == size
    assert padded_side(size + 1, size) > size


@pytest.mark.parametrize(
    ("side", "size", "padded"),
    [(1, 256, 32), (97, 100, 100), (95, 100, 96), (257, 256, 320), (290, 300, 300), (2000, 256, 2048)],
)
def test_padded_sides(side, size, padded):
    assert padded_side(side, size) == padded


# Masks.

HOLE = np.array([[[True, False], [False, False]]])


@pytest.mark.parametrize(
    "mask",
    [
        HOLE,
        HOLE.astype(np.uint8),
        HOLE.astype(np.int64),
        HOLE * np.uint8(255),
        HOLE * 255.0,
        HOLE * 1.0,
        HOLE * 0.3 + 0.4,  # a soft mask of 0.7 and 0.4
        HOLE * np.uint8(100) + np.uint8(100),  # 200 and 100, of an antialiased file
        HOLE.astype(np.float16),
    ],
    ids=lambda mask: f"{mask.dtype}-{mask.max():g}",
)
def test_masks_of_any_type_mean_the_same(mask):
    np.testing.assert_array_equal(as_bool(mask), HOLE)


def test_each_mask_of_a_batch_is_read_by_itself():
    ones = HOLE.astype(np.uint8)
    np.testing.assert_array_equal(
        as_bool(np.concatenate([ones, 255 * ones, 0 * ones])), np.concatenate([HOLE, HOLE, HOLE & False])
    )


@pytest.mark.parametrize(
    "mask",
    [HOLE * 2, HOLE * 100, HOLE * -1, HOLE * 65535, HOLE * 256.0, np.where(HOLE, np.nan, 0.0)],
    ids=lambda mask: f"{mask.max():g}",
)
def test_ambiguous_masks_are_refused(mask, inpainter):
    with pytest.raises(ValueError, match="ambiguous"):
        inpainter(np.zeros((2, 2, 3), np.uint8), mask[0])


def test_an_empty_mask_gives_the_image_back(inpainter):
    image, mask = sample(20, 30)
    completed = inpainter(image, np.zeros_like(mask))
    np.testing.assert_array_equal(completed, image)
    assert completed is not image


def test_a_full_mask_warns_and_is_filled(inpainter, caplog):
    images, masks = sample(20, 30, count=3)
    masks[1] = True
    completed = inpainter(images, masks)
    assert "1 of 3 masks cover the whole image" in caplog.text
    assert completed[1].std() < images[1].std()


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4)), "must be RGB"),
        (np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4)), "drop an alpha channel"),
        (np.zeros((4, 4, 3), np.float32), np.zeros((4, 4)), "must be uint8"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4)), "as large as its image"),
        (np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5, 1)), "as large as its image"),
        (np.zeros((0, 5, 3), np.uint8), np.zeros((0, 5)), "no pixel"),
        (np.zeros((4, 5, 3), np.uint8), np.full((4, 5), "x"), "bool, or numbers"),
    ],
)
def test_what_does_not_fit_gets_a_sentence(inpainter, image, mask, message):
    with pytest.raises(ValueError, match=message):
        inpainter(image, mask)


def test_a_model_without_sketches_refuses_them(inpainter):
    image, mask = sample(20, 30)
    with pytest.raises(ValueError, match="trained without sketches"):
        inpainter(image, mask, mask)


def test_a_model_with_sketches_takes_them_or_none(inpainter):
    image, mask = sample(32, 32)
    model = dataclasses.replace(inpainter.config.model, sketch=True)
    config = dataclasses.replace(inpainter.config, model=model)
    guided = Inpainter(config, with_a_fifth_channel(inpainter.params), 0)
    assert guided.guided
    without, empty, drawn = (guided(image, mask, sketch) for sketch in (None, mask & False, mask))
    np.testing.assert_array_equal(without, inpainter(image, mask))
    np.testing.assert_array_equal(without, empty)
    assert (drawn != empty).any()
    with pytest.raises(ValueError, match="sketch must be of shape"):
        guided(image, mask, mask[:5])


def with_a_fifth_channel(params):
    """Gives the three layers that read the image another input channel."""
    flat = flatten_dict(jax.tree.map(np.asarray, params))
    for layer in (("coarse",), ("refinement", "convolution_branch"), ("refinement", "attention_branch")):
        name = (*layer, "GatedConv_0", "conv", "kernel")
        flat[name] = np.concatenate([flat[name], flat[name][:, :, :1]], axis=2)
    return unflatten_dict(flat)


# Loading.


def test_an_exported_file_is_the_same_model(inpainter, tiny_workdir, tmp_path):
    export(tiny_workdir, tmp_path / "tiny.safetensors")
    exported = Inpainter.load(tmp_path / "tiny.safetensors")
    image, mask = sample(64, 64)
    np.testing.assert_array_equal(exported(image, mask), inpainter(image, mask))
    assert (exported.config, exported.step) == (inpainter.config, inpainter.step)
    with pytest.raises(UserError, match=r"holds the generator of step \d alone, not of step 77"):
        Inpainter.load(tmp_path / "tiny.safetensors", step=77)


def test_what_is_no_model_gets_a_sentence(tiny_workdir, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; give the workdir"):
        Inpainter.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no config.json; give the workdir"):
        Inpainter.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 77"):
        Inpainter.load(tiny_workdir, step=77)
    (tmp_path / "photo.safetensors").write_bytes(b"not tensors")
    with pytest.raises(UserError, match="is no exported model"):
        Inpainter.load(tmp_path / "photo.safetensors")


# Several devices.

SEVERAL_DEVICES = """
import sys
import jax
import numpy as np
from inpaint_jax.inference import inpainter as inference
from inpaint_jax.inference.inpainter import Inpainter

assert jax.local_device_count() == 3
inpainter = Inpainter.load(sys.argv[1])
saved = np.load(sys.argv[2])
for count in (1, 2, 3, 5, 6):  # 2 and 5 are padded, 2 and 3 share a program, 5 and 6 too
    completed = inpainter(saved["images"][:count], saved["masks"][:count])
    assert completed.shape == saved["completed"][:count].shape
    assert np.abs(completed.astype(int) - saved["completed"][:count]).max() <= 1, count
    temperatures = inpainter.predict(saved["images"][:count], saved["masks"][:count], margin=0).temperatures
    np.testing.assert_allclose(temperatures, saved["temperatures"][:count], rtol=1e-4)
assert inference._run._cache_size() == 3
split = inpainter._put(saved["images"])
assert len(split.sharding.device_set) == 3 and split.addressable_shards[0].data.shape[0] == 2
"""


def test_a_batch_is_split_over_all_devices(inpainter, tiny_workdir, tmp_path):
    images, masks = sample(40, 50, count=6)
    prediction = inpainter.predict(images, masks)
    arrays = {"completed": prediction.completed, "temperatures": prediction.temperatures}
    np.savez(tmp_path / "expected.npz", images=images, masks=masks, **arrays)
    command = [sys.executable, "-c", SEVERAL_DEVICES, str(tiny_workdir), str(tmp_path / "expected.npz")]
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **several_devices(3)}, check=True, timeout=300)


def test_branches_and_temperatures_by_hand(inpainter):
    images, masks = sample(40, 50, count=2)
    whole = inpainter.predict(images, masks)
    without = inpainter.predict(images, masks, without=("attention",))
    np.testing.assert_array_equal(without.coarse, whole.coarse)
    assert (without.refined != whole.refined).any()
    same = inpainter.predict(images, masks, temperatures=whole.temperatures)
    assert np.abs(same.refined.astype(int) - whole.refined).max() <= 1
    with pytest.raises(ValueError, match=r"of shape \(2, 2\), not \(2,\)"):
        inpainter.predict(images, masks, temperatures=np.ones(2))
    with pytest.raises(ValueError, match="no 'head_2' to do without"):
        inpainter.predict(images, masks, without=["head_2"])


def test_attention_inputs_lead_to_what_the_generator_makes(inpainter):
    """Their maps, refined at the learned temperatures, are MHTMA's output: seen by running the rest on it."""
    image, mask = sample(40, 50)
    inputs = inpainter.attention_inputs(image, mask)
    side = padded_side(40, 32) // 4, padded_side(50, 32) // 4
    assert inputs.mask.shape == (1, *side)
    assert [x.shape for x in inputs.embedded] == [(1, *side, 8)] * 2
    assert inputs.patch_size == 3
    np.testing.assert_allclose(inputs.temperatures, inpainter.predict(image[None], mask[None]).temperatures, rtol=1e-5)
    cells = np.pad(mask, [(0, 4 * side[0] - 40), (0, 4 * side[1] - 50)], mode="reflect")
    np.testing.assert_array_equal(inputs.mask[0], cells.reshape(side[0], 4, side[1], 4).max(axis=(1, 3)))

    refined = [
        masked_patch_attention(x, inputs.mask, inputs.temperatures[:, head]) for head, x in enumerate(inputs.embedded)
    ]
    padded = inpainter._put(image[None]), inpainter._put(mask[None])
    _, seen = inpainter.generator.apply(
        {"params": inpainter.params},
        padded[0] / np.float32(255),
        padded[1],
        capture_intermediates=lambda module, _: module.name == "mhtma",
        mutable=["intermediates"],
    )
    (made, _), *_ = seen["intermediates"]["refinement"]["attention_branch"]["mhtma"]["__call__"]
    np.testing.assert_allclose(np.concatenate(refined, axis=-1), made, atol=1e-5)


def test_siblings_without_heads_say_so(inpainter):
    model = dataclasses.replace(inpainter.config.model, attention="contextual")
    config = dataclasses.replace(inpainter.config, model=model)
    with pytest.raises(ValueError, match="'contextual' attention, which can not be looked into"):
        Inpainter(config, inpainter.params, 0).attention_inputs(*sample(32, 32))
