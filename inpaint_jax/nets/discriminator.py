"""The spectral-norm global-local discriminator of Section III-A, and one that judges every patch."""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from inpaint_jax.arrays import AnyArray
from inpaint_jax.nets.convolution import conv_general_dilated
from inpaint_jax.nets.layers import bias_in_float32

_SLOPE = 0.2


class GlobalLocalDiscriminator(nn.Module):
    """D_gl: one branch sees the whole image, the other a crop that holds the square hole; together one logit.

    Every layer is spectrally normalised (Miyato et al. 2018, one power iteration a step), unless a gradient penalty
    is to bound the slope instead (WGAN-GP, Table II). The dense layers of the branches end in LeakyReLU, without which
    they and the last one would be one linear map.

    Attributes:
        width: channels of the first layer (the paper's ancestors: 64); the deepest have eight times as many.
        features: channels that each branch hands to the last layer.
        dtype: of the computation; normalisation and logit are float32.
        spectral_norm: whether to normalise. Without, there is no `batch_stats`; parameters have the same names.
    """

    width: int = 64
    features: int = 1024
    dtype: DTypeLike = jnp.float32
    spectral_norm: bool = True

    @nn.compact
    def __call__(
        self, image: Float[Array, "B H W 3"], crop: Float[Array, "B h w 3"], *, update_stats: bool
    ) -> Float[Array, "B"]:
        """How real each image looks: to the hinge loss above 1 is sure of real, below -1 sure of fake.

        To WGAN-GP only differences mean something.

        Args:
            image: in [0, 1]; H and W are fixed by the first call.
            crop: a part of the same image; see `local_crops`.
            update_stats: whether to carry the power iteration on (in `batch_stats`); True in training steps of D.

        Returns:
            logits in float32. After training with the hinge loss, their sigmoid reads as a probability.
        """
        w = self.width
        whole = self._branch(image, (w, 2 * w, 4 * w, 8 * w, 8 * w, 8 * w), "global", update_stats)
        part = self._branch(crop, (w, 2 * w, 4 * w, 8 * w, 8 * w), "local", update_stats)
        both = jnp.concatenate([whole, part], axis=-1).astype(jnp.float32)
        return self._normalised(nn.Dense(1, name="logit"), both, update_stats)[:, 0]

    def _branch(self, x: jax.Array, channels: Sequence[int], name: str, update_stats: bool) -> jax.Array:
        x = 2 * x - 1
        for i, width in enumerate(channels):
            conv = nn.Conv(
                width,
                (5, 5),
                strides=2,
                conv_general_dilated=conv_general_dilated,
                promote_dtype=bias_in_float32,
                dtype=self.dtype,
                name=f"{name}_conv_{i}",
            )
            x = nn.leaky_relu(self._normalised(conv, x, update_stats).astype(self.dtype), _SLOPE)
        dense = nn.Dense(self.features, dtype=self.dtype, name=f"{name}_dense")
        return nn.leaky_relu(self._normalised(dense, x.reshape(len(x), -1), update_stats), _SLOPE)

    def _normalised(self, layer: nn.Module, x: jax.Array, update_stats: bool) -> jax.Array:
        if not self.spectral_norm:
            return layer(x)
        return nn.SpectralNorm(layer, name=f"{layer.name}_norm")(x, update_stats=update_stats)


class PatchDiscriminator(nn.Module):
    """A logit for every cell of 8 x 8 pixels, by convolutions alone, as SN-PatchGAN (Yu et al. 2019); told the hole.

    Three 5 x 5 convolutions with stride 2 and two 3 x 3 ones, all spectrally normalised: a logit sees 61 x 61 pixels
    around its cell. Yu et al. have six with stride 2, for images of 256 x 256 and larger.

    Attributes:
        width: channels of the first layer (Yu et al.: 64); the deepest have four times as many.
        dtype: of the computation; normalisation and logits are float32.
    """

    STRIDE: ClassVar[int] = 8

    width: int = 64
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[AnyArray, "B H W 3"], mask: Shaped[AnyArray, "B H W"], *, update_stats: bool
    ) -> tuple[Float[Array, "B h w"], list[Float[Array, "..."]]]:
        """How real each cell looks.

        Args:
            image: in [0, 1].
            mask: of the hole, also with a photo that has none.
            update_stats: whether to carry the power iteration on (in `batch_stats`).

        Returns:
            logits in float32, a STRIDE-th of the image's size, rounded up; and the features [B, _, _, C] of every
            layer before them.
        """
        hole = (mask > 0.5).astype(image.dtype)[..., None]
        x, features = jnp.concatenate([2 * image - 1, hole], axis=-1), []
        for i, (factor, side, stride) in enumerate([(1, 5, 2), (2, 5, 2), (4, 5, 2), (4, 3, 1)]):
            conv = self._conv(factor * self.width, side, stride, f"conv_{i}", self.dtype)
            x = nn.SpectralNorm(conv, name=f"conv_{i}_norm")(x, update_stats=update_stats).astype(self.dtype)
            x = nn.leaky_relu(x, _SLOPE)
            features.append(x)
        logit = self._conv(1, 3, 1, "logit", jnp.float32)
        x = nn.SpectralNorm(logit, name="logit_norm")(x.astype(jnp.float32), update_stats=update_stats)
        return x[..., 0], features

    def _conv(self, channels: int, side: int, stride: int, name: str, dtype: DTypeLike) -> nn.Conv:
        size = (side, side)
        return nn.Conv(
            channels,
            size,
            strides=stride,
            conv_general_dilated=conv_general_dilated,
            promote_dtype=bias_in_float32,
            dtype=dtype,
            name=name,
        )


def local_crops(
    image: Shaped[AnyArray, "B H W C"], corner: Int[AnyArray, "B 2"], size: int
) -> Shaped[Array, "B {size} {size} C"]:
    """Cuts one square out of every image.

    Args:
        image: to cut from.
        corner: row and column of the top left pixel of each crop.
        size: side of the crops, at most H and W.
    """
    return jax.vmap(lambda one, at: jax.lax.dynamic_slice(one, (at[0], at[1], 0), (size, size, one.shape[-1])))(
        image, corner
    )
