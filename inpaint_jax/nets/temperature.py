"""The temperature network of Section III-D (Fig. 4): from a feature map to one temperature per image and head."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from inpaint_jax.nets.layers import bias_in_float32

# The last activation, and the bias of the dense layer in front of it, whose kernel starts at zero: either way every
# temperature starts at ln 2, and the heads part because their embeddings differ.
ACTIVATIONS = {
    "softplus": (nn.softplus, 0.0),  # MHTMA: always positive
    "leaky_relu": (lambda x: nn.leaky_relu(x, 0.2), math.log(2)),  # ATMA: may fall below zero
}


class TemperatureNetwork(nn.Module):
    """t = softplus(F_emb(F_in)), eqs. (13)-(14): four convolutions, average and max pooling, one dense layer.

    Eq. (13) prints ln(1 + e^-x); the sign is absorbed by the dense layer.

    The paper names the layers but not their sizes. Ours are 3 x 3 with stride 2 and half the channels of the
    input: the pooling discards positions anyway.

    Attributes:
        heads: K, how many temperatures each image gets.
        activation: the last one, of `ACTIVATIONS`.
        dtype: of the convolutions; pooling, dense layer and activation are float32.
    """

    heads: int
    activation: str = "softplus"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, features: Float[Array, "B H W C"]) -> Float[Array, "B {self.heads}"]:
        """Temperatures in float32, > 0 with softplus."""
        x = features
        for i in range(4):
            conv = nn.Conv(
                features.shape[-1] // 2,
                (3, 3),
                strides=2,
                promote_dtype=bias_in_float32,
                dtype=self.dtype,
                name=f"conv_{i}",
            )
            x = nn.elu(conv(x).astype(self.dtype))
        x = x.astype(jnp.float32)
        pooled = jnp.concatenate([x.mean(axis=(1, 2)), x.max(axis=(1, 2))], axis=-1)
        activation, start = ACTIVATIONS[self.activation]
        dense = nn.Dense(
            self.heads, kernel_init=nn.initializers.zeros, bias_init=nn.initializers.constant(start), name="dense"
        )
        return activation(dense(pooled))
