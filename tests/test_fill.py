"""The first fills of a hole: the spline in tension against a direct solver, against what it promises, and others."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sparse
import skimage
from scipy.sparse.linalg import splu

from inpaint_jax import classical
from inpaint_jax.data.masks import BINS, free_form_mask_of_ratio
from inpaint_jax.data.sources import open_source
from inpaint_jax.nets.fill import FILLS, HOLE_COLOUR, constant, tension_spline

STIFFNESS = 4.0
CLASSICAL = ("mean", "telea", "navier_stokes", "biharmonic")

# One function for all, and few shapes, because compiling takes nearly all of the time.
filled = jax.jit(tension_spline, static_argnames=("stiffness", "iterations"))
FUNCTIONS = {"constant": jax.jit(constant), "tension_spline": filled}


def photo(height, width):
    """float32 [H, W, 3] in [0, 1]."""
    return cv2.resize(skimage.data.astronaut()[30:230, 120:320], (width, height), interpolation=cv2.INTER_AREA) / (
        np.float32(255)
    )


def holes(height, width):
    """bool [6, H, W]: strokes, one at a corner, a border with one inside, several, a frame, all but a pixel."""
    masks = np.zeros((6, height, width), bool)
    masks[0] = free_form_mask_of_ratio(np.random.default_rng(0), height, width, 0.1, 0.6)
    masks[1, : height // 2, : width // 2] = True
    masks[2, :, -width // 4 :] = masks[2, height // 3 : height // 2, 2 : width // 3] = True
    masks[3] = np.random.default_rng(1).random((height, width)) > 0.7
    masks[4] = True
    masks[4, height // 4 : -height // 4, width // 4 : -width // 4] = False
    masks[5] = True
    masks[5, height // 3, width // 4] = False
    return masks


def solved(image, mask, stiffness=STIFFNESS):
    """float64 [H, W, 3]: (L + stiffness L^2) u = 0 in the hole, by elimination."""
    lines = []
    for side in mask.shape:
        step = sparse.diags([-np.ones(side - 1), np.ones(side - 1)], [0, 1], shape=(side - 1, side))
        lines.append(step.T @ step)
    (rows, columns), (height, width) = lines, mask.shape
    laplacian = sparse.kron(rows, sparse.eye(width)) + sparse.kron(sparse.eye(height), columns)
    system = (laplacian + stiffness * laplacian @ laplacian).tocsr()
    u, hole = image.reshape(-1, 3).astype(np.float64), mask.ravel()
    inside = splu(system[hole][:, hole].tocsc()).solve(-(system[hole][:, ~hole] @ u[~hole]))
    u[hole] = np.clip(inside, 0, 1)
    return u.reshape(image.shape)


def hole_psnr(image, truth, mask):
    return -10 * np.log10(np.square(image[mask] - truth[mask], dtype=np.float64).mean())


@pytest.mark.parametrize("size", [(64, 64), (33, 17)])
def test_it_is_what_a_direct_solver_finds(size):
    image, masks = photo(*size), holes(*size)
    made = filled(np.repeat(image[None], len(masks), axis=0), masks, iterations=12)
    assert made.dtype == jnp.float32
    for one, mask in zip(made, masks):
        np.testing.assert_allclose(one, solved(image, mask), atol=1 / 255)
        np.testing.assert_array_equal(one[~mask], image[~mask])


@pytest.mark.parametrize("stiffness", [0.0, 32.0])
def test_other_stiffness(stiffness):
    image, masks = photo(33, 40), holes(33, 40)[:4]
    made = filled(np.repeat(image[None], len(masks), axis=0), masks, stiffness=stiffness, iterations=24)
    for one, mask in zip(made, masks):
        np.testing.assert_allclose(one, solved(image, mask, stiffness), atol=1 / 255)


def test_it_beats_the_classical_methods_and_is_nearly_as_good_as_exact():
    """In the mean over photos and bins of mask ratios."""
    source, psnr = open_source("skimage:validation"), {}
    for number in range(8):
        whole = np.asarray(source[number])
        side = min(whole.shape[:2])
        image = cv2.resize(whole[:side, :side], (48, 48), interpolation=cv2.INTER_AREA)
        truth = image / np.float32(255)
        masks = np.stack(
            [
                free_form_mask_of_ratio(np.random.default_rng(number), 48, 48, *ratios)
                for ratios in BINS[number % 2 :: 2]
            ]
        )
        made = np.asarray(filled(np.repeat(truth[None], len(masks), axis=0), masks))
        for one, mask in zip(made, masks):
            results = {name: classical.complete(name, image, mask) / 255 for name in CLASSICAL}
            results |= {"ours": one, "exact": solved(truth, mask)}
            for name, result in results.items():
                psnr.setdefault(name, []).append(hole_psnr(result, truth, mask))
    mean = {name: np.mean(values) for name, values in psnr.items()}
    assert all(mean["ours"] > mean[name] + 0.2 for name in CLASSICAL), mean
    assert mean["ours"] == pytest.approx(mean["exact"], abs=0.1)


@pytest.mark.parametrize("name", FILLS)
def test_nothing_missing_and_all_missing(name):
    image, masks = np.stack([photo(40, 56)] * 6), holes(40, 56)
    masks[0], masks[5] = False, True
    made = FUNCTIONS[name](image, masks)
    assert made.dtype == jnp.float32
    np.testing.assert_array_equal(made[0], image[0])
    np.testing.assert_allclose(made[5], np.broadcast_to(HOLE_COLOUR, (40, 56, 3)), atol=1e-6)


def test_constant_is_the_imagenet_mean_in_the_hole():
    image, mask = photo(20, 30)[None], holes(20, 30)[:1]
    expected = np.where(mask[..., None], np.float32([0.485, 0.456, 0.406]), image)
    np.testing.assert_array_equal(constant(image, mask), expected)
    np.testing.assert_array_equal(constant(image, mask.astype(np.float32)), expected)


@pytest.mark.parametrize("name", FILLS)
def test_what_the_hole_holds_is_never_looked_at(name):
    image, masks = np.stack([photo(40, 56)] * 6), holes(40, 56)
    spoiled = np.where(masks[..., None], np.float32(np.nan), image)
    fill = FUNCTIONS[name]
    np.testing.assert_array_equal(fill(spoiled, masks), fill(image, masks))


def test_samples_of_a_batch_do_not_see_each_other():
    image, masks = np.stack([photo(40, 56)] * 6), holes(40, 56)
    first = filled(image, masks)[0]
    image[1:], masks[1:] = 1 - image[1:], masks[:0:-1]
    np.testing.assert_allclose(filled(image, masks)[0], first, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (5, 300), (9, 2)])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_extreme_shapes(size, share):
    rng = np.random.default_rng(0)
    image, mask = rng.random((1, *size, 3), np.float32), rng.random((1, *size)) < share
    made = np.asarray(filled(image, mask))
    assert np.isfinite(made).all()
    assert made.min() >= 0
    assert made.max() <= 1
    np.testing.assert_array_equal(made[~mask], image[~mask])


def test_a_single_colour_stays():
    colour = np.float32([0.9, 0.2, 0.0])
    masks = holes(40, 56)
    made = filled(np.broadcast_to(colour, (6, 40, 56, 3)), masks)
    np.testing.assert_allclose(made, np.broadcast_to(colour, made.shape), atol=1e-5)


def test_a_ramp_is_continued():
    """Through holes inside the photo; at its border, which is free, the surface may do as it likes."""
    rows, columns = np.mgrid[:40, :56].astype(np.float32)
    ramp = np.stack([np.stack([rows / 40, columns / 56, (rows + columns) / 96], axis=-1)] * 6)
    masks = np.zeros((6, 40, 56), bool)
    for i in range(6):
        masks[i, 3 : 6 + 3 * i, 4 : 6 + 4 * i] = masks[i, 25:36, 51 - 4 * i : 52] = True
    np.testing.assert_allclose(filled(ramp, masks, iterations=12), ramp, atol=1e-3)
    np.testing.assert_allclose(filled(ramp, masks), ramp, atol=0.02)


def test_without_stiffness_nothing_is_brighter_or_darker_than_the_border_of_the_hole():
    image, masks = photo(33, 40), holes(33, 40)[:4]
    made = np.asarray(filled(np.repeat(image[None], 4, axis=0), masks, stiffness=0.0, iterations=24))
    for one, mask in zip(made, masks):
        _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
        for label in range(1, labels.max() + 1):
            hole = labels == label
            border = cv2.dilate(hole.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0
            inside, around = one[hole], image[border & ~mask]
            assert (inside >= around.min(axis=0) - 1e-3).all()
            assert (inside <= around.max(axis=0) + 1e-3).all()


def test_gradient_is_finite_and_none_comes_from_the_hole():
    image, masks = np.stack([photo(15, 14)] * 8), np.concatenate([holes(15, 14), np.zeros((2, 15, 14), bool)])
    masks[7] = True
    slope = np.asarray(jax.jit(jax.grad(lambda x: jnp.square(tension_spline(x, masks)).sum()))(image))
    assert np.isfinite(slope).all()
    np.testing.assert_array_equal(slope[masks], 0)
    # Known pixels count for themselves, and those beside the hole for more.
    np.testing.assert_allclose(slope[6], 2 * image[6], rtol=1e-6)
    assert np.abs(slope[0] - 2 * image[0])[~masks[0]].max() > 0.1
