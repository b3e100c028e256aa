"""The two-stage generator of Section III-A (Fig. 2): coarse completion, then refinement along two branches."""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import no_type_check

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Shaped

from inpaint_jax.arrays import AnyArray
from inpaint_jax.nets.attention import downsample_mask
from inpaint_jax.nets.fill import FILLS
from inpaint_jax.nets.guess import around
from inpaint_jax.nets.layers import GatedConv, UpsampledGatedConv
from inpaint_jax.nets.mhtma import head_count, make_attention

# The networks halve the size twice.
_STRIDE = 4
_DILATIONS = (2, 4, 8, 16)

# Cells of a quarter of the size over which a pixel sees the output of the attention: three convolutions there, two at
# half the size, three at the full size make 4.75.
_REACH = 5

# What the two stages give: images, as in the paper, or what is to be added to the fill inside the hole.
OUTPUTS = ("image", "residual")

# What can be switched off in the refinement (Fig. 8), besides head_0, head_1, ...
_BRANCHES = ("convolution", "attention")


@no_type_check  # transformations of jax put other things in the places of its arrays
@flax.struct.dataclass
class GeneratorOutputs:
    """What the generator hands back; images are float32 in [0, 1].

    Attributes:
        filled: what the networks start from: the given pixels, and the fill in the hole.
        coarse: I_c, the first stage's image.
        refined: I_out, the second stage's image; everywhere its own, or with residual outputs the given
            pixels outside the hole.
        completed: the given pixels, and `refined` in the hole: what users, metrics and critic see.
        temperatures: of the attention heads; K may be 0.
    """

    filled: Float32[Array, "B H W 3"]
    coarse: Float32[Array, "B H W 3"]
    refined: Float32[Array, "B H W 3"]
    completed: Float32[Array, "B H W 3"]
    temperatures: Float32[Array, "B K"]


class Generator(nn.Module):
    """image, mask (and sketch) -> completed image, by a coarse and a refinement network in cascade.

    Attributes:
        width: w, channels of the first layer; all others are multiples of it.
        heads: K of the attention.
        patch_size: s of the attention.
        attention: which one, see `mhtma.make_attention`.
        constant_temperature: of its heads; learned by default.
        temperature_activation: the last one of the temperature network; that of the attention by default.
        fill: what the hole holds at first, one of `fill.FILLS`.
        output: of both stages, one of `OUTPUTS`: "image", or "residual", which is added to what is in the hole
            already. A residual starts near zero, and so near the fill.
        skips: whether the decoders also see the encoders' maps of full and half the size, as in a U-Net. Without them
            all that they know has gone through a quarter of the size.
        dtype: of the computation; parameters, temperatures and outputs are float32.
    """

    width: int = 24
    heads: int = 2
    patch_size: int = 3
    attention: str = "mhtma"
    constant_temperature: float | None = None
    temperature_activation: str | None = None
    fill: str = "constant"
    output: str = "image"
    skips: bool = False
    dtype: DTypeLike = jnp.float32

    @property
    def temperature_count(self) -> int:
        """K of the outputs' temperatures."""
        return head_count(self.attention, self.heads)

    @nn.compact
    def __call__(
        self,
        image: Float[AnyArray, "B H W 3"],
        mask: Shaped[AnyArray, "B H W"],
        sketch: Shaped[AnyArray, "B H W"] | None = None,
        margin: int | None = None,
        *,
        without: Collection[str] = (),
        temperatures: Float[Array, "B K"] | None = None,
        guess: Float[AnyArray, "B H W 3"] | None = None,
    ) -> GeneratorOutputs:
        """Fills the hole of each image.

        Args:
            image: in [0, 1], any H and W. What it holds inside the hole is never looked at.
            mask: 1 (or True) = missing, a mask of its own for every sample.
            sketch: 1 = line, for a model trained with sketches; only its part in the hole is used.
            margin: how many pixels around the hole `refined` is looked at; None = everywhere. `completed` needs none.
                On large images the attention then leaves out what is far from the hole.
            without: what the refinement is to do without, to see what it is good for (Fig. 8): "convolution",
                "attention", "head_0", "head_1", ...; their features are zero. Which head is the cold one can differ
                from image to image, and `temperatures` of the outputs tells.
            temperatures: to use instead of the learned ones.
            guess: in [0, 1], what the hole may hold, to start from instead of the fill; see `guess.around`.

        Returns:
            GeneratorOutputs.

        Raises:
            ValueError: the shapes do not fit together, the width is odd, there is no such fill or output, or nothing
                of a name in `without`.
        """
        without = (without,) if isinstance(without, str) else without
        if self.width < 2 or self.width % 2:
            raise ValueError(f"width must be an even number of channels, not {self.width}.")
        for name, value, choices in (("fill", self.fill, FILLS), ("output", self.output, OUTPUTS)):
            if value not in choices:
                raise ValueError(f"{name} must be {' or '.join(choices)}, not {value!r}.")
        check_images(image, mask, sketch)
        _, height, width, _ = image.shape
        hole = jnp.asarray(mask > 0.5, jnp.float32)[..., None]
        filled = FILLS[self.fill](image, mask) if guess is None else around(guess, image, mask)
        guides = hole if sketch is None else jnp.concatenate([hole, (sketch > 0.5)[..., None] * hole], axis=-1)

        smallest = _STRIDE * self.patch_size  # one patch must fit into the map that the attention sees
        start, guides = (pad_to_multiples(x, _STRIDE, smallest) for x in (filled, guides))
        start = 2 * start - 1
        missing = guides[..., :1]

        def stage(given: jax.Array, output: jax.Array) -> jax.Array:
            if self.output == "image":
                return jnp.tanh(output)
            # Only the hole: elsewhere there is nothing to add, and no reason to learn that.
            return jnp.clip(given + missing * output, -1, 1)

        small = self.output == "residual"
        coarse = CoarseNetwork(self.width, small=small, skips=self.skips, dtype=self.dtype, name="coarse")(
            jnp.concatenate([start, guides], axis=-1)
        )
        coarse = stage(start, coarse)
        # The refinement reads the coarse result inside the hole and the given pixels outside it. The gradient of
        # the refinement's losses flows on into the coarse network.
        cascade = jnp.where(missing > 0, coarse, start)
        attention = partial(
            make_attention,
            self.attention,
            heads=self.heads,
            patch_size=self.patch_size,
            constant_temperature=self.constant_temperature,
            activation=self.temperature_activation,
            dtype=self.dtype,
            name="mhtma" if self.attention == "single" else self.attention,  # Algorithm 1 is MHTMA with one head
        )
        refinement = RefinementNetwork(
            self.width,
            attention,
            self.temperature_count,
            small=small,
            skips=self.skips,
            dtype=self.dtype,
            name="refinement",
        )
        refined, used = refinement(
            jnp.concatenate([cascade, guides], axis=-1), missing[..., 0], margin, without, temperatures
        )
        refined = stage(cascade, refined)

        coarse, refined = ((image[:, :height, :width] + 1) / 2 for image in (coarse, refined))
        completed = jnp.where(hole > 0, refined, filled)
        return GeneratorOutputs(filled, coarse, refined, completed, used)


class CoarseNetwork(nn.Module):
    """G_c: encoder, dilated middle, decoder, all of gated convolutions.

    Attributes:
        width: w.
        small: whether outputs start near zero.
        skips: see `Generator`.
        dtype: of the computation.
    """

    width: int
    small: bool = False
    skips: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float32[Array, "B H W 3"]:
        """What `Generator` makes an image of; C is 4, or 5 with a sketch, H and W are multiples of 4."""
        w, conv = self.width, partial(GatedConv, dtype=self.dtype)
        x = full = conv(w, kernel_size=5)(x)
        x = conv(2 * w, stride=2)(x)
        x = half = conv(2 * w)(x)
        x = conv(4 * w, stride=2)(x)
        x = conv(4 * w)(x)
        x = conv(4 * w)(x)
        for dilation in _DILATIONS:
            x = conv(4 * w, dilation=dilation)(x)
        x = conv(4 * w)(x)
        x = conv(4 * w)(x)
        skips = (half, full) if self.skips else None
        return Decoder(w, small=self.small, dtype=self.dtype, name="decoder")(x, skips)


class RefinementNetwork(nn.Module):
    """G_r: a convolution branch for local texture, an attention branch for distant context, one decoder.

    Attributes:
        width: w.
        attention: makes the attention module, see `mhtma.make_attention`.
        heads: K of the attention.
        small: whether outputs start near zero.
        skips: see `Generator`; they come from the convolution branch.
        dtype: of the computation.
    """

    width: int
    attention: Callable[[], nn.Module]
    heads: int
    small: bool = False
    skips: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        hole: Float[Array, "B H W"],
        margin: int | None = None,
        without: Collection[str] = (),
        temperatures: Float[Array, "B K"] | None = None,
    ) -> tuple[Float32[Array, "B H W 3"], Float32[Array, "B K"]]:
        """Refines the coarse result.

        Args:
            x: image in [-1, 1] with mask (and sketch); H and W multiples of 4.
            hole: 1 = missing.
            margin: see `Generator`.
            without: likewise.
            temperatures: likewise.

        Returns:
            what `Generator` makes an image of, and the temperatures.
        """
        texture, *skips = ConvolutionBranch(self.width, dtype=self.dtype, name="convolution_branch")(x)
        branch = AttentionBranch(self.width, self.attention, dtype=self.dtype, name="attention_branch")
        context, used = branch(x, hole, margin, without, temperatures)
        if unknown := set(without) - {*_BRANCHES, *(f"head_{head}" for head in range(self.heads))}:
            raise ValueError(
                f"There is no {min(unknown)!r} to do without; it is convolution, attention, or head_0 to "
                f"head_{self.heads - 1}."
            )
        if "convolution" in without:
            texture, *skips = (jnp.zeros_like(maps) for maps in (texture, *skips))
        if "attention" in without:
            context = jnp.zeros_like(context)
        both = jnp.concatenate([texture, context], axis=-1)
        both = GatedConv(4 * self.width, dtype=self.dtype, name="fusion")(both)
        decoder = Decoder(self.width, small=self.small, dtype=self.dtype, name="decoder")
        return decoder(both, skips if self.skips else None), used


class ConvolutionBranch(nn.Module):
    """The encoder of the refinement network that gathers local texture.

    Attributes:
        width: w.
        dtype: of the computation.
    """

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"]
    ) -> tuple[
        Float[Array, "B H//4 W//4 4*{self.width}"],
        Float[Array, "B H//2 W//2 2*{self.width}"],
        Float[Array, "B H W {self.width}"],
    ]:
        """The texture, and maps for skips."""
        w, conv = self.width, partial(GatedConv, dtype=self.dtype)
        x = full = conv(w, kernel_size=5)(x)
        x = conv(w, stride=2)(x)
        x = half = conv(2 * w)(x)
        x = conv(2 * w, stride=2)(x)
        x = conv(4 * w)(x)
        x = conv(4 * w)(x)
        for dilation in _DILATIONS:
            x = conv(4 * w, dilation=dilation)(x)
        return x, half, full


class AttentionBranch(nn.Module):
    """The encoder of the refinement network that copies from distant context, by MHTMA or a sibling.

    Attributes:
        width: w.
        attention: makes the attention module.
        dtype: of the computation.
    """

    width: int
    attention: Callable[[], nn.Module]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        hole: Float[Array, "B H W"],
        margin: int | None = None,
        without: Collection[str] = (),
        temperatures: Float[Array, "B K"] | None = None,
    ) -> tuple[Float[Array, "B H//4 W//4 4*{self.width}"], Float32[Array, "B K"]]:
        """The context, and the temperatures."""
        w, conv = self.width, partial(GatedConv, dtype=self.dtype)
        x = conv(w, kernel_size=5)(x)
        x = conv(w, stride=2)(x)
        x = conv(2 * w)(x)
        x = conv(4 * w, stride=2)(x)
        x = conv(4 * w)(x)
        x = conv(4 * w, activation=nn.relu)(x)
        missing = downsample_mask(hole, _STRIDE)
        needed = None if margin is None else _dilate(missing, _REACH + -(-margin // _STRIDE))
        off = [int(name.removeprefix("head_")) for name in without if name.removeprefix("head_").isdecimal()]
        x, used = self.attention()(x, missing, needed, temperatures=temperatures, heads_off=off)
        x = conv(4 * w)(x)
        x = conv(4 * w)(x)
        return x, used


class Decoder(nn.Module):
    """From features at a quarter of the size to an image; both stages end in one.

    Attributes:
        width: w.
        small: whether outputs start near zero.
        dtype: of the convolutions.
    """

    width: int
    small: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w C"], skips: Sequence[Float[Array, "B ..."]] | None = None
    ) -> Float32[Array, "B 4*h 4*w 3"]:
        """An image that is not bounded; the skips are maps of half and of the full size."""
        w = self.width
        x = UpsampledGatedConv(2 * w, dtype=self.dtype, name="up_0")(x)
        x = jnp.concatenate([x, skips[0]], axis=-1) if skips else x
        x = GatedConv(2 * w, dtype=self.dtype, name="gated_0")(x)
        x = UpsampledGatedConv(w, dtype=self.dtype, name="up_1")(x)
        x = jnp.concatenate([x, skips[1]], axis=-1) if skips else x
        x = GatedConv(w // 2, dtype=self.dtype, name="gated_1")(x)
        init = nn.initializers.variance_scaling(1e-4 if self.small else 1.0, "fan_in", "truncated_normal")
        # The image is not rounded to bfloat16, nor is what its loss says of it.
        return nn.Conv(3, (3, 3), kernel_init=init, dtype=jnp.float32, name="image")(x)


def pad_to_multiples(x: Float[Array, "B H W C"], stride: int, smallest: int) -> Float[Array, "B h w C"]:
    """Pads by reflection, below and right, to multiples of the networks' stride and at least to `smallest`."""
    _, height, width, _ = x.shape
    below, right = (max(smallest, side + -side % stride) - side for side in (height, width))
    return jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)), mode="reflect")


def _dilate(mask: Float[Array, "B H W"], cells: int) -> Float[Array, "B H W"]:
    """1 where a cell of the mask is 1 that is at most so many cells away in both directions."""
    window = (1, 2 * cells + 1, 2 * cells + 1)
    return jax.lax.reduce_window(mask, 0.0, jax.lax.max, window, (1, 1, 1), "SAME")


def check_images(image: AnyArray, mask: AnyArray, sketch: AnyArray | None = None) -> None:
    """Refuses what is not [B, H, W, 3], with [B, H, W] beside it.

    Raises:
        ValueError: names what does not fit.
    """
    if image.ndim != 4 or image.shape[-1] != 3:
        raise ValueError(f"image must be [batch, height, width, 3], not of shape {image.shape}.")
    for name, guide in (("mask", mask), ("sketch", sketch)):
        if guide is not None and guide.shape != image.shape[:3]:
            raise ValueError(f"{name} must be [batch, height, width] = {image.shape[:3]}, not {guide.shape}.")
