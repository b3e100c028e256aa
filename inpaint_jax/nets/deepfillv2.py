"""DeepFillv2's generator and discriminator (Yu et al. 2019, "Free-form image inpainting with gated convolution").

The generator is what the paper's descends from: without MHTMA, without the mask in the second stage, with one more
convolution where the branches meet. Both networks are written after the PyTorch versions that trained weights were
published for, of which there are two, with the same layers:

    pt    zeros around a map on both sides alike; the attention takes every second pixel, and fuses
    tf    for weights that were converted from TensorFlow: SAME padding; evenly spaced pixels, no fuse
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
from inpaint_jax.nets.deepfillv2_attention import deepfillv2_attention
from inpaint_jax.nets.generator import GeneratorOutputs, check_images, pad_to_multiples
from inpaint_jax.nets.layers import GatedConv, UpsampledGatedConv, bias_in_float32

VARIANTS = ("pt", "tf")

# The networks halve the size twice, the attention once more.
_STRIDE = 8
_DILATIONS = (2, 4, 8, 16)
_SLOPE = 0.2

# Kaiming's, for the ReLU and by the outputs; and PyTorch's own for what is not gated.
_GATED_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "uniform")
_PLAIN_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class DeepFillV2(nn.Module):
    """image, mask -> completed image; called as `Generator` is.

    Attributes:
        width: channels of the first layer; all others are multiples of it.
        variant: one of `VARIANTS`.
        shared_mask: whether the attention takes the batch's first mask for all of it, as the published code does. Only
            to compare with that; by default every sample has its own.
        dtype: of the computation; parameters and outputs are float32.
    """

    width: int = 24
    variant: str = "pt"
    shared_mask: bool = False
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
    ) -> GeneratorOutputs:
        """Fills the hole of each image.

        Args:
            image: in [0, 1], any H and W. What it holds inside the hole is never looked at; the networks see grey.
            mask: 1 (or True) = missing.
            sketch: there is none.
            margin: saves nothing here.
            without: nothing.
            temperatures: there are none.
            guess: there is none.

        Returns:
            GeneratorOutputs.

        Raises:
            ValueError: the shapes do not fit together, there is no such variant, or more is given than image and mask.
        """
        if self.variant not in VARIANTS:
            raise ValueError(f"variant must be {' or '.join(VARIANTS)}, not {self.variant!r}.")
        if without or any(given is not None for given in (sketch, temperatures, guess)):
            raise ValueError(
                "DeepFillv2 takes an image and its mask: no sketch, no temperatures, nothing to do without."
            )
        check_images(image, mask)
        batch, height, width, _ = image.shape
        hole = jnp.asarray(mask > 0.5, jnp.float32)[..., None]
        filled = jnp.where(hole > 0, 0.5, image.astype(jnp.float32))
        start, missing = (pad_to_multiples(x, _STRIDE, _STRIDE) for x in (filled, hole))
        start = 2 * start - 1

        conv = partial(GatedConv, centred=self.variant == "pt", kernel_init=_GATED_INIT, dtype=self.dtype)
        coarse = CoarseStage(self.width, conv, self.dtype, name="coarse")(
            jnp.concatenate([start, jnp.ones_like(missing), missing], axis=-1)
        )
        cascade = jnp.where(missing > 0, coarse, start)
        attended = jnp.broadcast_to(missing[:1], missing.shape) if self.shared_mask else missing
        attend = partial(
            deepfillv2_attention,
            mask=attended[..., 0],
            fuse=self.variant == "pt",
            align_corners=self.variant == "tf",
        )
        refined = RefinementStage(self.width, conv, self.dtype, name="refinement")(cascade, attend)

        coarse, refined = ((x[:, :height, :width] + 1) / 2 for x in (coarse, refined))
        completed = jnp.where(hole > 0, refined, filled)
        return GeneratorOutputs(filled, coarse, refined, completed, jnp.zeros((batch, 0)))


class CoarseStage(nn.Module):
    """Encoder, dilated middle, decoder.

    Attributes:
        width: of the first layer.
        conv: makes the gated convolutions.
        dtype: of the others.
    """

    width: int
    conv: Callable[..., nn.Module]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 5"]) -> Float32[Array, "B H W 3"]:
        """An image in [-1, 1]; H and W are multiples of 8."""
        x = Encoder(self.width, (1, 2, 2, 4, 4), self.conv, name="encoder")(x)
        for i, dilation in enumerate((1, *_DILATIONS, 1, 1)):
            x = self.conv(4 * self.width, dilation=dilation, name=f"middle_{i}")(x)
        return Decoder(self.width, self.conv, self.dtype, name="decoder")(x)


class RefinementStage(nn.Module):
    """A convolution branch and an attention branch, then a decoder.

    Attributes:
        width: of the first layers.
        conv: makes the gated convolutions.
        dtype: of the others.
    """

    width: int
    conv: Callable[..., nn.Module]
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W 3"], attend: Callable[[jax.Array], jax.Array]
    ) -> Float32[Array, "B H W 3"]:
        """An image in [-1, 1].

        Args:
            x: the coarse image in the hole, the given one around it, in [-1, 1]; H and W are multiples of 8.
            attend: the attention, of maps of a quarter of the size.
        """
        w = self.width
        texture = Encoder(w, (1, 1, 2, 2, 4), self.conv, name="texture_encoder")(x)
        for i, dilation in enumerate((1, *_DILATIONS)):
            texture = self.conv(4 * w, dilation=dilation, name=f"texture_{i}")(texture)
        context = Encoder(w, (1, 1, 2, 4, 4), self.conv, name="context_encoder")(x)
        context = attend(self.conv(4 * w, activation=nn.relu, name="context_0")(context))
        for i in (1, 2):
            context = self.conv(4 * w, name=f"context_{i}")(context)
        x = jnp.concatenate([texture, context], axis=-1)
        for i in range(2):
            x = self.conv(4 * w, name=f"joint_{i}")(x)
        return Decoder(w, self.conv, self.dtype, name="decoder")(x)


class Encoder(nn.Module):
    """Five gated convolutions, of which the second and the fourth halve the size.

    Attributes:
        width: of the first layer.
        channels: of each layer, in widths.
        conv: makes the convolutions.
    """

    width: int
    channels: tuple[int, int, int, int, int]
    conv: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H//4 W//4 {self.channels[-1]}*{self.width}"]:
        """The map of a quarter of the size."""
        for i, factor in enumerate(self.channels):
            x = self.conv(
                factor * self.width, kernel_size=3 if i else 5, stride=2 if i in (1, 3) else 1, name=f"conv_{i}"
            )(x)
        return x


class Decoder(nn.Module):
    """From features at a quarter of the size to an image; both stages end in one.

    Attributes:
        width: of the first layer of the network.
        conv: makes the gated convolutions.
        dtype: of the others.
    """

    width: int
    conv: Callable[..., nn.Module]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float32[Array, "B 4*h 4*w 3"]:
        """An image in [-1, 1]."""
        up = partial(UpsampledGatedConv, kernel_init=_GATED_INIT, dtype=self.dtype)
        w = self.width
        x = up(2 * w, name="up_0")(x)
        x = self.conv(2 * w, name="conv_0")(x)
        x = up(w, name="up_1")(x)
        x = self.conv(w // 2, name="conv_1")(x)
        return jnp.tanh(_plain_conv(x, 3, 3, 1, "SAME", jnp.float32, "image")(x.astype(jnp.float32)))


class DeepFillV2Discriminator(nn.Module):
    """Six spectrally normalised 5 x 5 convolutions with stride 2, told the hole: SN-PatchGAN.

    Every element of the last map is a score. The published code divides the stored kernels by their norms at every
    call, in evaluation too. Here they are divided for the call alone: the scores are the same, since a kernel that was
    divided has the same direction, and the gradient takes account of the norm (Miyato et al. 2018).

    Attributes:
        width: channels of the first layer; the deepest have four times as many.
        variant: as the generator's.
        dtype: of the computation; normalisation and scores are float32.
    """

    width: int = 64
    variant: str = "pt"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[AnyArray, "B H W 3"], mask: Shaped[AnyArray, "B H W"], *, update_stats: bool
    ) -> Float32[Array, "B h w 4*{self.width}"]:
        """How real each part of an image looks: above 1 is sure of real, below -1 sure of completed.

        Args:
            image: in [0, 1].
            mask: of the hole, also with a photo that has none.
            update_stats: whether to carry the power iteration on (in `batch_stats`).

        Returns:
            scores at a 64th of the image's size, rounded up.
        """
        hole = (mask > 0.5).astype(jnp.float32)[..., None]
        x = jnp.concatenate([2 * image - 1, hole], axis=-1)
        for i, factor in enumerate((1, 2, 4, 4, 4, 4)):
            padding = 2 if self.variant == "pt" else "SAME"
            conv = _plain_conv(x, factor * self.width, 5, 2, padding, self.dtype, f"conv_{i}")
            x = nn.SpectralNorm(conv, name=f"conv_{i}_norm")(x, update_stats=update_stats)
            x = nn.leaky_relu(x.astype(self.dtype), _SLOPE)
        return x.astype(jnp.float32)


def _plain_conv(
    x: jax.Array, features: int, side: int, stride: int, padding: int | str, dtype: DTypeLike, name: str
) -> nn.Conv:
    """A convolution of x, not gated, that starts as PyTorch's do: kernel and bias within 1 / sqrt(fan_in) of 0."""
    bound = (side * side * x.shape[-1]) ** -0.5
    return nn.Conv(
        features,
        (side, side),
        strides=stride,
        padding=padding,
        kernel_init=_PLAIN_INIT,
        bias_init=lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound),
        conv_general_dilated=conv_general_dilated,
        promote_dtype=bias_in_float32,
        dtype=dtype,
        name=name,
    )
