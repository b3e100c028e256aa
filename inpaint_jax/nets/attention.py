"""Single-temperature masked self-attention over patches: equations (7)-(11) and Algorithm 1 of the paper.

Everything here is a pure function of arrays. `nets/mhtma.py` adds the parameters: the embedding in front of each
head (F_dr), the temperatures, and the concatenation of the heads (eq. 12).

Names follow Section III-C: queries Q and keys K are s x s patches, S are the scores, W the attention coefficients,
P the refined patches. In masks, 1 (or True) = missing. A patch is named by the pixel of its top left corner in the
(padded, for queries) map.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from inpaint_jax.arrays import AnyArray
from inpaint_jax.nets.patches import (
    box_sum,
    inner_products,
    inverse_norm,
    mix_patches,
    normalise,
    pad,
    patch_products,
    roll,
    unroll,
)
from inpaint_jax.nets.tiles import attend_by_tiles, on_a_lone_cpu, samples_per_device

METHODS = ("auto", "unrolled", "gram", "blocked")

# Up to so many scores of all samples on a device "auto" holds them all at once. On a lone CPU 4 MB in float32, which
# its caches hold; elsewhere 512 MB, of 8 samples with 64 x 64 maps. The latter is not measured yet.
_LARGEST_GRAM_CPU = 2**20
_LARGEST_GRAM = 2**27


def masked_patch_attention(
    features: Float[AnyArray, "B H W C"],
    mask: Shaped[AnyArray, "B H W"],
    temperature: Float[AnyArray, "B"],
    *,
    patch_size: int = 3,
    mask_bias: float = 1e6,
    method: str = "auto",
    needed: Shaped[AnyArray, "B H W"] | None = None,
) -> Float[Array, "B H W C"]:
    """Replaces every pixel by a mixture of the known patches that resemble its surroundings: eqs. (7)-(11).

        S = n(Q) n(K)^T                        (7)   cosine similarity of s x s patches
        m' = 1 where a key sees no hole        (8)
        S_m = S / t  where m' else -mask_bias  (9)   the printed M'(S/t + lambda) - lambda without its cancellation
        W = softmax(S_m)  over the keys        (10)
        P = W V                                (11)  then rolled back: overlap-add over the count of patches

    Queries are taken at every pixel of the zero-padded map, keys and values only where a patch fits inside. Every
    sample has its own mask and its own temperature. Without a valid key the weights are uniform over all keys.

    Args:
        features: embedded features F_e, float32 or bfloat16.
        mask: at the resolution of the features; see `downsample_mask`.
        temperature: normally > 0. Low is hard (copies the nearest patch), high is soft (averages them all). What
            is below 2 / mask_bias is taken as that: at 1 / mask_bias S / t would reach the bias, and missing keys could
            win. (A temperature down there has no gradient; nor has, in float32, any that is low enough to make
            every choice certain.) Within 1e-4 .. 1e4 the default bias leaves every temperature as it is. Below zero,
            where a LeakyReLU head may lead, eq. (9) prefers the *least* similar patches, and so does this.
        patch_size: s, any size from 1 to min(H, W). An even patch reaches one pixel further down and right.
        mask_bias: lambda_m of eq. (9), must exceed max |S / t| = 1 / t.
        method: "unrolled" is Algorithm 1 to the letter; "gram" gives the same numbers from inner products of
            pixels, with s*s times fewer multiplications; "blocked" does the latter for one tile of queries after
            the other, so that memory is linear in H·W, backwards too (by computing each tile again); "auto" is
            "gram" for few scores and "blocked" for many. Few are 2^27 on each device (8 samples with 64 x 64 maps),
            and 2^20 where that is one CPU.
        needed: 1 (or True) where the result will be looked at; everywhere by default. "blocked" leaves out
            tiles that hold no such pixel, and what it hands back there is not the result.

    Returns:
        refined features F_r, in the dtype of `features`; products are taken in full precision on every
        device. In float32 all methods are within 1e-5 of the largest value of what the equations say, or 4e-7 / t if
        that is more: S is rounded, and S / t magnifies it where keys are as good as tied. Scores, softmax and sums of
        bfloat16 features are float32 too, so that they end within three steps of bfloat16 (3 · 2^-8) at any t.

    Raises:
        ValueError: shapes do not fit together, the features are not floating point, the patch does not fit into the
            map, the bias is not positive, or the method is unknown.
    """
    check_inputs(features, mask, temperature, patch_size)
    if needed is not None and needed.shape != mask.shape:
        raise ValueError(f"needed must be as large as the mask, of shape {mask.shape}, not {needed.shape}.")
    if mask_bias <= 0:
        raise ValueError(f"mask_bias must be positive, well above 1 / temperature, not {mask_bias}.")
    if method not in METHODS:
        raise ValueError(f"Unknown attention method {method!r}; choose one of {', '.join(METHODS)}.")
    temperature = keep_from_zero(temperature, 2.0 / mask_bias)
    if method == "auto":
        batch, height, width, _ = features.shape
        scores = samples_per_device(batch) * (height * width) ** 2
        method = "gram" if scores <= (_LARGEST_GRAM_CPU if on_a_lone_cpu() else _LARGEST_GRAM) else "blocked"
    if method == "blocked":
        valid = valid_keys(mask, patch_size)
        return attend_by_tiles(features, valid, temperature, needed, patch_size=patch_size, mask_bias=mask_bias)
    if method == "unrolled":
        similarity, mix = _unrolled_similarity, _unrolled_mix
    else:
        similarity, mix = _gram_similarity, mix_patches
    s = similarity(features, patch_size)  # eq. (7): [B, H, W, H-s+1, W-s+1]
    valid = valid_keys(mask, patch_size)[:, None, None]  # eq. (8)
    masked = jnp.where(valid, s / temperature[:, None, None, None, None], -mask_bias)  # eq. (9)
    weights = jax.nn.softmax(masked, axis=(-2, -1))  # eq. (10), in float32
    return mix(weights.astype(features.dtype), features, patch_size)  # eq. (11) and rolling, in float32


def keep_from_zero(temperature: Float[AnyArray, "B"], smallest: float) -> Float[Array, "B"]:
    """float32 temperatures with their sign, and a magnitude of at least `smallest` (0 counts as positive)."""
    temperature = temperature.astype(jnp.float32)
    return jnp.where(temperature < 0, jnp.minimum(temperature, -smallest), jnp.maximum(temperature, smallest))


def downsample_mask(mask: Shaped[AnyArray, "B H W"], factor: int = 4) -> Shaped[Array, "B H//{factor} W//{factor}"]:
    """Brings an image mask to the resolution of the features: a cell that sees any missing pixel is missing.

    Args:
        mask: of the image; H and W are multiples of `factor`.
        factor: pixels per feature cell and side.

    Returns:
        in the dtype of `mask`.

    Raises:
        ValueError: H or W is not a multiple of `factor`.
    """
    batch, height, width = mask.shape
    if height % factor or width % factor:
        raise ValueError(f"A mask of {height} x {width} does not divide into cells of {factor}; pad it first.")
    return jnp.asarray(mask).reshape(batch, height // factor, factor, width // factor, factor).max(axis=(2, 4))


def valid_keys(mask: Shaped[AnyArray, "B H W"], patch_size: int) -> Bool[Array, "B H-{patch_size}+1 W-{patch_size}+1"]:
    """m' of eq. (8): which s x s patches inside the map hold no missing pixel (anything above 0, of a soft mask)."""
    missing = box_sum((mask > 0).astype(jnp.float32), patch_size)
    return missing < 0.5


def check_inputs(
    features: Float[AnyArray, "B H W C"],
    mask: Shaped[AnyArray, "B H W"],
    temperature: Float[AnyArray, "B"],
    patch_size: int,
) -> None:
    """Raises ValueError, in one sentence, where types or shapes do not fit together or the patch not into the map."""
    if features.ndim != 4:
        raise ValueError(f"features must be [batch, height, width, channels], not of shape {features.shape}.")
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise ValueError(f"features must be floating point, not {features.dtype}.")
    batch, height, width, _ = features.shape
    if mask.shape != (batch, height, width):
        raise ValueError(f"mask must be [batch, height, width] = {(batch, height, width)}, not {mask.shape}.")
    if temperature.shape != (batch,):
        raise ValueError(f"temperature must hold one value per sample, shape {(batch,)}, not {temperature.shape}.")
    if not 1 <= patch_size <= min(height, width):
        raise ValueError(f"patch_size {patch_size} does not fit into a map of {height} x {width}.")


def _unrolled_similarity(
    features: Float[AnyArray, "B H W C"], patch_size: int
) -> Float[Array, "B H W H-{patch_size}+1 W-{patch_size}+1"]:
    queries = unroll(pad(features, patch_size), patch_size)
    keys = unroll(features, patch_size)
    return inner_products("byxpc,bijpc->byxij", normalise(queries), normalise(keys))


def _unrolled_mix(
    weights: Float[AnyArray, "B H W H-{patch_size}+1 W-{patch_size}+1"],
    features: Float[AnyArray, "B H W C"],
    patch_size: int,
) -> Float[Array, "B H W C"]:
    patches = inner_products("byxij,bijpc->byxpc", weights, unroll(features, patch_size))
    return roll(patches, patch_size).astype(features.dtype)


def _gram_similarity(
    features: Float[AnyArray, "B H W C"], patch_size: int
) -> Float[Array, "B H W H-{patch_size}+1 W-{patch_size}+1"]:
    padded = pad(features, patch_size)
    queries = inverse_norm(padded, patch_size)[:, :, :, None, None]
    keys = inverse_norm(features, patch_size)[:, None, None]
    return patch_products(padded, features, patch_size) * queries * keys
