"""From coarse to fine: what a network made of a photo at half the size, as a guess at what a wide hole may hold.

Networks see a few dozen pixels far. At half the size, or a quarter, a wide hole is a narrow one; what comes of it
there is a better start at the next size than a smooth fill, which knows nothing of edges that go on.

Images are float [B, H, W, 3] in [0, 1]; in masks, 1 (or True) = missing.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from inpaint_jax.arrays import AnyArray
from inpaint_jax.nets.fill import tension_spline


def halve(
    image: Float[AnyArray, "B H W 3"], mask: Shaped[AnyArray, "B H W"]
) -> tuple[Float[Array, "B H//2 W//2 3"], Bool[Array, "B H//2 W//2"]]:
    """Half the size: means over the given pixels of 2 x 2; a pixel is missing if fewer than two were given.

    Args:
        image: what it holds inside the hole is never looked at; a last odd row or column is left out.
        mask: of any type.
    """
    given = jnp.asarray(mask <= 0.5, jnp.float32)[..., None]
    count = _blocks(given)
    return _blocks(jnp.where(given > 0, image, 0)) / jnp.maximum(count, 1), (count < 2)[..., 0]


def enlarge(image: Float[Array, "B h w 3"], height: int, width: int) -> Float[Array, "B {height} {width} 3"]:
    """Twice the size, by cubic interpolation; what was odd before gets its last row and column back."""
    batch, h, w, _ = image.shape
    large = jnp.clip(jax.image.resize(image, (batch, 2 * h, 2 * w, 3), "cubic"), 0, 1)
    return jnp.pad(large, ((0, 0), (0, height - 2 * h), (0, width - 2 * w), (0, 0)), mode="edge")


def around(
    guess: Float[AnyArray, "B H W 3"], image: Float[AnyArray, "B H W 3"], mask: Shaped[AnyArray, "B H W"]
) -> Float[Array, "B H W 3"]:
    """A guess at what the hole holds, brought into line with the given pixels.

    The guess and the image differ at the hole's border; the tension spline of that difference is added to the guess,
    as in Poisson image editing (Pérez et al. 2003). A guess of one colour so gives the tension spline itself.

    Args:
        guess: in [0, 1].
        image: in [0, 1].
        mask: 1 = missing; some pixels must be given.

    Returns:
        the image, with the guess in the hole.
    """
    hole = (mask > 0.5)[..., None]
    difference = 2 * tension_spline((image - guess + 1) / 2, mask) - 1
    return jnp.where(hole, jnp.clip(guess + difference, 0, 1), image)


def _blocks(x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 C"]:
    """Sums of 2 x 2 pixels."""
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
