"""What a hole holds before any network has seen it. Both fills are pure and have no parameters.

Images are in [0, 1], and what they hold inside the hole is never looked at. In masks, 1 (or True) = missing.

    constant        the ImageNet mean colour: the paper's (Section IV-B)
    tension_spline  a surface through the known pixels that bends like a plate between neighbours and hangs like a
                    membrane over wide holes

The statistics of photos ask for the second: their power falls as 1/f^2, for which the membrane (harmonic fill) is the
best linear prediction, but they are smooth at the scale of a pixel, where the plate (biharmonic fill) is.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Shaped

from inpaint_jax.arrays import AnyArray

HOLE_COLOUR = (0.485, 0.456, 0.406)
"""The mean colour of ImageNet, in [0, 1]."""

_STIFFNESS = 4.0  # lambda in squared pixels; 1 to 8 do as well on photos of 64 to 256 pixels
_ITERATIONS = 3  # conjugate gradients; the result is within 0.03 dB of the exact one on average, 0.2 in wide holes
_SMOOTHING = 2  # Chebyshev steps before and after each correction from the next coarser grid
_COARSEST = 8  # cells along the longer side


def constant(image: Float[AnyArray, "B H W 3"], mask: Shaped[AnyArray, "B H W"]) -> Float32[Array, "B H W 3"]:
    """Fills holes with `HOLE_COLOUR`."""
    hole = (mask > 0.5)[..., None]
    return jnp.where(hole, jnp.asarray(HOLE_COLOUR, jnp.float32), image.astype(jnp.float32))


def tension_spline(
    image: Float[AnyArray, "B H W 3"],
    mask: Shaped[AnyArray, "B H W"],
    *,
    stiffness: float = _STIFFNESS,
    iterations: int = _ITERATIONS,
) -> Float32[Array, "B H W 3"]:
    """Fills holes with a spline in tension (Smith and Wessel 1990, "Gridding with continuous curvature splines").

    Of all images u that hold the known pixels it is the one of the least energy

        sum |grad u|^2 + lambda * sum (laplacian u)^2,    hence    (L + lambda L^2) u = 0    inside the hole,

    with the graph Laplacian L of the pixel grid, whose border is free. lambda = 0 gives the harmonic fill, lambda to
    infinity the biharmonic one. The system is solved by conjugate gradients that a multigrid V-cycle preconditions.

    Args:
        image: of any H and W.
        mask: an image without any known pixel gets `HOLE_COLOUR`.
        stiffness: lambda, in squared pixels.
        iterations: of the conjugate gradients; 12 are as good as exact in float32.

    Returns:
        the filled image, in [0, 1].
    """
    hole = (mask > 0.5)[..., None]
    # Channels first: the innermost axis of the stencils is then a row of pixels, not three colours.
    known = jnp.moveaxis(jnp.where(hole, 0.0, image.astype(jnp.float32)), -1, 1)
    grids = [(known, jnp.moveaxis(hole, -1, 1).astype(jnp.float32))]
    while max(grids[-1][0].shape[-2:]) > _COARSEST:
        grids.append(_coarsen(*grids[-1]))
    holes = [hole for _, hole in grids]

    # From the coarsest grid to the finest: the coarse solution is where the finer one starts from.
    known, missing = grids[-1]
    count = jnp.sum(1 - missing, (-2, -1), keepdims=True)
    mean = jnp.sum(known, (-2, -1), keepdims=True) / jnp.maximum(count, 1)
    u = jnp.where(count > 0, mean, jnp.asarray(HOLE_COLOUR).reshape(3, 1, 1)) * jnp.ones_like(known)
    for level, (known, missing) in reversed(list(enumerate(grids))):
        u = known + missing * _enlarge(u, known.shape[-2:])
        if level > 0:
            softened = stiffness / 4**level
            u, _ = _smooth(u, -_operator(u, missing, softened), missing, softened, coarsest=level == len(grids) - 1)

    missing = holes[0]

    def iterate(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        u, residual, direction, last = state
        step = _v_cycle(residual, holes, stiffness)
        product = jnp.sum(residual * step, (-2, -1), keepdims=True)
        direction = step + _divide(product, last) * direction
        applied = _operator(direction, missing, stiffness)
        length = _divide(product, jnp.sum(direction * applied, (-2, -1), keepdims=True))
        return u + length * direction, residual - length * applied, direction, product

    residual = -_operator(u, missing, stiffness)
    start = (u, residual, jnp.zeros_like(u), jnp.zeros_like(u[..., :1, :1]))
    u = jax.lax.fori_loop(0, iterations, iterate, start)[0]
    u = jnp.moveaxis(jnp.clip(u, 0, 1), 1, -1)
    return jnp.where(hole, u, image.astype(jnp.float32))


FILLS: dict[str, Callable[[AnyArray, AnyArray], jax.Array]] = {"constant": constant, "tension_spline": tension_spline}
"""Name -> function of image and mask to the filled image."""


def _laplacian(u: Float[Array, "*maps H W"]) -> Float[Array, "*maps H W"]:
    """L u: the sum of the differences to the four neighbours that exist; positive semi-definite."""
    padded = jnp.pad(u, [(0, 0)] * (u.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    rows = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
    return 4 * u - rows - padded[..., 1:-1, :-2] - padded[..., 1:-1, 2:]


def _operator(
    u: Float[Array, "*maps H W"], hole: Float[Array, "*#maps H W"], stiffness: float
) -> Float[Array, "*maps H W"]:
    """(L + lambda L^2) u, inside the hole alone."""
    once = _laplacian(u)
    return hole * (once + stiffness * _laplacian(once))


def _coarsen(
    known: Float[Array, "B C H W"], hole: Float[Array, "B 1 H W"]
) -> tuple[Float[Array, "B C h w"], Float[Array, "B 1 h w"]]:
    """Halves a grid: a cell is the mean of its known pixels, and missing only if all are missing."""
    weight = _blocks(1 - hole)
    return _blocks(known) / jnp.maximum(weight, 1), (weight == 0).astype(known.dtype)


def _blocks(x: Float[Array, "*maps H W"]) -> Float[Array, "*maps -(-H//2) -(-W//2)"]:
    """Sums of blocks of 2 x 2 pixels; those at the border may be smaller."""
    height, width = (-(-side // 2) for side in x.shape[-2:])
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, x.shape[-2] % 2), (0, x.shape[-1] % 2)])
    return x.reshape(*x.shape[:-2], height, 2, width, 2).sum((-3, -1))


def _enlarge(x: Float[Array, "*maps h w"], shape: Sequence[int]) -> Float[Array, "*maps {shape[0]} {shape[1]}"]:
    """Bilinear enlargement to a grid that `_blocks` has halved; as it is, if that is it."""
    if x.shape[-2:] == tuple(shape):
        return x
    for axis, side in zip((-2, -1), shape):
        x = jnp.swapaxes(x, axis, -1)
        before = jnp.concatenate([x[..., :1], x[..., :-1]], -1)
        after = jnp.concatenate([x[..., 1:], x[..., -1:]], -1)
        x = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], -1).reshape(*x.shape[:-1], -1)
        x = jnp.swapaxes(x[..., :side], axis, -1)
    return x


def _smooth(
    u: Float[Array, "*maps H W"],
    residual: Float[Array, "*maps H W"],
    hole: Float[Array, "*#maps H W"],
    stiffness: float,
    *,
    coarsest: bool = False,
) -> tuple[Float[Array, "*maps H W"], Float[Array, "*maps H W"]]:
    """Chebyshev iteration: takes the errors out of u that a coarser grid cannot show; most, on the coarsest grid.

    Args:
        u: the solution so far.
        residual: of u.
        hole: 1 = missing.
        stiffness: lambda on this grid.
        coarsest: whether low frequencies, too, are this grid's.

    Returns:
        u and its residual.
    """
    # L has eigenvalues up to 8; those from 2 on change sign from pixel to pixel. They bound those of L + lambda L^2.
    low, high = (eigenvalue + stiffness * eigenvalue**2 for eigenvalue in (0.3 if coarsest else 2.0, 8.0))
    centre, half = (high + low) / 2, (high - low) / 2

    def iterate(_: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        u, residual, step, rho = state
        u, residual = u + step, residual - _operator(step, hole, stiffness)
        following = 1 / (2 * centre / half - rho)
        return u, residual, following * rho * step + 2 * following / half * residual, following

    start = (u, residual, residual / centre, jnp.float32(half / centre))
    u, residual, _, _ = jax.lax.fori_loop(0, 4 * _SMOOTHING if coarsest else _SMOOTHING, iterate, start)
    return u, residual


def _v_cycle(
    residual: Float[Array, "*maps H W"], holes: Sequence[jax.Array], stiffness: float
) -> Float[Array, "*maps H W"]:
    """About (L + lambda L^2)^-1 times the residual; linear, symmetric and positive.

    Grids that are twice as coarse have the same L, and a quarter of lambda.
    """
    hole, *coarser = holes
    zero = jnp.zeros_like(residual)
    if not coarser:
        return _smooth(zero, residual, hole, stiffness, coarsest=True)[0]
    u, left = _smooth(zero, residual, hole, stiffness)

    def enlarge(x: jax.Array) -> jax.Array:
        return hole * _enlarge(x, hole.shape[-2:])

    coarse = jax.ShapeDtypeStruct((*residual.shape[:-2], *coarser[0].shape[-2:]), residual.dtype)
    (restricted,) = jax.linear_transpose(enlarge, coarse)(left)
    correction = enlarge(_v_cycle(coarser[0] * restricted, coarser, stiffness / 4))
    u, left = u + correction, left - _operator(correction, hole, stiffness)
    return _smooth(u, left, hole, stiffness)[0]


def _divide(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, and 0 where b is 0: where the residual is, too."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)
