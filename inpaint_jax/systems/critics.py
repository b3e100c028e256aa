"""What the generator fights: a discriminator together with its losses, each behind the same three methods."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp

from inpaint_jax import losses
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator, PatchDiscriminator, local_crops
from inpaint_jax.systems import Batch


class Critic(Protocol):
    """A discriminator and its losses. `params` are its parameters, `stats` its `batch_stats`: spectral norms."""

    def init(self, key: jax.Array, image_size: int) -> dict[str, Any]:
        """Variables of the discriminator for square images of this size."""
        ...

    def loss(
        self, params: Any, stats: Any, real: jax.Array, fake: jax.Array, batch: Batch, step: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        """What the discriminator has to bring down.

        Args:
            params: what it is differentiated by.
            stats: before this step.
            real: the photos, [B, H, W, 3] in [0, 1].
            fake: the completed images.
            batch: of training.
            step: how many were done; for random numbers.

        Returns:
            the loss, and (the new stats, scalars to log).
        """
        ...

    def generator_terms(
        self, params: Any, stats: Any, real: jax.Array, fake: jax.Array, batch: Batch
    ) -> dict[str, jax.Array]:
        """Terms of the generator's loss, [B] each, by the name of their weight in `LossWeights`."""
        ...


def in_turns(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Real and fake in one batch, [2 B, ...]: one power iteration a step, the same norm for both.

    They take turns, so that no image has to move to another device.
    """
    return jnp.stack([real, fake], axis=1).reshape(-1, *real.shape[1:])


def apart(judged: jax.Array) -> jax.Array:
    """What a batch `in_turns` was judged to be, [2, B, ...]: the real ones, the fake ones."""
    return judged.reshape(-1, 2, *judged.shape[1:]).swapaxes(0, 1)


class GlobalLocalCritic:
    """The paper's: one logit for the image and a crop of it; eqs. (4) and (5), or WGAN-GP (Table II).

    Under WGAN-GP, too, each network learns once a step. Yu et al. 2018 let the critic learn five times; the speeds that
    the paper reports (59.0 batches a minute, 71.8 with the hinge loss) leave no time for that.

    Args:
        network: with spectral norms for the hinge loss, without for WGAN-GP.
        crop_size: side of the local crop.
        gradient_penalty_weight: lambda of WGAN-GP; the hinge loss has no use for it.
        seed: with the step, all that the images between real and completed ones depend on, in WGAN-GP.
    """

    def __init__(
        self,
        network: GlobalLocalDiscriminator,
        crop_size: int,
        *,
        gradient_penalty_weight: float = 10.0,
        seed: int = 0,
    ):
        self._network: Any = network
        self._crop_size, self._seed = crop_size, seed
        self._penalty_weight = gradient_penalty_weight

    def init(self, key: jax.Array, image_size: int) -> dict[str, Any]:
        """See `Critic`."""
        image = jnp.zeros((1, image_size, image_size, 3))
        return self._network.init(key, image, image[:, : self._crop_size, : self._crop_size], update_stats=False)

    def loss(self, params, stats, real, fake, batch, step):
        """See `Critic`."""
        both = in_turns(real, fake)
        logits, updates = self._judge(params, stats, both, batch, update_stats=True)
        stats = updates.get("batch_stats", {})  # without spectral norms there is nothing to update
        on_real, on_fake = apart(logits)
        logged = {"logit/real": on_real.mean(), "logit/fake": on_fake.mean()}
        if self._network.spectral_norm:
            return losses.hinge_discriminator_loss(on_real, on_fake).mean(), (stats, logged)
        # The critic cuts the crop out of the image, so this is the slope through both of its branches.
        between = _on_lines(fake, real, self._seed, step)
        slope = jax.grad(lambda x: self._judge(params, stats, x, batch, update_stats=False).sum())(between)
        penalty = losses.gradient_penalty(slope, batch["mask"]).mean()
        logged["loss/gradient_penalty"] = penalty
        return losses.wasserstein_critic_loss(on_real, on_fake).mean() + self._penalty_weight * penalty, (stats, logged)

    def generator_terms(self, params, stats, real, fake, batch):
        """See `Critic`."""
        logits = self._judge(params, stats, fake, batch, update_stats=False)
        return {"adversarial": losses.hinge_generator_loss(logits)}

    def _judge(self, params: Any, stats: Any, image: jax.Array, batch: Batch, *, update_stats: bool) -> Any:
        corners = jnp.repeat(batch["crop"], len(image) // len(batch["crop"]), axis=0)
        crop = local_crops(image, corners, self._crop_size)
        variables = {"params": params, "batch_stats": stats}
        mutable = ["batch_stats"] if update_stats else False
        return self._network.apply(variables, image, crop, update_stats=update_stats, mutable=mutable)


class PatchCritic:
    """A logit for every cell of 8 x 8 pixels, which counts as fake if one of them was missing, and feature matching.

    Yu et al. 2019 (SN-PatchGAN) judge by the hinge loss, all of a completed image as fake; Suvorov et al. 2022 (LaMa)
    call only those cells fake that a hole touches, and add feature matching (Wang et al. 2018, pix2pixHD).

    Args:
        network: judges.
        feature_matching: whether the generator is to match its features, too.
    """

    def __init__(self, network: PatchDiscriminator, *, feature_matching: bool = True):
        self._network: Any = network
        self._feature_matching = feature_matching

    def init(self, key: jax.Array, image_size: int) -> dict[str, Any]:
        """See `Critic`."""
        image = jnp.zeros((1, image_size, image_size, 3))
        return self._network.init(key, image, image[..., 0], update_stats=False)

    def loss(self, params, stats, real, fake, batch, step):
        """See `Critic`."""
        both = in_turns(real, fake)
        holes = jnp.repeat(batch["mask"], 2, axis=0)
        (logits, _), updates = self._network.apply(
            {"params": params, "batch_stats": stats}, both, holes, update_stats=True, mutable=["batch_stats"]
        )
        on_real, on_fake = apart(logits)
        touched = _touched(batch["mask"])
        logged = {"logit/real": on_real.mean(), "logit/fake": _mean_where(on_fake, touched).mean()}
        loss = losses.patch_hinge_discriminator_loss(on_real, on_fake, touched).mean()
        return loss, (updates["batch_stats"], logged)

    def generator_terms(self, params, stats, real, fake, batch):
        """See `Critic`."""
        variables = {"params": params, "batch_stats": stats}
        logits, of_fake = self._network.apply(variables, fake, batch["mask"], update_stats=False)
        terms = {"adversarial": losses.hinge_generator_loss(_mean_where(logits, _touched(batch["mask"])))}
        if self._feature_matching:
            _, of_real = self._network.apply(variables, real, batch["mask"], update_stats=False)
            terms["feature_matching"] = losses.feature_matching_loss(of_fake, of_real, batch["mask"])
        return terms


def _touched(mask: jax.Array) -> jax.Array:
    """Which cells of 8 x 8 pixels, one for each logit, hold a missing one; the last ones may reach beyond the image."""
    side = PatchDiscriminator.STRIDE
    beyond = [(0, -size % side) for size in mask.shape[1:]]
    cells = jnp.pad((mask > 0.5).astype(jnp.float32), ((0, 0), *beyond))
    batch, height, width = cells.shape
    return cells.reshape(batch, height // side, side, width // side, side).max(axis=(2, 4))


def _mean_where(values: jax.Array, where: jax.Array) -> jax.Array:
    """[B, h, w] -> [B]; 0 where nothing is."""
    return jnp.sum(values * where, axis=(1, 2)) / jnp.maximum(where.sum(axis=(1, 2)), 1)


def _on_lines(start: jax.Array, end: jax.Array, seed: int, step: jax.Array) -> jax.Array:
    """One random point on each line from start to end, [B, ...]: the same ones whenever this step is done again.

    The kind of key is named because its numbers do not depend on how the batch lies over devices.
    """
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)
    share = jax.random.uniform(key, (len(start),) + (1,) * (start.ndim - 1))
    return start + share * (end - start)
