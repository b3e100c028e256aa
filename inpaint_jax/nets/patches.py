"""The geometry of s x s patches: taking them from a map, comparing, mixing and putting them back.

Feature maps are [B, H, W, C]; a patch is named by the pixel of its top left corner in the (padded, for queries) map.
What can be done without ever building the patches is: the inner product of two patches is a sum over the s x s offsets
of inner products of pixels.
"""

import functools
import operator
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from inpaint_jax.arrays import AnyArray

# Patches shorter than this lose their similarity to others as they shrink to nothing (eq. 7 leaves 0/0 open).
_SMALLEST_NORM = 1e-6


def unroll(
    features: Float[AnyArray, "B H W C"], patch_size: int
) -> Float[Array, "B H-{patch_size}+1 W-{patch_size}+1 {patch_size}*{patch_size} C"]:
    """All s x s patches that fit into the map."""
    _, height, width, _ = features.shape
    rows, columns = height - patch_size + 1, width - patch_size + 1
    shifts = [features[:, y : y + rows, x : x + columns] for y in range(patch_size) for x in range(patch_size)]
    return jnp.stack(shifts, axis=3)


def roll(patches: Float[AnyArray, "B H W {patch_size}*{patch_size} C"], patch_size: int) -> Float[Array, "B H W C"]:
    """Puts one s x s patch per pixel back into a map, the mean where patches overlap: inverse of padding and `unroll`.

    Args:
        patches: the patch of every pixel of the zero-padded map.
        patch_size: s.

    Returns:
        in the dtype of `patches`. What falls outside the map is dropped; a field of constant patches
        stays constant.
    """
    batch, height, width, _, channels = patches.shape
    before, after = reach(patch_size)
    padded = jnp.zeros((batch, height + before + after, width + before + after, channels), patches.dtype)
    for index in range(patch_size * patch_size):
        y, x = divmod(index, patch_size)
        padded = padded.at[:, y : y + height, x : x + width].add(patches[:, :, :, index])
    inside = padded[:, before : before + height, before : before + width]
    return inside / coverage(height, width, patch_size).astype(patches.dtype)


def pad(features: Float[AnyArray, "B H W C"], patch_size: int) -> Float[Array, "B H+{patch_size}-1 W+{patch_size}-1 C"]:
    """Zeros around a map, so that every pixel has a patch."""
    sides = reach(patch_size)
    return jnp.pad(features, ((0, 0), sides, sides, (0, 0)))


def reach(patch_size: int) -> tuple[int, int]:
    """How many pixels the patch of a query reaches before and behind its pixel."""
    return (patch_size - 1) // 2, patch_size // 2


def box_sum(values: Float[AnyArray, "B H W"], patch_size: int) -> Float[Array, "B H-{patch_size}+1 W-{patch_size}+1"]:
    """Sums over all s x s windows inside the map."""
    window = (1, patch_size, patch_size)
    return jax.lax.reduce_window(values, 0.0, jax.lax.add, window, (1, 1, 1), "valid")


def coverage(height: int, width: int, patch_size: int) -> Float[Array, "1 {height} {width} 1"]:
    """How many of the H x W query patches cover each pixel."""
    before, after = reach(patch_size)
    # A pixel is covered by the queries from `after` before it to `before` behind it.
    counts = jnp.pad(jnp.ones((1, height, width), jnp.float32), ((0, 0), (after, before), (after, before)))
    return box_sum(counts, patch_size)[..., None]


def normalise(patches: Float[AnyArray, "*positions pixels C"]) -> Float[Array, "*positions pixels C"]:
    """n(.) of eq. (7): patches scaled to unit length. In float32: S / t magnifies what is rounded."""
    patches = jnp.asarray(patches, jnp.float32)
    square = jnp.sum(jnp.square(patches), axis=(-2, -1), keepdims=True)
    return patches * jax.lax.rsqrt(jnp.maximum(square, _SMALLEST_NORM**2))


def inverse_norm(
    features: Float[AnyArray, "B H W C"], patch_size: int, smallest: float = _SMALLEST_NORM
) -> Float[Array, "B H-{patch_size}+1 W-{patch_size}+1"]:
    """1 / |patch| for every patch inside the map; those shorter than `smallest` count as that long."""
    square = box_sum(jnp.sum(jnp.square(features.astype(jnp.float32)), axis=-1), patch_size)
    return jax.lax.rsqrt(jnp.maximum(square, smallest**2))


def inner_products(equation: str, a: Float[AnyArray, "..."], b: Float[AnyArray, "..."]) -> Float[Array, "..."]:
    """In full float32 where the features are: what a GPU drops of it by default, a low temperature magnifies."""
    return jnp.einsum(equation, a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def patch_products(
    queries: Float[AnyArray, "B H W C"], keys: Float[AnyArray, "B H2 W2 C"], patch_size: int
) -> Float[Array, "B H-{patch_size}+1 W-{patch_size}+1 H2-{patch_size}+1 W2-{patch_size}+1"]:
    """Inner products of all patches of two maps: their pixels' Gram matrix, summed along its shifted diagonals.

    They are float32.
    """
    return diagonal_sums(inner_products("byxc,bijc->byxij", queries, keys), patch_size)


def mix_patches(
    weights: Float[AnyArray, "B H W H-{patch_size}+1 W-{patch_size}+1"],
    features: Float[AnyArray, "B H W C"],
    patch_size: int,
) -> Float[Array, "B H W C"]:
    """Eq. (11) and rolling without patches: pixel p gets sum_d W[p - d, k - d], then one product with the pixels.

    Args:
        weights: of every query for every key.
        features: the map that the values are patches of.
        patch_size: s.

    Returns:
        in the dtype of `features`.
    """
    _, height, width, _ = features.shape
    mixed = inner_products("byxij,bijc->byxc", spread_along_diagonals(weights, patch_size, keep="map"), features)
    return (mixed / coverage(height, width, patch_size)).astype(features.dtype)


def diagonal_sums(
    gram: Float[Array, "B H W H2 W2"], patch_size: int
) -> Float[Array, "B H-{patch_size}+1 W-{patch_size}+1 H2-{patch_size}+1 W2-{patch_size}+1"]:
    """From pixels to patches: sum over d of gram[.., q + d, .., k + d], in x and in y; both maps shrink by s - 1."""
    height, width, rows, columns = (side - patch_size + 1 for side in gram.shape[1:])
    gram = functools.reduce(operator.add, (gram[:, :, d : d + width, :, d : d + columns] for d in range(patch_size)))
    return functools.reduce(operator.add, (gram[:, d : d + height, :, d : d + rows] for d in range(patch_size)))


def spread_along_diagonals(
    weights: Float[AnyArray, "B H W rows columns"], patch_size: int, keep: Literal["map", "all"]
) -> Float[Array, "B _ _ rows+{patch_size}-1 columns+{patch_size}-1"]:
    """From patches to pixels, the transpose of `diagonal_sums`: sum over d of W[.., p - d, .., k - d].

    The patch of query y starts at row y - before, so the row d of a patch is the row d - before of its query. `keep`
    says whether pixels outside the queries' map ("all", a halo of s - 1) are kept or dropped.
    """
    before, after = reach(patch_size)
    halo = (patch_size - 1, patch_size - 1)
    sides = (after, before) if keep == "map" else halo
    # Padded once and then shifted: padding every shift by itself takes XLA nearly twice as long on a CPU.
    return diagonal_sums(jnp.pad(weights, ((0, 0), sides, sides, halo, halo)), patch_size)
