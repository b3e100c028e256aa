"""Multi-head temperature masked self-attention (MHTMA), Section III-C and Fig. 3, and the siblings it is compared with.

All are modules (features, mask) -> (refined features, temperatures) that may stand in each other's place:

    mhtma       K heads, each in its own embedding and at its own learned temperature: the paper's
    single      one head of it: Algorithm 1
    contextual  contextual attention at the constant temperature 1/10: Algorithm 2
    atma        its matching at K learned temperatures that may fall below zero: the paper's reference [7]
"""

from collections.abc import Collection

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from inpaint_jax.nets import contextual
from inpaint_jax.nets.attention import masked_patch_attention
from inpaint_jax.nets.contextual import contextual_attention
from inpaint_jax.nets.layers import bias_in_float32
from inpaint_jax.nets.temperature import ACTIVATIONS, TemperatureNetwork

KINDS = ("mhtma", "single", "contextual", "atma")


def make_attention(
    kind: str,
    *,
    heads: int,
    patch_size: int,
    constant_temperature: float | None = None,
    activation: str | None = None,
    dtype: DTypeLike = jnp.float32,
    name: str | None = None,
) -> nn.Module:
    """The attention of a generator, by name.

    Args:
        kind: one of `KINDS`.
        heads: K; "single" and "contextual" have one, whatever is said here.
        patch_size: s.
        constant_temperature: of all heads and images; learned by default (1/10 for "contextual").
        activation: the last one of the temperature network; "softplus" by default, "leaky_relu" for "atma".
        dtype: of the computation.
        name: of the module.

    Returns:
        a module (features, mask) -> (refined features, temperatures), see `MHTMA`.

    Raises:
        ValueError: the kind or the activation is unknown, or the constant temperature is not positive.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown attention {kind!r}; choose one of {', '.join(KINDS)}.")
    if activation not in (None, *ACTIVATIONS):
        raise ValueError(f"Unknown temperature activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}.")
    if constant_temperature is not None and not constant_temperature > 0:
        raise ValueError(f"A constant temperature must be positive, not {constant_temperature}.")
    if kind == "contextual" and constant_temperature is None:
        constant_temperature = contextual.TEMPERATURE
    module = {"mhtma": MHTMA, "single": MHTMA, "contextual": ATMA, "atma": ATMA}[kind]
    return module(
        heads=head_count(kind, heads),
        patch_size=patch_size,
        constant_temperature=constant_temperature,
        activation=activation or ("leaky_relu" if kind == "atma" else "softplus"),
        dtype=dtype,
        name=name,
    )


def head_count(kind: str, heads: int) -> int:
    """How many heads an attention of this kind has, of which `heads` are asked for."""
    return 1 if kind in ("single", "contextual") else heads


class MHTMA(nn.Module):
    """K masked self-attentions in parallel, each in its own embedding and at its own temperature (eq. 12).

    Attributes:
        heads: K; must divide the channels of the input.
        patch_size: s, side of the patches that are compared and copied.
        constant_temperature: of all heads, in place of the temperature network.
        activation: the last one of the temperature network.
        dtype: of the computation; scores and softmax are float32.
    """

    heads: int = 2
    patch_size: int = 3
    constant_temperature: float | None = None
    activation: str = "softplus"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B H W C"],
        mask: Shaped[Array, "B H W"],
        needed: Shaped[Array, "B H W"] | None = None,
        *,
        temperatures: Float[Array, "B {self.heads}"] | None = None,
        heads_off: Collection[int] = (),
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B {self.heads}"]]:
        """Refines a feature map with its own known patches.

        Args:
            features: F_in.
            mask: 1 = missing, at the resolution of the features.
            needed: 1 where F_out will be looked at; see `masked_patch_attention`.
            temperatures: to use instead of the module's own, for looking into a trained one.
            heads_off: heads whose share of F_out is zero.

        Returns:
            F_out, and the temperatures in float32.

        Raises:
            ValueError: the heads do not divide the channels, or the given temperatures are not one for each.
        """
        channels = features.shape[-1]
        if channels % self.heads:
            raise ValueError(
                f"{channels} channels do not divide over {self.heads} heads; choose another width or number."
            )
        temperatures = _temperatures(self, features, temperatures)
        refined = []
        for head in range(self.heads):
            reduce = nn.Dense(
                channels // self.heads, promote_dtype=bias_in_float32, dtype=self.dtype, name=f"embedding_{head}"
            )
            embedded = reduce(features).astype(self.dtype)  # F_dr
            self.sow("intermediates", "embedded", embedded)
            refined.append(
                jnp.zeros_like(embedded)
                if head in heads_off
                else masked_patch_attention(
                    embedded, mask, temperatures[:, head], patch_size=self.patch_size, needed=needed
                )
            )
        self.sow("intermediates", "mask", mask)
        return jnp.concatenate(refined, axis=-1), temperatures


class ATMA(nn.Module):
    """Contextual attention at K temperatures, after the paper's reference [7]; with one, constant, it is plain CA.

    The paper says of ATMA that it matches as contextual attention does, on the features themselves, with queries of
    any length, and learns several temperatures behind a LeakyReLU. How it joins the heads is not said: here a
    channel-wise fully connected layer brings the K maps back to C channels, so that the rest of the network stays.

    Attributes:
        heads: K.
        patch_size: s.
        constant_temperature: of all heads, in place of the temperature network.
        activation: the last one of the temperature network.
        dtype: of the computation; scores and softmax are float32.
    """

    heads: int = 2
    patch_size: int = 3
    constant_temperature: float | None = None
    activation: str = "leaky_relu"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B H W C"],
        mask: Shaped[Array, "B H W"],
        needed: Shaped[Array, "B H W"] | None = None,
        *,
        temperatures: Float[Array, "B {self.heads}"] | None = None,
        heads_off: Collection[int] = (),
    ) -> tuple[Float[Array, "B H W C"], Float[Array, "B {self.heads}"]]:
        """As of `MHTMA`; `needed` saves nothing here."""
        temperatures = _temperatures(self, features, temperatures)
        refined = [
            jnp.zeros_like(features)
            if head in heads_off
            else contextual_attention(features, mask, temperatures[:, head], patch_size=self.patch_size)
            for head in range(self.heads)
        ]
        if self.heads == 1:
            return refined[0], temperatures
        together = jnp.concatenate(refined, axis=-1)
        fuse = nn.Dense(features.shape[-1], promote_dtype=bias_in_float32, dtype=self.dtype, name="fusion")
        return fuse(together).astype(self.dtype), temperatures


def _temperatures(
    module: MHTMA | ATMA, features: Float[Array, "B H W C"], given: Float[Array, "B {module.heads}"] | None
) -> Float[Array, "B {module.heads}"]:
    """Learned unless given or constant."""
    if given is not None:
        if given.shape != (one_each := (len(features), module.heads)):
            raise ValueError(f"temperatures must be one for each image and head, {one_each}, not {given.shape}.")
        return given
    if module.constant_temperature is not None:
        return jnp.full((len(features), module.heads), module.constant_temperature, jnp.float32)
    network = TemperatureNetwork(module.heads, activation=module.activation, dtype=module.dtype, name="temperature")
    return network(features)
