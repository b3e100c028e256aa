"""Equations (7)-(11) for one tile of queries after the other: memory linear in H·W, backwards too."""

import math
from functools import partial

import jax
import jax.numpy as jnp

from inpaint_jax.nets.patches import coverage, inverse_norm, patch_products, reach, spread_along_diagonals

# Scores held at a time: 64 MB in float32, and as much again for each pass that XLA does not fuse.
_BLOCK_SCORES = 2**24


def attend_by_tiles(
    features: jax.Array,
    valid: jax.Array,
    temperature: jax.Array,
    needed: jax.Array | None,
    *,
    patch_size: int,
    mask_bias: float,
) -> jax.Array:
    """Refines a map for one sample and one tile of queries at a time; see `attention.masked_patch_attention`.

    Args:
        features: [B, H, W, C'].
        valid: bool [B, H-s+1, W-s+1], m' of eq. (8).
        temperature: [B], away from 0.
        needed: [B, H, W] or None.
        patch_size: s.
        mask_bias: lambda_m.

    Returns:
        [B, H, W, C'].
    """
    _, height, width, _ = features.shape
    tile = _tile_shape(height, width)
    refine = partial(_refine_by_tiles, patch_size=patch_size, mask_bias=mask_bias, tile=tile)
    return jax.lax.map(lambda sample: refine(*sample), (features, valid, temperature, needed))


def _tile_shape(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the queries that are worked on together, as square as the map allows."""
    queries = max(1, _BLOCK_SCORES // (height * width))
    rows = min(height, max(1, math.isqrt(queries)))
    return rows, min(width, max(1, queries // rows))


def _refine_by_tiles(
    features: jax.Array,
    valid: jax.Array,
    temperature: jax.Array,
    needed: jax.Array | None,
    *,
    patch_size: int,
    mask_bias: float,
    tile: tuple[int, int],
) -> jax.Array:
    """One sample: features [H, W, C], valid keys [H-s+1, W-s+1], temperature, needed [H, W] -> [H, W, C]."""
    height, width, channels = features.shape
    before, after = reach(patch_size)
    halo = patch_size - 1
    counts = tuple(-(-side // step) for side, step in zip((height, width), tile))
    padded_sides = tuple(count * step for count, step in zip(counts, tile))
    spare = tuple(padded - side for padded, side in zip(padded_sides, (height, width)))
    padded = jnp.pad(features, [(before, after + spare[0]), (before, after + spare[1]), (0, 0)])
    inverse_key_norm = inverse_norm(features[None], patch_size)[0]
    # A tile of queries is needed if one of the pixels is that its patches touch; laid out like `padded`.
    if needed is not None:
        reached = jnp.pad(needed > 0, [(before, after + spare[0]), (before, after + spare[1])])

    def refine_tile(corner: jax.Array) -> jax.Array:
        top, left = corner
        pixels = jax.lax.dynamic_slice(padded, (top, left, 0), (tile[0] + halo, tile[1] + halo, channels))[None]
        s = patch_products(pixels, features[None], patch_size)[0]
        s = s * (inverse_norm(pixels, patch_size)[0, :, :, None, None] * inverse_key_norm)
        weights = jax.nn.softmax(jnp.where(valid, s / temperature, -mask_bias), axis=(-2, -1))
        # Queries of the last tiles that lie outside the map lay down nothing.
        inside = (top + jnp.arange(tile[0]) < height)[:, None] & (left + jnp.arange(tile[1]) < width)
        weights = (weights * inside[:, :, None, None]).astype(features.dtype)
        spread = spread_along_diagonals(weights[None], patch_size, keep="all")[0]
        return jnp.einsum("yxij,ijc->yxc", spread, features)

    # The backward pass computes a tile again instead of keeping its scores.
    @jax.checkpoint
    def refine_if_needed(corner: jax.Array) -> jax.Array:
        if needed is None:
            return refine_tile(corner)
        shape = (tile[0] + halo, tile[1] + halo)
        touched = jax.lax.dynamic_slice(reached, corner, shape).any()
        return jax.lax.cond(touched, refine_tile, lambda _: jnp.zeros((*shape, channels), features.dtype), corner)

    tops, lefts = (jnp.arange(count) * step for count, step in zip(counts, tile))
    corners = jnp.stack(jnp.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)
    patches = jax.lax.map(refine_if_needed, corners)  # of the padded map: a tile and a halo around it
    patches = patches.reshape(*counts, tile[0] + halo, tile[1] + halo, channels)
    rolled = _join(_join(patches.transpose(0, 2, 1, 3, 4), tile[0]).transpose(1, 2, 0, 3), tile[1])
    rolled = rolled.transpose(1, 0, 2)[before : before + height, before : before + width]
    return rolled / coverage(height, width, patch_size).astype(rolled.dtype)


def _join(blocks: jax.Array, step: int) -> jax.Array:
    """Overlap-add along one axis: block i of [N, step + halo, ...] starts at i * step of [N * step + halo, ...]."""
    count, length, *rest = blocks.shape
    joined = jnp.zeros((count * step + length - step, *rest), blocks.dtype)
    for start in range(0, length, step):  # a halo may be wider than a step
        part = blocks[:, start : start + step]
        part = jnp.pad(part, [(0, 0), (0, step - part.shape[1])] + [(0, 0)] * len(rest))
        part = part.reshape(count * step, *rest)
        end = min(start + count * step, joined.shape[0])
        joined = joined.at[start:end].add(part[: end - start])
    return joined
