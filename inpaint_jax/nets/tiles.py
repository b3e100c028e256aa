"""Equations (7)-(11) for one tile of queries after the other: memory linear in H·W, backwards too."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from inpaint_jax.arrays import AnyArray
from inpaint_jax.nets.patches import (
    coverage,
    inner_products,
    inverse_norm,
    patch_products,
    reach,
    spread_along_diagonals,
)

# On a CPU, 16 x 16 queries: their scores for a 64 x 64 map are 4 MB and stay in its caches. Milliseconds for one head
# of 48 channels at 64 x 64, forward / gradient, by queries at a time (2 cores with AVX-512, float32):
#     all at once ("gram") 87 / 367, 32 x 32 78 / 405, 22 x 23 67 / 377, 16 x 16 59 / 316, 11 x 11 70 / 308.
# At 128 x 128, forward: 32 x 32 1089, 16 x 16 1112, 11 x 11 1383, 8 x 8 1363: a halo of s - 1 is computed twice.
_CPU_QUERIES = 256
# Elsewhere as many as give this many scores for all samples of a device together, 64 MB in float32 and as much again
# for each pass that XLA does not fuse; but no fewer than on a CPU. Not measured yet.
_SCORES = 2**24


def attend_by_tiles(
    features: Float[AnyArray, "B H W C"],
    valid: Bool[AnyArray, "B H-{patch_size}+1 W-{patch_size}+1"],
    temperature: Float[AnyArray, "B"],
    needed: Shaped[AnyArray, "B H W"] | None,
    *,
    patch_size: int,
    mask_bias: float,
) -> Float[Array, "B H W C"]:
    """Refines maps one tile of queries at a time; see `attention.masked_patch_attention`.

    A lone CPU takes one sample after the other, which is easier on its caches. Other devices take all samples
    together, so that each keeps to its own share of a batch; a tile is then left out only if no sample needs it.

    Args:
        features: F_e.
        valid: m' of eq. (8).
        temperature: away from 0.
        needed: where the result will be looked at.
        patch_size: s.
        mask_bias: lambda_m.
    """
    if len(features) == 1 or not on_a_lone_cpu():
        return _refine(features, valid, temperature, needed, patch_size, mask_bias)

    def refine_one(sample: tuple[jax.Array, jax.Array, jax.Array, jax.Array | None]) -> jax.Array:
        features, valid, temperature, needed = jax.tree.map(lambda x: x[None], sample)
        return _refine(features, valid, temperature, needed, patch_size, mask_bias)[0]

    return jax.lax.map(refine_one, (features, valid, temperature, needed))


def on_a_lone_cpu() -> bool:
    """Whether programs run on one CPU device, as far as jax's default tells while they are traced."""
    return jax.default_backend() == "cpu" and jax.device_count() == 1


def samples_per_device(batch: int) -> int:
    """How many samples of a batch each device has, if the batch is split over all of them."""
    return -(-batch // jax.device_count())


def _queries_at_a_time(batch: int, keys: int) -> int:
    if jax.default_backend() == "cpu":
        return _CPU_QUERIES
    return max(_CPU_QUERIES, _SCORES // max(1, samples_per_device(batch) * keys))


def _tile_shape(batch: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the queries that are worked on together, as square as the map allows."""
    queries = _queries_at_a_time(batch, height * width)
    rows = min(height, max(1, math.isqrt(queries)))
    return rows, min(width, max(1, queries // rows))


def _refine(
    features: Float[AnyArray, "B H W C"],
    valid: Bool[AnyArray, "B H-{patch_size}+1 W-{patch_size}+1"],
    temperature: Float[AnyArray, "B"],
    needed: Shaped[AnyArray, "B H W"] | None,
    patch_size: int,
    mask_bias: float,
) -> Float[Array, "B H W C"]:
    """As `attend_by_tiles`, all samples at once."""
    batch, height, width, channels = features.shape
    tile = _tile_shape(batch, height, width)
    before, after = reach(patch_size)
    halo = patch_size - 1
    counts = tuple(-(-side // step) for side, step in zip((height, width), tile))
    spare = tuple(count * step - side for count, step, side in zip(counts, tile, (height, width)))
    sides = [(before, after + spare[0]), (before, after + spare[1])]
    padded = jnp.pad(features, [(0, 0), *sides, (0, 0)])
    inverse_key_norm = inverse_norm(features, patch_size)[:, None, None]
    valid, temperature = valid[:, None, None], temperature[:, None, None, None, None]
    # A tile of queries is needed if one of the pixels is that its patches touch; laid out like `padded`.
    reached = None if needed is None else jnp.pad((needed > 0).any(axis=0), sides)

    def refine_tile(corner: jax.Array) -> jax.Array:
        top, left = corner
        size = (batch, tile[0] + halo, tile[1] + halo, channels)
        pixels = jax.lax.dynamic_slice(padded, (0, top, left, 0), size)
        inverse_query_norm = inverse_norm(pixels, patch_size)[:, :, :, None, None]
        s = patch_products(pixels, features, patch_size) * (inverse_query_norm * inverse_key_norm)
        weights = jax.nn.softmax(jnp.where(valid, s / temperature, -mask_bias), axis=(-2, -1))
        # Queries of the last tiles that lie outside the map lay down nothing.
        rows, columns = top + jnp.arange(tile[0]) < height, left + jnp.arange(tile[1]) < width
        weights = (weights * jnp.outer(rows, columns)[None, :, :, None, None]).astype(features.dtype)
        spread = spread_along_diagonals(weights, patch_size, keep="all")
        return inner_products("byxij,bijc->byxc", spread, features)

    # The backward pass computes a tile again instead of keeping its scores. Within a loop XLA cannot merge the two.
    @partial(jax.checkpoint, prevent_cse=False)
    def refine_if_needed(corner: jax.Array) -> jax.Array:
        if reached is None:
            return refine_tile(corner)
        shape = (tile[0] + halo, tile[1] + halo)
        touched = jax.lax.dynamic_slice(reached, corner, shape).any()
        nothing = jnp.zeros((batch, *shape, channels), jnp.float32)
        return jax.lax.cond(touched, refine_tile, lambda _: nothing, corner)

    tops, lefts = (jnp.arange(count) * step for count, step in zip(counts, tile))
    corners = jnp.stack(jnp.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)
    patches = jax.lax.map(refine_if_needed, corners)  # of the padded map: a tile and a halo around it
    patches = patches.reshape(*counts, *patches.shape[1:])  # [rows of tiles, columns of tiles, B, y, x, C']
    rolled = _join(patches.transpose(0, 3, 1, 4, 2, 5), tile[0])  # [y, columns of tiles, x, B, C']
    rolled = _join(rolled.transpose(1, 2, 0, 3, 4), tile[1])  # [x, y, B, C']
    rolled = rolled.transpose(2, 1, 0, 3)[:, before : before + height, before : before + width]
    return (rolled / coverage(height, width, patch_size)).astype(features.dtype)


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
