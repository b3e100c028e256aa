"""Contextual attention: Algorithm 2 of the paper, after Yu et al. 2018 ("Generative image inpainting with contextual
attention"). What MHTMA is compared with, and the matching inside ATMA.

Three things set it apart from `attention.masked_patch_attention`: queries keep their length, because they are what a
convolution slides over; scores of missing keys become 0 and their weights are struck out *after* the softmax, so that
a query's weights sum to one at most; and the temperature is the same for all images, 1/10, unless one is given.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from inpaint_jax.arrays import AnyArray
from inpaint_jax.nets.attention import check_inputs, keep_from_zero, valid_keys
from inpaint_jax.nets.patches import coverage, inverse_norm, mix_patches, normalise, pad, patch_products, reach, unroll

METHODS = ("batched", "loop")

# Of Algorithm 2.
TEMPERATURE = 0.1

# Scores are as long as their queries, so no bias bounds S / t; this keeps 1 / t finite, and its sign.
_SMALLEST_TEMPERATURE = 1e-6


def contextual_attention(
    features: Float[AnyArray, "B H W C"],
    mask: Shaped[AnyArray, "B H W"],
    temperature: Float[AnyArray, "B"] | None = None,
    *,
    patch_size: int = 3,
    method: str = "batched",
) -> Float[Array, "B H W C"]:
    """Replaces every pixel by a mixture of the known patches that match its surroundings: Algorithm 2.

        p' = n(p)                     patches of unit length (line 3)
        S = Conv2d(F, p')             they are the kernels (line 4)
        S_m = M' S                    0 where a key sees the hole (lines 5-6)
        W = softmax(S_m / t) M'       over the keys (line 7)
        F_out = TransposedConv2d(W, p), over the number of patches that cover each pixel (line 8)

    The division in line 8 is not in the paper; its ancestors divide by their overlap too, and it keeps a constant field
    constant up to the weight that was struck out. Memory is quadratic in H·W with either method.

    Args:
        features: float32 or bfloat16.
        mask: 1 (or True) = missing, at the resolution of the features.
        temperature: 1/10 for all by default. Below zero the worst match wins, as ATMA's LeakyReLU allows;
            magnitudes below 1e-6 are taken as that.
        patch_size: s, from 1 to min(H, W).
        method: "loop" goes through the batch with one convolution and one transposed convolution a sample, as printed
            (and timed in Fig. 7); "batched" gives the same numbers from inner products of pixels, all samples at once.

    Returns:
        in the dtype of `features`. Without a valid key it is zero.

    Raises:
        ValueError: shapes do not fit together, the patch does not fit into the map, or the method is unknown.
    """
    if method not in METHODS:
        raise ValueError(f"Unknown method {method!r} of contextual attention; choose one of {', '.join(METHODS)}.")
    if temperature is None:
        temperature = jnp.full(features.shape[:1], TEMPERATURE)
    check_inputs(features, mask, temperature, patch_size)
    temperature = keep_from_zero(temperature, _SMALLEST_TEMPERATURE)
    valid = valid_keys(mask, patch_size).astype(jnp.float32)  # line 5
    if method == "loop":
        return jax.lax.map(
            lambda sample: _one_sample(sample[0], sample[1], sample[2], patch_size), (features, valid, temperature)
        )
    keys = inverse_norm(features, patch_size)[:, None, None]
    s = patch_products(pad(features, patch_size), features, patch_size) * keys  # lines 2-4: [B, H, W, H-s+1, W-s+1]
    valid = valid[:, None, None]
    weights = jax.nn.softmax(valid * s / temperature[:, None, None, None, None], axis=(-2, -1)) * valid  # lines 6-7
    return mix_patches(weights.astype(features.dtype), features, patch_size)  # line 8


def _one_sample(
    features: Float[Array, "H W C"],
    valid: Float[Array, "H-{patch_size}+1 W-{patch_size}+1"],
    temperature: Float[Array, ""],
    patch_size: int,
) -> Float[Array, "H W C"]:
    """Lines 2-8 for one sample."""
    height, width, channels = features.shape
    before, after = reach(patch_size)
    patches = unroll(features[None], patch_size)[0].reshape(-1, patch_size, patch_size, channels)
    kernels = normalise(patches.reshape(len(patches), -1, channels)).reshape(patches.shape)
    s = _convolve(features.astype(jnp.float32), kernels.transpose(1, 2, 3, 0), (before, after))  # [H, W, keys]
    valid = valid.reshape(1, 1, -1)
    weights = jax.nn.softmax(valid * s.astype(jnp.float32) / temperature) * valid
    # A transposed convolution is one with kernels turned around and padding the other way about.
    turned = patches[:, ::-1, ::-1].transpose(1, 2, 0, 3)
    mixed = _convolve(weights.astype(features.dtype), turned, (after, before))
    return (mixed / coverage(height, width, patch_size)[0]).astype(features.dtype)


def _convolve(
    image: Float[Array, "H W C"], kernels: Float[Array, "s s C N"], padding: tuple[int, int]
) -> Float[Array, "_ _ N"]:
    """In float32."""
    return jax.lax.conv_general_dilated(
        image[None],
        kernels,
        window_strides=(1, 1),
        padding=(padding, padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )[0]
