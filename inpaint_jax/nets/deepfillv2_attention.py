"""Contextual attention as DeepFillv2 has it (Yu et al. 2019, "Free-form image inpainting with gated convolution").

It matches as Algorithm 2 of the paper does (`contextual.py`), with four differences: patches are compared at half the
map's size and copied at its own; neighbouring matches support each other ("fuse"); keys reach over the border, where
the map goes on with zeros; and the overlap of what is copied is divided by 4, also where fewer patches meet.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from inpaint_jax.arrays import AnyArray
from inpaint_jax.nets.attention import valid_keys
from inpaint_jax.nets.contextual import TEMPERATURE
from inpaint_jax.nets.patches import inner_products, inverse_norm, pad, patch_products, spread_along_diagonals

_PATCH = 3
_SMALLEST_NORM = 1e-4

# The map is a quarter of the image, and matched at half of that.
_MAP_STRIDE = 4
_RATE = 2


def deepfillv2_attention(
    features: Float[AnyArray, "B H W C"],
    mask: Shaped[AnyArray, "B 4*H 4*W"],
    *,
    fuse: bool = True,
    align_corners: bool = False,
) -> Float[Array, "B H W C"]:
    """Replaces every 4 x 4 patch by a mixture of those whose surroundings are known and match its own.

        S = q . k / |k|               3 x 3 patches q and k of every second pixel
        S[i, j] <- sum_d S[i + d, j + d], d = -1, 0, 1, along rows, then along columns (fuse)
        W = softmax(10 S v) v         v = 1 if nothing of the key is missing, else 0
        F_out = TransposedConv2d(W, p) / 4, with the 4 x 4 patches p of F, stride 2

    As in Algorithm 2, keys that see the hole keep a score of 0, and with it their share of the weights. Memory is
    quadratic in H·W, a sixteenth of what it is without the halving.

    Args:
        features: F, float32 or bfloat16; H and W are even.
        mask: 1 (or True) = missing, at the size of the image.
        fuse: whether neighbouring matches support each other. The rows of the map are joined to one long line for it,
            the end of one to the start of the next.
        align_corners: which pixels stand for the map at half the size: every second one, from the first; or evenly
            spaced ones from the first to the last, as TensorFlow's resizing takes them. Likewise of the mask.

    Returns:
        in the dtype of `features`; also known pixels are replaced. Without a valid key it is zero.

    Raises:
        ValueError: H or W is odd, or the mask is not of four times the size.
    """
    batch, height, width, channels = features.shape
    if height % _RATE or width % _RATE or mask.shape != (batch, _MAP_STRIDE * height, _MAP_STRIDE * width):
        raise ValueError(
            f"features must have an even height and width, and the mask four times that, not {features.shape} and "
            f"{mask.shape}."
        )
    small = pad(_shrink(features, _RATE, align_corners), _PATCH)
    hole = jnp.asarray(mask > 0.5, jnp.float32)[..., None]
    missing = pad(_shrink(hole, _MAP_STRIDE * _RATE, align_corners), _PATCH)[..., 0]
    scores = patch_products(small, small, _PATCH) * inverse_norm(small, _PATCH, _SMALLEST_NORM)[:, None, None]
    if fuse:
        scores = _fuse(_fuse(scores).transpose(0, 2, 1, 4, 3)).transpose(0, 2, 1, 4, 3)
    valid = valid_keys(missing, _PATCH).astype(jnp.float32)[:, None, None]
    weights = jax.nn.softmax(scores * valid / TEMPERATURE, axis=(-2, -1)) * valid
    # A 4 x 4 patch with stride 2 is one of 2 x 2 blocks of 2 x 2 pixels, with stride 1; see `mix_patches`.
    blocks = _to_blocks(jnp.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0))))
    along = spread_along_diagonals(weights.astype(features.dtype), 2, keep="all")
    mixed = _from_blocks(inner_products("byxij,bijc->byxc", along, blocks), channels)
    return (mixed[:, 1:-1, 1:-1] / 4).astype(features.dtype)


def _shrink(x: Shaped[AnyArray, "B H W C"], rate: int, align_corners: bool) -> Shaped[Array, "B h w C"]:
    """One pixel of every `rate` in both directions."""
    for axis in (1, 2):
        count = x.shape[axis] // rate
        at = evenly_spaced(x.shape[axis], count) if align_corners else np.arange(count) * rate
        x = jnp.take(x, at, axis=axis)
    return jnp.asarray(x)


def evenly_spaced(side: int, count: int) -> Int[np.ndarray, "{count}"]:
    """Places from 0 to side - 1, rounded.

    In float32 and from both ends, as PyTorch computes them: the one in the middle of an odd number lies between two
    pixels, and rounding errors decide which it is.
    """
    if count == 1:
        return np.zeros(1, int)
    step = np.float32(side - 1) / np.float32(count - 1)
    up = step * np.arange(count, dtype=np.float32)
    places = np.where(np.arange(count) < count // 2, up, np.float32(side - 1) - up[::-1])
    return np.floor(places + np.float32(0.5)).astype(int)


def _fuse(scores: Float[Array, "B h w h w"]) -> Float[Array, "B h w h w"]:
    """Adds to the score of each pair those of the pairs before and behind it, in row-major order."""
    batch, height, width = scores.shape[:3]
    count = height * width
    flat = jnp.pad(scores.reshape(batch, count, count), ((0, 0), (1, 1), (1, 1)))
    fused = flat[:, :-2, :-2] + flat[:, 1:-1, 1:-1] + flat[:, 2:, 2:]
    return fused.reshape(scores.shape)


def _to_blocks(x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 4*C"]:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // 2, width // 2, 4 * channels)


def _from_blocks(x: Float[Array, "B h w D"], channels: int) -> Float[Array, "B 2*h 2*w {channels}"]:
    batch, height, width, _ = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels)
