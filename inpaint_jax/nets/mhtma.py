"""Multi-head temperature masked self-attention (MHTMA), Section III-C and Fig. 3."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from inpaint_jax.nets.attention import masked_patch_attention
from inpaint_jax.nets.temperature import TemperatureNetwork


class MHTMA(nn.Module):
    """K masked self-attentions in parallel, each in its own embedding and at its own temperature (eq. 12).

    Attributes:
        heads: K; must divide the channels of the input.
        patch_size: s, side of the patches that are compared and copied.
        dtype: of the computation; scores and softmax are float32.
    """

    heads: int = 2
    patch_size: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, features: jax.Array, mask: jax.Array, needed: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Refines a feature map with its own known patches.

        Args:
            features: [B, H, W, C] F_in.
            mask: [B, H, W], 1 = missing, at the resolution of the features.
            needed: [B, H, W], 1 where F_out will be looked at; see `masked_patch_attention`.

        Returns:
            F_out [B, H, W, C], and the temperatures [B, heads] float32.

        Raises:
            ValueError: the heads do not divide the channels.
        """
        channels = features.shape[-1]
        if channels % self.heads:
            raise ValueError(
                f"{channels} channels do not divide over {self.heads} heads; choose another width or number."
            )
        temperatures = TemperatureNetwork(self.heads, dtype=self.dtype, name="temperature")(features)
        refined = []
        for head in range(self.heads):
            embedded = nn.Dense(channels // self.heads, dtype=self.dtype, name=f"embedding_{head}")(features)  # F_dr
            refined.append(
                masked_patch_attention(embedded, mask, temperatures[:, head], patch_size=self.patch_size, needed=needed)
            )
        return jnp.concatenate(refined, axis=-1), temperatures
