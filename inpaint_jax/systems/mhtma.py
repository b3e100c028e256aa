"""The paper's system: coarse and refinement network with MHTMA, global-local discriminator, the losses of eq. (6)."""

import dataclasses

import jax.numpy as jnp

from inpaint_jax.config import Config
from inpaint_jax.data.masks import local_crop_side
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator, PatchDiscriminator
from inpaint_jax.nets.generator import Generator
from inpaint_jax.systems.adversarial import AdversarialSystem
from inpaint_jax.systems.critics import Critic, GlobalLocalCritic, PatchCritic


def make_system(config: Config) -> AdversarialSystem:
    """See `systems.make_system`."""
    return AdversarialSystem(config, make_generator(config), make_critic(config))


def make_generator(config: Config) -> Generator:
    """The generator of a config: its attributes are the fields of config.model that bear their names."""
    names = {field.name for field in dataclasses.fields(Generator)} & set(vars(config.model))
    return Generator(**{name: getattr(config.model, name) for name in names}, dtype=jnp.dtype(config.dtype))


def make_critic(config: Config) -> Critic:
    """The discriminator of a config, with its losses."""
    model, loss, dtype = config.model, config.loss, jnp.dtype(config.dtype)
    if model.discriminator == "patch":
        network = PatchDiscriminator(model.discriminator_width, dtype)
        return PatchCritic(network, feature_matching=loss.feature_matching_weight > 0)
    return GlobalLocalCritic(
        GlobalLocalDiscriminator(
            model.discriminator_width,
            model.discriminator_features,
            dtype=dtype,
            spectral_norm=loss.adversarial == "hinge",
        ),
        local_crop_side(config.data.image_size, config.data.image_size),
        gradient_penalty_weight=loss.gradient_penalty_weight,
        seed=config.seed,
    )
