"""Convolutions with gradients for a CPU, against XLA's own."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPOSITORY, several_devices

from inpaint_jax.nets import convolution
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator
from inpaint_jax.nets.layers import GatedConv, UpsampledGatedConv

LAYOUT = ("NHWC", "HWIO", "NHWC")

# x [B, H, W, C], side of the kernel, C', stride, dilation, and what computes the gradients of input and kernel.
CASES = [
    ((2, 9, 7, 5), 3, 6, 1, 1, {"_xla_input_gradient", "_xla_kernel_gradient"}),
    ((1, 8, 8, 4), 5, 6, 1, 1, {"_xla_input_gradient", "_xla_kernel_gradient"}),
    ((1, 9, 12, 3), 3, 4, 1, 2, {"_xla_input_gradient", "_xla_kernel_gradient"}),
    ((2, 12, 12, 3), 3, 4, 1, 4, {"_xla_input_gradient", "_xla_kernel_gradient"}),
    ((2, 9, 8, 3), 3, 4, 1, 8, {"_xla_input_gradient", "_by_taps"}),
    ((3, 16, 15, 3), 3, 4, 1, 16, {"_xla_input_gradient", "_by_taps"}),
    ((1, 128, 129, 2), 3, 16, 1, 1, {"_xla_input_gradient", "_by_taps"}),
    ((2, 257, 256, 2), 5, 16, 2, 1, {"_by_phases", "_by_taps"}),
    ((3, 10, 9, 9), 5, 4, 2, 1, {"_by_phases", "_xla_kernel_gradient"}),
    ((2, 9, 8, 3), 5, 6, 2, 1, {"_by_phases", "_xla_kernel_gradient"}),
    ((1, 11, 8, 9), 3, 4, 2, 1, {"_by_phases", "_xla_kernel_gradient"}),
    ((2, 11, 11, 3), 3, 2, 2, 1, {"_by_phases", "_xla_kernel_gradient"}),
    ((2, 11, 10, 9), 5, 2, 3, 1, {"_by_phases", "_xla_kernel_gradient"}),
    ((2, 4, 4, 3), 5, 6, 2, 1, {"_spread", "_by_taps"}),
    ((1, 7, 5, 3), 3, 16, 2, 1, {"_spread", "_xla_kernel_gradient"}),
    ((2, 2, 2, 3), 5, 6, 2, 1, {"_spread", "_by_taps"}),
    ((2, 1, 1, 3), 5, 6, 2, 1, {"_xla_input_gradient", "_by_taps"}),
    ((2, 9, 9, 3), 1, 4, 2, 1, {"_xla_input_gradient", "_xla_kernel_gradient"}),
    ((2, 9, 8, 3), 3, 4, 2, 2, {"_xla_input_gradient", "_xla_kernel_gradient"}),
]


def arrays(shape, side, outputs, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=shape), rng.normal(size=(side, side, shape[-1], outputs))
    return jnp.asarray(x, dtype), jnp.asarray(kernel, dtype)


def both(stride, dilation, padding="SAME"):
    """XLA's convolution and ours, as functions of input and kernel."""
    return [
        partial(
            function,
            window_strides=(stride, stride),
            padding=padding,
            rhs_dilation=(dilation, dilation),
            dimension_numbers=LAYOUT,
        )
        for function in (jax.lax.conv_general_dilated, convolution.conv_general_dilated)
    ]


def gradients(function):
    """A function of input and kernel: the gradients of a sum to which every output contributes with another weight."""
    return jax.jit(jax.grad(lambda x, kernel: jnp.sin(function(x, kernel)).astype(jnp.float32).sum(), (0, 1)))


def assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max(), rtol=0)


@pytest.mark.parametrize(("shape", "side", "outputs", "stride", "dilation", "ways"), CASES)
def test_gradients_are_those_of_xla(shape, side, outputs, stride, dilation, ways, monkeypatch):
    taken = set()

    def noted(name, function, *args, **options):
        taken.add(name)
        return function(*args, **options)

    for name in ("_xla_input_gradient", "_xla_kernel_gradient", "_by_phases", "_spread", "_by_taps"):
        monkeypatch.setattr(convolution, name, partial(noted, name, getattr(convolution, name)))
    x, kernel = arrays(shape, side, outputs)
    xla, ours = both(stride, dilation)
    np.testing.assert_array_equal(ours(x, kernel), xla(x, kernel))
    slopes = gradients(ours)
    found = slopes(x, kernel)
    assert_close(found, gradients(xla)(x, kernel), 5e-6)
    assert taken == ways
    for one, again in zip(found, slopes(x, kernel)):
        np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize(("padding", "stride"), [("VALID", 2), (((0, 3), (2, 1)), 1), (((4, 0), (1, 5)), 2)])
def test_any_padding(padding, stride):
    x, kernel = arrays((2, 11, 12, 3), 3, 4)
    xla, ours = both(stride, 1, padding)
    np.testing.assert_array_equal(ours(x, kernel), xla(x, kernel))
    assert_close(gradients(ours)(x, kernel), gradients(xla)(x, kernel), 5e-6)


@pytest.mark.parametrize("case", [3, 5, 8, 13])
def test_bfloat16(case):
    shape, side, outputs, stride, dilation, _ = CASES[case]
    x, kernel = arrays(shape, side, outputs, jnp.bfloat16)
    xla, ours = both(stride, dilation)
    np.testing.assert_array_equal(ours(x, kernel), xla(x, kernel))
    # Against the sums in float32, of the same numbers: only the result is rounded.
    y = jnp.ones_like(xla(x, kernel))
    found = jax.jit(lambda x, kernel, y: jax.vjp(ours, x, kernel)[1](y))(x, kernel, y)
    wide = jax.jit(lambda x, kernel, y: jax.vjp(xla, x, kernel)[1](y))(
        x.astype(jnp.float32), kernel.astype(jnp.float32), y.astype(jnp.float32)
    )
    assert_close(found, [part.astype(jnp.bfloat16) for part in wide], 2**-8)


@pytest.mark.parametrize("case", [3, 5, 8, 13])
def test_gradients_of_gradients(case):
    # What WGAN-GP needs: the slope of a critic bounds how it learns.
    shape, side, outputs, stride, dilation, _ = CASES[case]
    x, kernel = arrays(shape, side, outputs)

    def slope(function):
        def penalty(x, kernel):
            of_input, of_kernel = jax.grad(lambda *both: jnp.sin(function(*both)).sum(), (0, 1))(x, kernel)
            return jnp.cos(of_input).sum() + (of_kernel**2).sum()

        return jax.jit(jax.grad(penalty, (0, 1)))(x, kernel)

    xla, ours = both(stride, dilation)
    assert_close(slope(ours), slope(xla), 1e-5)


def test_other_layouts_and_groups_are_left_to_xla():
    x, kernel = jnp.ones((1, 4, 6, 6)), jnp.ones((3, 3, 2, 4))
    found = convolution.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW"), feature_group_count=2
    )
    assert found.shape == (1, 4, 6, 6)
    program = jax.make_jaxpr(
        lambda x: convolution.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, (2, 2), None, LAYOUT)
    )
    assert "custom_vjp" not in str(program(jnp.ones((1, 3, 3, 2))))


@pytest.mark.parametrize(
    "layer", [GatedConv(4), GatedConv(4, stride=2), GatedConv(4, dilation=16), UpsampledGatedConv(4)]
)
def test_layers_use_it(layer, monkeypatch):
    x = jax.random.normal(jax.random.key(0), (2, 10, 9, 3))
    variables = jax.jit(layer.init)(jax.random.key(1), x)

    def run():
        return jax.jit(jax.grad(lambda variables: (layer.apply(variables, x) ** 2).sum()))(variables)

    assert "custom_vjp" in str(jax.make_jaxpr(layer.apply)(variables, x))
    found = run()
    monkeypatch.setattr(convolution, "_handles", lambda *_: False)
    assert "custom_vjp" not in str(jax.make_jaxpr(layer.apply)(variables, x))
    assert_close(jax.tree.leaves(found), jax.tree.leaves(run()), 5e-6)


def test_the_critic_uses_it():
    critic = GlobalLocalDiscriminator(width=2, features=4)
    inputs = jnp.ones((1, 32, 32, 3)), jnp.ones((1, 16, 16, 3))

    def start():
        return critic.init(jax.random.key(0), *inputs, update_stats=False)

    program = jax.make_jaxpr(partial(critic.apply, update_stats=False))(jax.eval_shape(start), *inputs)
    assert str(program).count("custom_vjp_call") == 11


PROGRAM = """
import jax, jax.numpy as jnp
from inpaint_jax.nets.layers import GatedConv
x = jnp.ones((2, 8, 8, 3))
assert jax.device_count() == 2
assert "custom_vjp" not in str(jax.make_jaxpr(lambda: GatedConv(2).init(jax.random.key(0), x))())
"""


def test_several_devices_are_left_to_xla():
    environment = {**os.environ, **several_devices(2), "PYTHONPATH": "."}
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, env=environment, check=True)
