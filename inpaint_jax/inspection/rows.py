"""A look into masked patch attention: what a query attends to, and the effect of a temperature (Fig. 1c-d).

The equations are those of `attention.masked_patch_attention`. `attention_weights` and `refined_patches` work on a few
queries: they hold the patches of the map and the rows of these queries, never the whole matrix. The inputs come from
`Inpainter.attention_inputs`, or are any features.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from inpaint_jax.arrays import AnyArray
from inpaint_jax.nets.attention import check_inputs, keep_from_zero, masked_patch_attention, valid_keys
from inpaint_jax.nets.patches import inverse_norm, pad, reach, unroll


def attention_weights(
    features: jax.Array,
    mask: jax.Array,
    temperature: jax.Array,
    queries: jax.Array,
    *,
    patch_size: int = 3,
    mask_bias: float = 1e6,
) -> jax.Array:
    """The rows of W, eq. (10), that belong to a few query pixels.

    Args:
        features: [B, H, W, C'] embedded features F_e of one head.
        mask: [B, H, W], 1 = missing, at the resolution of the features.
        temperature: [B].
        queries: int [B, Q, 2], row and column of each query pixel.
        patch_size: s.
        mask_bias: lambda_m.

    Returns:
        float32 [B, Q, H-s+1, W-s+1]; the weights of a query sum to one. A key is named by the top left pixel of its
        patch, whose centre is `key_centre(s)` pixels further down and right.

    Raises:
        ValueError: Shapes do not fit together, the bias is not positive, or a query lies outside the map (checked
            outside of jit only).
    """
    check_inputs(features, mask, temperature, patch_size)
    if mask_bias <= 0:
        raise ValueError(f"mask_bias must be positive, well above 1 / temperature, not {mask_bias}.")
    _check_queries(features, queries)
    temperature = keep_from_zero(temperature, 2.0 / mask_bias)
    kernels = _query_patches(features, queries, patch_size)  # n(Q) as kernels: a convolution is an inner product

    def one(features, kernels):
        return jax.lax.conv_general_dilated(
            features[None].astype(jnp.float32),
            kernels.transpose(1, 2, 3, 0),
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )[0].transpose(2, 0, 1)

    s = jax.vmap(one)(features, kernels) * inverse_norm(features, patch_size)[:, None]  # eq. (7)
    valid = valid_keys(mask, patch_size)[:, None]  # eq. (8)
    masked = jnp.where(valid, s / temperature[:, None, None, None], -mask_bias)  # eq. (9)
    return jax.nn.softmax(masked, axis=(-2, -1))  # eq. (10)


def refined_patches(
    features: jax.Array,
    mask: jax.Array,
    temperatures: jax.Array,
    queries: jax.Array,
    *,
    patch_size: int = 3,
    mask_bias: float = 1e6,
) -> jax.Array:
    """The refined patches of a few queries in a sweep of temperatures: rows of P = W V, eq. (11), for Fig. 1c.

    They go from the most similar known patch, at low temperatures, to the mean of all, at high ones.

    Args:
        features: [B, H, W, C'] F_e.
        mask: [B, H, W], 1 = missing.
        temperatures: [T], each applied to all samples.
        queries: int [B, Q, 2].
        patch_size: s.
        mask_bias: lambda_m.

    Returns:
        float32 [T, B, Q, s*s*C'], each patch flattened as in `known_patches`.

    Raises:
        ValueError: as in `attention_weights`.
    """
    values = unroll(features.astype(jnp.float32), patch_size)

    def at(temperature: jax.Array) -> jax.Array:
        everywhere = jnp.full(features.shape[:1], temperature)
        weights = attention_weights(features, mask, everywhere, queries, patch_size=patch_size, mask_bias=mask_bias)
        patches = jnp.einsum("bqij,bijpc->bqpc", weights, values, precision=jax.lax.Precision.HIGHEST)
        return patches.reshape(*patches.shape[:2], -1)

    return jax.lax.map(at, jnp.asarray(temperatures, jnp.float32))


def known_patches(features: AnyArray, mask: AnyArray, *, patch_size: int = 3) -> tuple[jax.Array, jax.Array]:
    """All key patches and which of them are valid: the background points of Fig. 1c.

    Args:
        features: [B, H, W, C'] F_e.
        mask: [B, H, W], 1 = missing.
        patch_size: s.

    Returns:
        patches float32 [B, N_k, s*s*C'], and valid, bool [B, N_k]; N_k = (H-s+1)(W-s+1), row by row.
    """
    patches = unroll(features.astype(jnp.float32), patch_size)
    batch, rows, columns = patches.shape[:3]
    return patches.reshape(batch, rows * columns, -1), valid_keys(mask, patch_size).reshape(batch, -1)


def refined_maps(
    features: jax.Array, mask: jax.Array, temperatures: jax.Array, *, patch_size: int = 3, mask_bias: float = 1e6
) -> jax.Array:
    """The refined map F_r at each of some temperatures (Fig. 1d).

    Args:
        features: [B, H, W, C'] F_e.
        mask: [B, H, W], 1 = missing.
        temperatures: [T], each applied to all samples.
        patch_size: s.
        mask_bias: lambda_m.

    Returns:
        [T, B, H, W, C'].

    Raises:
        ValueError: as in `masked_patch_attention`.
    """

    def at(temperature: jax.Array) -> jax.Array:
        everywhere = jnp.full(features.shape[:1], temperature)
        return masked_patch_attention(features, mask, everywhere, patch_size=patch_size, mask_bias=mask_bias)

    return jax.lax.map(at, jnp.asarray(temperatures, jnp.float32))


def key_centre(patch_size: int) -> int:
    """How many pixels the centre of a patch lies below and to the right of the pixel that names it."""
    return reach(patch_size)[0]


def _query_patches(features: jax.Array, queries: jax.Array, patch_size: int) -> jax.Array:
    """n(Q) of the wanted queries: [B, Q, s, s, C'] float32."""
    padded = pad(features, patch_size).astype(jnp.float32)
    size = (patch_size, patch_size, features.shape[-1])

    def cut(padded: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), size)

    patches = jax.vmap(lambda one, corners: jax.vmap(lambda corner: cut(one, corner))(corners))(padded, queries)
    # The patch of a query pixel starts there in the padded map.
    norms = jax.vmap(lambda one, at: one[at[:, 0], at[:, 1]])(inverse_norm(padded, patch_size), queries)
    return patches * norms[..., None, None, None]


def _check_queries(features: jax.Array, queries: jax.Array) -> None:
    batch, height, width, _ = features.shape
    if queries.ndim != 3 or queries.shape[0] != batch or queries.shape[2] != 2:
        raise ValueError(f"queries must be [batch, number, 2] with batch {batch}, not of shape {queries.shape}.")
    if isinstance(queries, Tracer):
        return
    pixels = np.asarray(queries)
    if (pixels < 0).any() or (pixels >= [height, width]).any():
        raise ValueError(f"queries must be pixels of a map of {height} x {width}, not {pixels.tolist()}.")
