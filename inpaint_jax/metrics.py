"""Image quality, per image; images are [B, H, W, 3] in [0, 1]."""

import jax
import jax.numpy as jnp


def mean_absolute_error(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean of |prediction - target| in percent of the range.

    Args:
        prediction: [B, H, W, 3] in [0, 1].
        target: [B, H, W, 3] in [0, 1].

    Returns:
        [B] in percent.
    """
    return 100 * jnp.mean(jnp.abs(prediction - target), axis=(-3, -2, -1))


def psnr(prediction: jax.Array, target: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio, -10 log10(mean squared error), over all pixels and channels.

    Args:
        prediction: [B, H, W, 3] in [0, 1].
        target: [B, H, W, 3] in [0, 1].

    Returns:
        [B] in dB; inf where the images are equal.
    """
    return -10 * jnp.log10(jnp.mean(jnp.square(prediction - target), axis=(-3, -2, -1)))


def hole_psnr(prediction: jax.Array, target: jax.Array, mask: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio of the missing pixels alone: does not flatter small holes, as `psnr` does.

    Args:
        prediction: [B, H, W, 3] in [0, 1], or what broadcasts to it, as one colour does.
        target: [B, H, W, 3] in [0, 1].
        mask: [B, H, W], 1 (or True) = missing.

    Returns:
        [B] in dB; inf where the holes are equal, nan where nothing is missing.
    """
    hole = (mask > 0.5).astype(target.dtype)[..., None]
    square = jnp.sum(hole * jnp.square(prediction - target), axis=(-3, -2, -1))
    return -10 * jnp.log10(square / (3 * jnp.sum(hole, axis=(-3, -2, -1))))
