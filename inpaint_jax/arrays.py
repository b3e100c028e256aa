"""What signatures call an array. Shapes stand in the signatures, in jaxtyping's notation: Float[Array, "B H W 3"].

B is the batch, H and W are rows and columns, C counts channels, K heads; s is the side of a patch.
"""

import jax
import numpy as np

AnyArray = jax.Array | np.ndarray
"""Where callers without a device may hand over what they have; what comes back is always a `jax.Array`."""
