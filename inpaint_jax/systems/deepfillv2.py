"""DeepFillv2 (Yu et al. 2019), as its PyTorch version trains it.

The losses are L1 of both images, over all pixels, and the hinge loss of SN-PatchGAN; no perceptual loss. Each network
takes one step, the discriminator first. Other than there, every sample of a batch has a mask of its own.
"""

from typing import Any

import jax
import jax.numpy as jnp

from inpaint_jax import losses
from inpaint_jax.config import Config
from inpaint_jax.nets.deepfillv2 import DeepFillV2, DeepFillV2Discriminator
from inpaint_jax.systems.adversarial import AdversarialSystem
from inpaint_jax.systems.critics import apart, in_turns


def make_system(config: Config) -> AdversarialSystem:
    """See `systems.make_system`."""
    model, dtype = config.model, jnp.dtype(config.dtype)
    discriminator = DeepFillV2Discriminator(model.discriminator_width, model.variant, dtype)
    return AdversarialSystem(config, make_generator(config), DeepFillV2Critic(discriminator))


def make_generator(config: Config) -> DeepFillV2:
    """The generator of a config."""
    return DeepFillV2(config.model.width, config.model.variant, dtype=jnp.dtype(config.dtype))


class DeepFillV2Critic:
    """A `Critic`: the hinge loss over the scores of all parts of an image.

    Args:
        network: judges.
    """

    def __init__(self, network: DeepFillV2Discriminator):
        self._network: Any = network

    def init(self, key: jax.Array, image_size: int) -> dict[str, Any]:
        """See `Critic`."""
        image = jnp.zeros((1, image_size, image_size, 3))
        return self._network.init(key, image, image[..., 0], update_stats=False)

    def loss(self, params, stats, real, fake, batch, step):
        """See `Critic`."""
        both = in_turns(real, fake)
        holes = jnp.repeat(batch["mask"], 2, axis=0)
        scores, updates = self._network.apply(
            {"params": params, "batch_stats": stats}, both, holes, update_stats=True, mutable=["batch_stats"]
        )
        on_real, on_fake = apart(scores)
        loss = losses.hinge_discriminator_loss(on_real.ravel(), on_fake.ravel()).mean() / 2
        return loss, (updates["batch_stats"], {"logit/real": on_real.mean(), "logit/fake": on_fake.mean()})

    def generator_terms(self, params, stats, real, fake, batch):
        """See `Critic`."""
        scores = self._network.apply({"params": params, "batch_stats": stats}, fake, batch["mask"], update_stats=False)
        return {"adversarial": losses.hinge_generator_loss(scores.mean(axis=(1, 2, 3)))}
