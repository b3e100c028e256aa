"""Single-temperature masked self-attention over patches: equations (7)-(11) and Algorithm 1 of the paper.

Everything here is a pure function of arrays. `nets/mhtma.py` adds the parameters: the embedding in front of each
head (F_dr), the temperatures, and the concatenation of the heads (eq. 12).

Names follow Section III-C: queries Q and keys K are s x s patches, S are the scores, W the attention coefficients,
P the refined patches. Feature maps are [B, H, W, C]; a patch is named by the pixel of its top left corner in the
(padded, for queries) map.
"""

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

METHODS = ("auto", "unrolled", "gram", "blocked")

# "auto" goes by blocks where the scores of one sample are more than this: from maps of 77 x 77 on.
_LARGEST_GRAM = 2**25
# Scores that "blocked" holds at a time: 64 MB in float32, and as much again for each pass that XLA does not fuse.
_BLOCK_SCORES = 2**24

# Patches shorter than this count as zero vectors, which are similar to nothing (eq. 7 leaves 0/0 open).
_SMALLEST_NORM = 1e-6


def masked_patch_attention(
    features: jax.Array,
    mask: jax.Array,
    temperature: jax.Array,
    *,
    patch_size: int = 3,
    mask_bias: float = 1e6,
    method: str = "auto",
    needed: jax.Array | None = None,
) -> jax.Array:
    """Replaces every pixel by a mixture of the known patches that resemble its surroundings: eqs. (7)-(11).

        S = n(Q) n(K)^T                        (7)   cosine similarity of s x s patches
        m' = 1 where a key sees no hole        (8)
        S_m = S / t  where m' else -mask_bias  (9)   the printed M'(S/t + lambda) - lambda without its cancellation
        W = softmax(S_m)  over the keys        (10)
        P = W V                                (11)  then rolled back: overlap-add over the count of patches

    Queries are taken at every pixel of the zero-padded map, keys and values only where a patch fits inside. Every
    sample has its own mask and its own temperature. Without a valid key the weights are uniform over all keys.

    Args:
        features: [B, H, W, C'] embedded features F_e, float32 or bfloat16.
        mask: [B, H, W], 1 (or True) = missing, at the resolution of the features; see `downsample_mask`.
        temperature: [B], > 0. Low is hard (copies the nearest patch), high is soft (averages them all). What is
            below 2 / mask_bias is taken as 2 / mask_bias: there S / t would reach the bias, and missing keys could
            win. (A temperature down there has no gradient; nor has, in float32, any that is low enough to make
            every choice certain.) Within 1e-4 .. 1e4 the default bias leaves every temperature as it is.
        patch_size: s, any size from 1 to min(H, W). An even patch reaches one pixel further down and right.
        mask_bias: lambda_m of eq. (9), must exceed max |S / t| = 1 / t.
        method: "unrolled" is Algorithm 1 to the letter; "gram" gives the same numbers from inner products of
            pixels, with s*s times fewer multiplications; "blocked" does the latter for one tile of queries after
            the other, so that memory is linear in H·W, backwards too (by computing each tile again); "auto" is
            "gram" up to 2^25 scores a sample (maps of 76 x 76), "blocked" beyond.
        needed: [B, H, W], 1 (or True) where the result will be looked at; everywhere by default. "blocked" leaves out
            the tiles that hold no such pixel, and what it hands back there is not the result.

    Returns:
        [B, H, W, C'] refined features F_r, in the dtype of `features`.

    Raises:
        ValueError: shapes do not fit together, the patch does not fit into the map, the bias is not positive, or
            the method is unknown.
    """
    _check(features, mask, temperature, patch_size, mask_bias, method)
    temperature = jnp.maximum(temperature.astype(jnp.float32), 2.0 / mask_bias)
    if method == "auto":
        _, height, width, _ = features.shape
        method = "gram" if (height * width) ** 2 <= _LARGEST_GRAM else "blocked"
    if method == "blocked":
        return _blocked(features, valid_keys(mask, patch_size), temperature, needed, patch_size, mask_bias)
    if method == "unrolled":
        similarity, mix = _unrolled_similarity, _unrolled_mix
    else:
        similarity, mix = _gram_similarity, _gram_mix
    s = similarity(features, patch_size)  # eq. (7): [B, H, W, H-s+1, W-s+1]
    valid = valid_keys(mask, patch_size)[:, None, None]  # eq. (8)
    masked = jnp.where(valid, s / temperature[:, None, None, None, None], -mask_bias)  # eq. (9)
    weights = jax.nn.softmax(masked, axis=(-2, -1))  # eq. (10), in float32
    return mix(weights.astype(features.dtype), features, patch_size)  # eq. (11) and rolling


def downsample_mask(mask: jax.Array, factor: int = 4) -> jax.Array:
    """Brings an image mask to the resolution of the features: a cell that sees any missing pixel is missing.

    Args:
        mask: [B, H, W], 1 (or True) = missing; H and W are multiples of `factor`.
        factor: pixels per feature cell and side.

    Returns:
        [B, H / factor, W / factor], in the dtype of `mask`.

    Raises:
        ValueError: H or W is not a multiple of `factor`.
    """
    batch, height, width = mask.shape
    if height % factor or width % factor:
        raise ValueError(f"A mask of {height} x {width} does not divide into cells of {factor}; pad it first.")
    return mask.reshape(batch, height // factor, factor, width // factor, factor).max(axis=(2, 4))


def valid_keys(mask: jax.Array, patch_size: int) -> jax.Array:
    """m' of eq. (8): which s x s patches inside the map hold no missing pixel.

    Args:
        mask: [B, H, W], 1 (or True) = missing; so is anything above 0, of a soft mask.
        patch_size: s.

    Returns:
        bool [B, H-s+1, W-s+1].
    """
    missing = _box_sum((mask > 0).astype(jnp.float32), patch_size)
    return missing < 0.5


def unroll(features: jax.Array, patch_size: int) -> jax.Array:
    """All s x s patches that fit into the map: [B, H, W, C] -> [B, H-s+1, W-s+1, s*s, C]."""
    _, height, width, _ = features.shape
    rows, columns = height - patch_size + 1, width - patch_size + 1
    shifts = [features[:, y : y + rows, x : x + columns] for y in range(patch_size) for x in range(patch_size)]
    return jnp.stack(shifts, axis=3)


def roll(patches: jax.Array, patch_size: int) -> jax.Array:
    """Puts one s x s patch per pixel back into a map, the mean where patches overlap: inverse of padding and `unroll`.

    Args:
        patches: [B, H, W, s*s, C], the patch of every pixel of the zero-padded map.
        patch_size: s.

    Returns:
        [B, H, W, C]. What falls outside the map is dropped; a field of constant patches stays constant.
    """
    batch, height, width, _, channels = patches.shape
    before, after = _reach(patch_size)
    padded = jnp.zeros((batch, height + before + after, width + before + after, channels), patches.dtype)
    for index in range(patch_size * patch_size):
        y, x = divmod(index, patch_size)
        padded = padded.at[:, y : y + height, x : x + width].add(patches[:, :, :, index])
    inside = padded[:, before : before + height, before : before + width]
    return inside / _coverage(height, width, patch_size).astype(patches.dtype)


def _unrolled_similarity(features: jax.Array, patch_size: int) -> jax.Array:
    queries = unroll(_pad(features, patch_size), patch_size)
    keys = unroll(features, patch_size)
    return _inner_products("byxpc,bijpc->byxij", _normalise(queries), _normalise(keys))


def _unrolled_mix(weights: jax.Array, features: jax.Array, patch_size: int) -> jax.Array:
    patches = jnp.einsum("byxij,bijpc->byxpc", weights, unroll(features, patch_size))
    return roll(patches, patch_size)


def _gram_similarity(features: jax.Array, patch_size: int) -> jax.Array:
    """Eq. (7) without patches: <q, k> is a sum over the s x s offsets of inner products of *pixels*.

    So S is the Gram matrix of the pixels summed along its shifted diagonals, first in x and then in y.
    """
    padded = _pad(features, patch_size)
    gram = _diagonal_sums(_inner_products("byxc,bijc->byxij", padded, features), patch_size)
    queries = _inverse_norm(padded, patch_size)[:, :, :, None, None]
    keys = _inverse_norm(features, patch_size)[:, None, None]
    return gram * queries * keys


def _diagonal_sums(gram: jax.Array, patch_size: int) -> jax.Array:
    """From pixels to patches: sum over d of gram[.., q + d, .., k + d], in x and in y; both maps shrink by s - 1."""
    height, width, rows, columns = (side - patch_size + 1 for side in gram.shape[1:])
    gram = sum(gram[:, :, d : d + width, :, d : d + columns] for d in range(patch_size))
    return sum(gram[:, d : d + height, :, d : d + rows] for d in range(patch_size))


def _gram_mix(weights: jax.Array, features: jax.Array, patch_size: int) -> jax.Array:
    """Eq. (11) and rolling without patches: pixel p gets sum_d W[p - d, k - d], then one product with the pixels."""
    _, height, width, _ = features.shape
    mixed = jnp.einsum("byxij,bijc->byxc", _spread_along_diagonals(weights, patch_size, keep="map"), features)
    return mixed / _coverage(height, width, patch_size).astype(mixed.dtype)


def _spread_along_diagonals(weights: jax.Array, patch_size: int, keep: Literal["map", "all"]) -> jax.Array:
    """From patches to pixels, the transpose of `_diagonal_sums`: sum over d of W[.., p - d, .., k - d].

    The patch of query y starts at row y - before, so the row d of a patch is the row d - before of its query. `keep`
    says whether pixels outside the queries' map ("all", a halo of s - 1) are kept or dropped.
    """
    before, _ = _reach(patch_size)
    for query_axis, key_axis in ((1, 3), (2, 4)):
        size = weights.shape[query_axis]
        shifted = []
        for d in range(patch_size):
            padding = [(0, 0)] * weights.ndim
            padding[query_axis] = (d, patch_size - 1 - d)
            padding[key_axis] = (d, patch_size - 1 - d)
            moved = jnp.pad(weights, padding)
            if keep == "map":
                moved = jax.lax.slice_in_dim(moved, before, before + size, axis=query_axis)
            shifted.append(moved)
        weights = sum(shifted)
    return weights


def _blocked(
    features: jax.Array,
    valid: jax.Array,
    temperature: jax.Array,
    needed: jax.Array | None,
    patch_size: int,
    mask_bias: float,
) -> jax.Array:
    """Eqs. (7)-(11) and rolling for one sample and one tile of queries at a time."""
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
    before, after = _reach(patch_size)
    halo = patch_size - 1
    counts = tuple(-(-side // step) for side, step in zip((height, width), tile))
    padded_sides = tuple(count * step for count, step in zip(counts, tile))
    spare = tuple(padded - side for padded, side in zip(padded_sides, (height, width)))
    padded = jnp.pad(features, [(before, after + spare[0]), (before, after + spare[1]), (0, 0)])
    inverse_key_norm = _inverse_norm(features[None], patch_size)[0]
    # A tile of queries is needed if one of the pixels is that its patches touch; laid out like `padded`.
    if needed is not None:
        reached = jnp.pad(needed > 0, [(before, after + spare[0]), (before, after + spare[1])])

    def refine_tile(corner: jax.Array) -> jax.Array:
        top, left = corner
        pixels = jax.lax.dynamic_slice(padded, (top, left, 0), (tile[0] + halo, tile[1] + halo, channels))[None]
        s = _diagonal_sums(_inner_products("byxc,bijc->byxij", pixels, features[None]), patch_size)[0]
        s = s * (_inverse_norm(pixels, patch_size)[0, :, :, None, None] * inverse_key_norm)
        weights = jax.nn.softmax(jnp.where(valid, s / temperature, -mask_bias), axis=(-2, -1))
        # Queries of the last tiles that lie outside the map lay down nothing.
        inside = (top + jnp.arange(tile[0]) < height)[:, None] & (left + jnp.arange(tile[1]) < width)
        weights = (weights * inside[:, :, None, None]).astype(features.dtype)
        spread = _spread_along_diagonals(weights[None], patch_size, keep="all")[0]
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
    return rolled / _coverage(height, width, patch_size).astype(rolled.dtype)


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


def _inner_products(equation: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """In full float32 where the features are: what a GPU drops of it by default, a low temperature magnifies."""
    return jnp.einsum(equation, a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def _reach(patch_size: int) -> tuple[int, int]:
    """How many pixels the patch of a query reaches before and behind its pixel."""
    return (patch_size - 1) // 2, patch_size // 2


def _pad(features: jax.Array, patch_size: int) -> jax.Array:
    reach = _reach(patch_size)
    return jnp.pad(features, ((0, 0), reach, reach, (0, 0)))


def _box_sum(values: jax.Array, patch_size: int) -> jax.Array:
    """Sums over all s x s windows inside the map: [B, H, W] -> [B, H-s+1, W-s+1]."""
    window = (1, patch_size, patch_size)
    return jax.lax.reduce_window(values, 0.0, jax.lax.add, window, (1, 1, 1), "valid")


def _coverage(height: int, width: int, patch_size: int) -> jax.Array:
    """How many of the H x W query patches cover each pixel: [H, W, 1]."""
    before, after = _reach(patch_size)
    # A pixel is covered by the queries from `after` before it to `before` behind it.
    counts = jnp.pad(jnp.ones((1, height, width), jnp.float32), ((0, 0), (after, before), (after, before)))
    return _box_sum(counts, patch_size)[0, :, :, None]


def _normalise(patches: jax.Array) -> jax.Array:
    """n(.) of eq. (7): patches [..., s*s, C] scaled to unit length, in float32 inside."""
    square = jnp.sum(jnp.square(patches.astype(jnp.float32)), axis=(-2, -1), keepdims=True)
    return (patches * jax.lax.rsqrt(jnp.maximum(square, _SMALLEST_NORM**2))).astype(patches.dtype)


def _inverse_norm(features: jax.Array, patch_size: int) -> jax.Array:
    """1 / |patch| for every patch inside the map: [B, H, W, C] -> [B, H-s+1, W-s+1]."""
    square = _box_sum(jnp.sum(jnp.square(features.astype(jnp.float32)), axis=-1), patch_size)
    return jax.lax.rsqrt(jnp.maximum(square, _SMALLEST_NORM**2))


def _check(
    features: jax.Array, mask: jax.Array, temperature: jax.Array, patch_size: int, mask_bias: float, method: str
) -> None:
    if features.ndim != 4:
        raise ValueError(f"features must be [batch, height, width, channels], not of shape {features.shape}.")
    batch, height, width, _ = features.shape
    if mask.shape != (batch, height, width):
        raise ValueError(f"mask must be [batch, height, width] = {(batch, height, width)}, not {mask.shape}.")
    if temperature.shape != (batch,):
        raise ValueError(f"temperature must hold one value per sample, shape {(batch,)}, not {temperature.shape}.")
    if not 1 <= patch_size <= min(height, width):
        raise ValueError(f"patch_size {patch_size} does not fit into a map of {height} x {width}.")
    if mask_bias <= 0:
        raise ValueError(f"mask_bias must be positive, well above 1 / temperature, not {mask_bias}.")
    if method not in METHODS:
        raise ValueError(f"Unknown attention method {method!r}; choose one of {', '.join(METHODS)}.")
