"""Convolutions whose gradients are fast on a CPU too.

XLA's compiler for CPUs is slow at some of the gradients that training needs. That with respect to the input of a
convolution with a stride is compiled as a convolution of a map with zeros between its pixels; where this map is smaller
than the kernel, the two change places, and what results is a plain loop, up to a hundred times slower than a matrix
product. Here such gradients are written as what they are: products without zeros. A kernel's gradient is left to XLA
but for the cases in `_kernel_gradient`.

A convolution, its input's gradient and its kernel's gradient are each linear in two of

    x [B, H, W, C],  w [K, K', C, C'],  y [B, h, w, C'],      y[o] = sum_k x[s o + d k - l] w[k]

(stride s, dilation d, l rows or columns of padding in front), and each one's gradients are the two others. So there
are three functions here that know of one another, and gradients of gradients are as fast.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_GROUPS = ("feature_group_count", "batch_group_count")
_TRANSPOSED = ("NHWC", "HWOI", "NHWC")  # the kernel's channels change places

# So few channels that the phases of an input's gradient are better computed together, as channels of one convolution.
_FEW_CHANNELS = 8

# XLA computes a kernel's gradient as a convolution whose input channels are the samples. With one or two samples, and
# maps so large and outputs so many that it pays, a product for every tap is up to twice as fast.
_SMALL_BATCH, _LARGE_MAP, _SEVERAL_CHANNELS = 2, 128 * 128, 16


class _Window(NamedTuple):
    """How the kernel moves over the map; a pair is (of rows, of columns).

    Attributes:
        size: H and W of the map.
        kernel: K and K'.
        strides: s.
        dilation: d.
        padding: in front and behind.
        precision: of `jax.lax`.
    """

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    precision: Any


def conv_general_dilated(
    lhs: Float[Array, "B *map"],
    rhs: Float[Array, "..."],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    **options: Any,
) -> Float[Array, "B *out"]:
    """`jax.lax.conv_general_dilated`, with the same result and with gradients that a CPU computes faster.

    Only where the program runs on one CPU, for maps and kernels in flax's layout; all else is left to XLA. The
    gradients are the same sums, rounded in another order. There is no forward-mode differentiation then.

    Args:
        lhs: the map, x.
        rhs: the kernel, w.
        window_strides: of rows and columns.
        padding: "SAME", "VALID", or rows and columns in front and behind.
        lhs_dilation: zeros are put between pixels unless it is 1.
        rhs_dilation: distance between the taps of the kernel.
        dimension_numbers: the layout.
        options: others of `jax.lax.conv_general_dilated`.

    Returns:
        y.
    """
    precision = options.get("precision")
    if not _handles(lhs, rhs, lhs_dilation, dimension_numbers, options):
        return jax.lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, **options
        )
    dilation = tuple(rhs_dilation or (1, 1))
    if isinstance(padding, str):
        reach = [(side - 1) * step + 1 for side, step in zip(rhs.shape[:2], dilation)]
        padding = jax.lax.padtype_to_pads(lhs.shape[1:3], reach, window_strides, padding)
    padding = tuple((int(front), int(behind)) for front, behind in padding)
    return _convolve(
        lhs, rhs, _Window(lhs.shape[1:3], rhs.shape[:2], tuple(window_strides), dilation, padding, precision)
    )


def _handles(
    lhs: jax.Array, rhs: jax.Array, lhs_dilation: Sequence[int] | None, dimension_numbers: Any, options: dict[str, Any]
) -> bool:
    """Whether the gradients of this convolution are computed here."""
    if jax.default_backend() != "cpu" or jax.device_count() != 1 or lhs.ndim != 4:
        return False  # several devices: what a batch's halves need of each other is best known to XLA
    numbers = jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    return (
        numbers == jax.lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
        and set(lhs_dilation or (1,)) == {1}
        and all(value is None for name, value in options.items() if name not in ("precision", *_GROUPS))
        and all(options.get(name, 1) == 1 for name in _GROUPS)
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _convolve(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """The convolution y; XLA's."""
    return _plain(x, kernel, window)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _input_gradient(y: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """x' of y', which has the shape of y: x'[s o + d k - l] = sum over all such o and k of y'[o] w[k]."""
    kernel, window = _without_idle_taps(kernel, window, y)
    smallest = min(side - stride for side, stride in zip(window.kernel, window.strides))
    if max(window.strides) == 1 or max(window.dilation) > 1 or smallest < 0:  # a phase without a tap
        return _xla_input_gradient(y, kernel, window)
    pixels, outputs = math.prod(y.shape[1:3]), kernel.shape[3]
    # A kernel much larger than the map: each of its entries is used so few times that reading it is the work.
    if len(y) * pixels <= outputs or pixels <= 4:
        return _spread(y, kernel, window)
    return _by_phases(y, kernel, window, together=kernel.shape[2] <= _FEW_CHANNELS)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _kernel_gradient(x: jax.Array, y: jax.Array, window: _Window) -> jax.Array:
    """w' of x and y', which has the shape of y: w'[k] = sum_o x[s o + d k - l] y'[o]."""
    seen = [sum(len(_outputs_of_tap(window, axis, tap, y)) for tap in range(window.kernel[axis])) for axis in range(2)]
    if math.prod(seen) <= math.prod(window.kernel) * math.prod(y.shape[1:3]) / 2:
        return _by_taps(x, y, window)
    if len(x) <= _SMALL_BATCH and math.prod(y.shape[1:3]) >= _LARGE_MAP and y.shape[3] >= _SEVERAL_CHANNELS:
        edges = [(front, behind, 0) for front, behind in ((0, 0), *window.padding, (0, 0))]
        return _by_taps(jax.lax.pad(x, jnp.zeros((), x.dtype), edges), y, window._replace(padding=((0, 0), (0, 0))))
    return _xla_kernel_gradient(x, y, window)


def _known(function: Any) -> Any:
    """The forward rule of a function of two arrays: both are kept."""
    return lambda one, other, window: (function(one, other, window), (one, other))


_convolve.defvjp(
    _known(_convolve),
    lambda window, known, y: (_input_gradient(y, known[1], window), _kernel_gradient(known[0], y, window)),
)
_input_gradient.defvjp(
    _known(_input_gradient),
    lambda window, known, x: (_convolve(x, known[1], window), _kernel_gradient(x, known[0], window)),
)
_kernel_gradient.defvjp(
    _known(_kernel_gradient),
    lambda window, known, kernel: (_input_gradient(known[1], kernel, window), _convolve(known[0], kernel, window)),
)


def _plain(x: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=_LAYOUT,
        precision=window.precision,
    )


def _xla_input_gradient(y: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    like = jax.ShapeDtypeStruct((len(y), *window.size, kernel.shape[2]), y.dtype)
    (x,) = jax.linear_transpose(lambda x: _plain(x, kernel, window), like)(y)
    return x


def _xla_kernel_gradient(x: jax.Array, y: jax.Array, window: _Window) -> jax.Array:
    like = jax.ShapeDtypeStruct((*window.kernel, x.shape[3], y.shape[3]), x.dtype)
    (kernel,) = jax.linear_transpose(lambda kernel: _plain(x, kernel, window), like)(y)
    return kernel


def _spread(y: jax.Array, kernel: jax.Array, window: _Window) -> jax.Array:
    """The input's gradient as one product of all pixels and all taps, whose parts are then added where they belong."""
    taps, (batch, height, width, outputs) = kernel.reshape(-1, kernel.shape[3]), y.shape
    parts = jax.lax.dot_general(
        y.reshape(-1, outputs),
        taps,
        (((1,), (1,)), ((), ())),
        precision=window.precision,
        preferred_element_type=_wide(y),
    ).reshape(batch, height, width, *kernel.shape[:3])
    x = jnp.zeros((batch, *window.size, kernel.shape[2]), parts.dtype)
    for row in range(window.kernel[0]):
        for column in range(window.kernel[1]):
            x += _place(parts[:, :, :, row, column], (row, column), window)
    return x.astype(y.dtype)


def _without_idle_taps(kernel: jax.Array, window: _Window, y: jax.Array) -> tuple[jax.Array, _Window]:
    """The kernel without the outer taps that see nothing but padding, as in large dilations on small maps."""
    for axis in range(2):
        used = [tap for tap in range(window.kernel[axis]) if _outputs_of_tap(window, axis, tap, y)]
        if not used:
            continue
        step, taps = window.dilation[axis], used[-1] + 1 - used[0]
        front, behind = window.padding[axis]
        edges = front - used[0] * step, behind - (window.kernel[axis] - 1 - used[-1]) * step
        if min(edges) < 0 or max(edges) > (taps - 1) * step:  # no padding that makes the kernel meet every pixel
            continue
        kernel = jax.lax.slice_in_dim(kernel, used[0], used[-1] + 1, axis=axis)
        window = window._replace(
            kernel=_replaced(window.kernel, axis, taps), padding=_replaced(window.padding, axis, edges)
        )
    return kernel, window


def _replaced(pair: tuple[Any, ...], axis: int, value: Any) -> tuple[Any, Any]:
    return (value, pair[1]) if axis == 0 else (pair[0], value)


def _place(part: jax.Array, tap: tuple[int, int], window: _Window) -> jax.Array:
    """[B, h, w, C] -> [B, H, W, C], zeros but for the pixels that a tap of the kernel sees."""
    edges = [(0, 0, 0)]
    for axis in range(2):
        front = tap[axis] * window.dilation[axis] - window.padding[axis][0]
        last = front + (part.shape[axis + 1] - 1) * window.strides[axis]
        edges.append((front, window.size[axis] - 1 - last, window.strides[axis] - 1))
    return jax.lax.pad(part, jnp.zeros((), part.dtype), [*edges, (0, 0, 0)])


def _by_taps(x: jax.Array, y: jax.Array, window: _Window) -> jax.Array:
    """The kernel's gradient as a product for every tap, of what lies under it; padding is left out.

    Large dilations on small maps have taps that see little else.
    """
    inputs, outputs = x.shape[3], y.shape[3]
    window = window._replace(size=x.shape[1:3])
    rows = []
    for row in range(window.kernel[0]):
        rows.append([])
        for column in range(window.kernel[1]):
            seen, under = y, x
            for axis, tap in enumerate((row, column)):
                places = _outputs_of_tap(window, axis, tap, y)
                stride = window.strides[axis]
                first = places.start * stride + tap * window.dilation[axis] - window.padding[axis][0]
                last = first + (len(places) - 1) * stride
                if places:
                    seen = jax.lax.slice_in_dim(seen, places.start, places.stop, axis=axis + 1)
                    under = jax.lax.slice_in_dim(under, first, last + 1, stride, axis + 1)
                else:
                    seen, under = seen[:0], under[:0]
            product = jax.lax.dot_general(
                under.reshape(-1, inputs),
                seen.reshape(-1, outputs),
                (((0,), (0,)), ((), ())),
                precision=window.precision,
                preferred_element_type=_wide(x),
            )
            rows[-1].append(product.astype(x.dtype))
    return jnp.stack([jnp.stack(row) for row in rows])


def _outputs_of_tap(window: _Window, axis: int, tap: int, y: jax.Array) -> range:
    """The rows or columns of y for which a tap of the kernel lies on the map: 0 <= s o + d k - l < H."""
    front = tap * window.dilation[axis] - window.padding[axis][0]
    stride = window.strides[axis]
    first, behind = -(front // stride), (window.size[axis] - 1 - front) // stride + 1
    return range(max(0, first), max(0, first, min(y.shape[axis + 1], behind)))


def _by_phases(y: jax.Array, kernel: jax.Array, window: _Window, *, together: bool) -> jax.Array:
    """The input's gradient as a convolution of y', without a stride, for every phase: position modulo the stride.

    A pixel p = s m + a is seen by the outputs o = m + u, through the taps k = a + l - s u, for each u for which there
    is such a tap.

    Args:
        y: [B, h, w, C'].
        kernel: [K, K', C, C'], not dilated.
        window: of the convolution.
        together: whether the phases are channels of one convolution, with zeros for the taps that a phase lacks.

    Returns:
        [B, H, W, C].
    """
    counts = [-(-size // stride) for size, stride in zip(window.size, window.strides)]
    rows, columns = (_phase_offsets(window, axis, together) for axis in range(2))

    def taps(part: jax.Array, axis: int, phase: int, offsets: range) -> jax.Array:
        stride = window.strides[axis]
        first, last = (phase + window.padding[axis][0] - stride * u for u in (offsets[-1], offsets[0]))
        edges = [(0, 0)] * 4
        edges[axis] = max(0, -first), max(0, last + 1 - part.shape[axis])
        start = first + edges[axis][0]
        part = jnp.pad(part, edges)
        return jnp.flip(jax.lax.slice_in_dim(part, start, start + last - first + 1, stride, axis), axis)

    def convolve(folded: jax.Array, *offsets: range) -> jax.Array:
        part, edges = y, []
        for axis, u in enumerate(offsets, 1):
            front, behind = -u[0], counts[axis - 1] + u[-1] - y.shape[axis]
            # Cut off by hand: with a negative padding jaxlib 0.10.2 reads what lies behind the map.
            part = jax.lax.slice_in_dim(part, max(0, -front), y.shape[axis] - max(0, -behind), axis=axis)
            edges.append((max(0, front), max(0, behind)))
        return jax.lax.conv_general_dilated(
            part, folded, (1, 1), edges, dimension_numbers=_TRANSPOSED, precision=window.precision
        )

    folded = [[taps(taps(kernel, 0, a, u), 1, b, v) for b, v in enumerate(columns)] for a, u in enumerate(rows)]
    if together:
        folded = jnp.concatenate([part for parts in folded for part in parts], axis=2)
        x = convolve(folded, rows[0], columns[0]).reshape(len(y), *counts, *window.strides, kernel.shape[2])
        x = x.transpose(0, 1, 3, 2, 4, 5)
    else:
        x = [jnp.stack([convolve(k, u, v) for k, v in zip(parts, columns)], axis=3) for parts, u in zip(folded, rows)]
        x = jnp.stack(x, axis=2)
    height, width = (count * stride for count, stride in zip(counts, window.strides))
    return x.reshape(len(y), height, width, kernel.shape[2])[:, : window.size[0], : window.size[1]]


def _phase_offsets(window: _Window, axis: int, together: bool) -> list[range]:
    """The u of every phase; those of all phases for every one if they are worked on together."""
    stride, taps, front = window.strides[axis], window.kernel[axis], window.padding[axis][0]
    offsets = [range(-((taps - 1 - front - a) // stride), (a + front) // stride + 1) for a in range(stride)]
    if together:
        return [range(min(u.start for u in offsets), max(u.stop for u in offsets))] * stride
    return offsets


def _wide(x: jax.Array) -> jnp.dtype:
    """In which products are summed up."""
    return jnp.promote_types(x.dtype, jnp.float32)
