"""Partial convolutions in a U-Net (Liu et al. 2018, "Image inpainting for irregular holes using partial convolutions").

A partial convolution looks at valid values alone, of which every layer makes more, until none is missing. The layers
are those of the PyTorch version that trained weights were published for, which the paper under study compares itself
with. The formula is that of Liu et al.; see `PartialConv` for how the two agree.
"""

from collections.abc import Callable, Collection
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Shaped

from inpaint_jax.arrays import AnyArray
from inpaint_jax.nets.convolution import conv_general_dilated
from inpaint_jax.nets.fill import HOLE_COLOUR, constant
from inpaint_jax.nets.generator import GeneratorOutputs, check_images, pad_to_multiples
from inpaint_jax.nets.layers import convolve_upsampled

COLOUR_SPREAD = (0.229, 0.224, 0.225)
"""The standard deviation of the colours of ImageNet, in [0, 1]; their mean is `fill.HOLE_COLOUR`."""

STATISTICS = "statistics"
"""The collection that the new running statistics are put into in training, under the names that they have in params."""

# Of the encoder's layers: sides of the kernels, and channels in widths. Each halves the size.
_KERNELS = (7, 5, 5, 3, 3, 3, 3)
_CHANNELS = (1, 2, 4, 8, 8, 8, 8)
_STRIDE = 2 ** len(_KERNELS)
_SLOPE = 0.2

# Of what batch normalisation measures, this share goes into its running statistics at every step.
_MOMENTUM = 0.1
_EPSILON = 1e-5

_KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # He et al. 2015


class ParConvUNet(nn.Module):
    """image, mask -> completed image; called as `Generator` is.

    The running statistics of batch normalisation, "mean" and "var", stand among the parameters, beside its "scale" and
    "bias": all that a trained network is lies in one tree. No gradient reaches them. Called with `train`, the network
    normalises by the batch, and puts what the statistics have become into the collection `STATISTICS`, if that is
    mutable; `with_statistics` takes them over.

    Attributes:
        width: channels of the first layer; all others are multiples of it.
        freeze_encoder: whether the encoder's batch normalisation goes by its running statistics in training, too, and
            leaves them as they are; its scales and biases learn on. For fine-tuning (Liu et al. 2018, Section 4.2).
        dtype: of the convolutions; parameters, batch normalisation and outputs are float32.
    """

    width: int = 64
    freeze_encoder: bool = False
    dtype: DTypeLike = jnp.float32

    @property
    def temperature_count(self) -> int:
        """There are no temperatures in the outputs."""
        return 0

    @nn.compact
    def __call__(
        self,
        image: Float[AnyArray, "B H W 3"],
        mask: Shaped[AnyArray, "B H W"],
        sketch: None = None,
        margin: int | None = None,
        *,
        without: Collection[str] = (),
        temperatures: None = None,
        guess: None = None,
        train: bool = False,
    ) -> GeneratorOutputs:
        """Fills the hole of each image.

        Args:
            image: in [0, 1], any H and W. What it holds inside the hole is never looked at.
            mask: 1 (or True) = missing.
            sketch: there is none.
            margin: saves nothing here.
            without: nothing.
            temperatures: there are none.
            guess: there is none.
            train: whether batch normalisation goes by the batch.

        Returns:
            GeneratorOutputs. There is one stage: `coarse` is `refined`, which has no bounds; `completed` is in [0, 1].

        Raises:
            ValueError: the shapes do not fit together, or more is given than image and mask.
        """
        if without or any(given is not None for given in (sketch, temperatures, guess)):
            raise ValueError("ParConv takes an image and its mask: no sketch, no temperatures, nothing to do without.")
        check_images(image, mask)
        batch, height, width, _ = image.shape
        hole = jnp.asarray(mask > 0.5, jnp.float32)[..., None]
        filled = constant(image, mask)
        start, missing = (pad_to_multiples(x, _STRIDE, _STRIDE) for x in (filled, hole))
        out = self._network(standardised(start), 1 - missing, train)
        refined = unstandardised(out[:, :height, :width])
        completed = jnp.where(hole > 0, jnp.clip(refined, 0, 1), filled)
        return GeneratorOutputs(filled, refined, refined, completed, jnp.zeros((batch, 0)))

    def _network(self, x: jax.Array, valid: jax.Array, train: bool) -> jax.Array:
        """Encoder and decoder. A layer of the decoder also sees what the layer of the encoder of its size was given."""
        layer = partial(PartialLayer, dtype=self.dtype)
        leaky_relu = partial(nn.leaky_relu, negative_slope=_SLOPE)
        given = [(x, valid)]
        for i, (side, factor) in enumerate(zip(_KERNELS, _CHANNELS)):
            encode = layer(factor * self.width, side, 2, normalised=i > 0, activation=nn.relu, name=f"encoder_{i + 1}")
            given.append(encode(*given[-1], train=train and not self.freeze_encoder))
        x, valid = given.pop()
        while len(given) > 1:
            skip = given.pop()
            decode = layer(skip[0].shape[-1], activation=leaky_relu, name=f"decoder_{len(given) + 1}")
            x, valid = decode(x, valid, skip, train=train)
        # The image is not rounded to bfloat16.
        return PartialConv(3, 3, bias=True, dtype=jnp.float32, name="decoder_1")(x, valid, given.pop())[0]


class PartialLayer(nn.Module):
    """Partial convolution, batch normalisation, activation.

    Attributes:
        features: channels of the result.
        kernel_size: side of the kernel.
        stride: 1 or 2.
        normalised: whether there is batch normalisation.
        activation: the last step.
        dtype: of the convolution, and of the result.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    normalised: bool = True
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        valid: Float32[Array, "B H W 1"],
        skip: tuple[Float[Array, "B 2*H 2*W D"], Float32[Array, "B 2*H 2*W 1"]] | None = None,
        *,
        train: bool,
    ) -> tuple[Float[Array, "B h w {self.features}"], Float32[Array, "B h w 1"]]:
        """See `PartialConv`; `train` is whether the normalisation goes by the batch."""
        conv = PartialConv(self.features, self.kernel_size, self.stride, dtype=self.dtype, name="conv")
        x, valid = conv(x, valid, skip)
        if self.normalised:
            x = BatchNorm(name="norm")(x, train=train)
        return self.activation(x).astype(self.dtype), valid


class PartialConv(nn.Module):
    """W^T (X * M) sum(1) / sum(M) + b where a window holds a valid value, 0 where it holds none (Liu et al., eq. 1).

    Sums are over the window and all channels, and count what lies outside of the map as missing. The published PyTorch
    version leaves sum(1) out, so that its outputs are means: its kernels, divided by sum(1) = side^2 C, give the same
    here. A kernel of this formula that is drawn as usual keeps the scale of what passes; one of the other shrinks it to
    below the epsilon of batch normalisation.

    Attributes:
        features: channels of the result.
        kernel_size: side of the kernel.
        stride: 1 or 2.
        bias: whether there is one.
        dtype: of the products; the result is float32.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    bias: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        valid: Float32[Array, "B H W 1"],
        skip: tuple[Float[Array, "B 2*H 2*W D"], Float32[Array, "B 2*H 2*W 1"]] | None = None,
    ) -> tuple[Float32[Array, "B h w {self.features}"], Float32[Array, "B h w 1"]]:
        """Convolves a map, or, with a skip, the map up-sampled by two with the skip behind it.

        Args:
            x: the map.
            valid: 1 where it holds something.
            skip: a map of twice the size, and where that is valid.

        Returns:
            the new map, and where it is valid.
        """
        side, channels = self.kernel_size, x.shape[-1]
        total = channels + (skip[0].shape[-1] if skip else 0)
        kernel = self.param("kernel", _KERNEL_INIT, (side, side, total, self.features))
        kernel = jnp.asarray(kernel, self.dtype)
        strides, around = (self.stride, self.stride), (side // 2, side // 2)
        layout = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

        def convolve(x: jax.Array, valid: jax.Array, kernel: jax.Array, convolution=conv_general_dilated) -> jax.Array:
            masked = (x * valid).astype(self.dtype)
            return convolution(masked, kernel, strides, (around, around), **layout).astype(jnp.float32)

        def count(valid: jax.Array) -> jax.Array:
            window, steps, padding = (1, side, side, 1), (1, *strides, 1), ((0, 0), around, around, (0, 0))
            return jax.lax.reduce_window(valid, 0.0, jax.lax.add, window, steps, padding)

        if skip is None:
            y, seen = convolve(x, valid, kernel), channels * count(valid)
        else:
            y = convolve(x, valid, kernel[:, :, :channels], convolve_upsampled) + convolve(
                *skip, kernel[:, :, channels:]
            )
            above = jnp.repeat(jnp.repeat(valid, 2, axis=1), 2, axis=2)
            seen = channels * count(above) + (total - channels) * count(skip[1])
        some = (seen > 0).astype(jnp.float32)
        y = y * some * (side * side * total / jnp.maximum(seen, 1))
        if self.bias:
            y = y + some * self.param("bias", nn.initializers.zeros, (self.features,)).reshape(1, 1, 1, -1)
        return y, some


class BatchNorm(nn.Module):
    """scale (x - mean) / sqrt(var + 1e-5) + bias, by the batch or by running statistics; see `ParConvUNet`.

    Missing values, which are 0, count as all others do. The running variance takes the unbiased one, as in PyTorch.
    """

    @nn.compact
    def __call__(self, x: Float32[Array, "B H W C"], *, train: bool) -> Float32[Array, "B H W C"]:
        """The normalised map."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        kept = {
            "mean": jax.lax.stop_gradient(self.param("mean", nn.initializers.zeros, shape)),
            "var": jax.lax.stop_gradient(self.param("var", nn.initializers.ones, shape)),
        }
        mean, var = kept["mean"], kept["var"]
        if train:
            mean = x.mean(axis=(0, 1, 2))
            var = jnp.square(x - mean.reshape(1, 1, 1, -1)).mean(axis=(0, 1, 2))
            if self.is_mutable_collection(STATISTICS):
                count = x.size // x.shape[-1]
                seen = {"mean": mean, "var": var * (count / max(count - 1, 1))}
                for name, value in seen.items():
                    new = (1 - _MOMENTUM) * kept[name] + _MOMENTUM * jax.lax.stop_gradient(value)
                    self.put_variable(STATISTICS, name, new)
        mean, factor, bias = (each.reshape(1, 1, 1, -1) for each in (mean, scale * jax.lax.rsqrt(var + _EPSILON), bias))
        return (x - mean) * factor + bias


def with_statistics(params: dict, statistics: dict) -> dict:
    """Parameters with new running statistics, as a call with `train` has put them into `STATISTICS`."""
    return {
        name: with_statistics(value, statistics[name])
        if name in statistics and isinstance(value, dict)
        else statistics.get(name, value)
        for name, value in params.items()
    }


def standardised(image: Float[AnyArray, "B H W 3"]) -> Float32[Array, "B H W 3"]:
    """Less the mean colour of ImageNet, divided by its standard deviation: [0, 1] becomes about [-2, 2.6]."""
    return (jnp.asarray(image) - _as_pixel(HOLE_COLOUR)) / _as_pixel(COLOUR_SPREAD)


def unstandardised(image: Float[AnyArray, "B H W 3"]) -> Float32[Array, "B H W 3"]:
    """The opposite of `standardised`."""
    return jnp.asarray(image) * _as_pixel(COLOUR_SPREAD) + _as_pixel(HOLE_COLOUR)


def _as_pixel(colour: tuple[float, float, float]) -> jax.Array:
    return jnp.asarray(colour, jnp.float32).reshape(1, 1, 1, 3)
