"""One training step (discriminator and generator) and one validation step, as functions to be jitted."""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from inpaint_jax import losses, metrics
from inpaint_jax.features import vgg
from inpaint_jax.nets.generator import GeneratorOutputs
from inpaint_jax.nets.guess import enlarge, halve
from inpaint_jax.systems import Batch
from inpaint_jax.systems.critics import Critic
from inpaint_jax.systems.state import TrainState, averaged


def make_train_step(
    generator: nn.Module,
    critic: Critic,
    generator_optimizer: optax.GradientTransformation,
    discriminator_optimizer: optax.GradientTransformation,
    weights: losses.LossWeights,
    *,
    ema_decay: float = 0.0,
    guesses: float = 0.0,
    seed: int = 0,
) -> Callable[[TrainState, Batch, Any], tuple[TrainState, dict[str, jax.Array]]]:
    """Builds the step: the discriminator learns from this batch, then the generator from the new discriminator.

    With an adversarial weight of 0 there is no discriminator in it, which saves its time.

    The generator runs forward once: the discriminator sees its images as constants, and the generator's gradient
    is pulled back through the same pass.

    Args:
        generator: the `Generator`.
        critic: the discriminator and its losses.
        generator_optimizer: of the generator.
        discriminator_optimizer: of the discriminator.
        weights: of the generator's losses.
        ema_decay: of the generator's moving average, if the state has one, see `state.averaged`.
        guesses: share of the holes that start from the generator's own guess at half the size.
        seed: with the step, all that their choice depends on.

    Returns:
        step(state, batch, vgg_params) -> (state, metrics). batch holds image uint8 [B, H, W, 3], mask [B, H, W],
        crop int [B, 2] and, for a generator that is guided by them, sketch [B, H, W]; vgg_params may be None if the
        perceptual weight is 0. Metrics are float32 scalars.
    """

    def train_step(state: TrainState, batch: Batch, vgg_params: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        target = to_float(batch["image"])
        guess = None
        if guesses:
            # The kind of key is named because its numbers do not depend on how the batch lies over devices.
            key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), state.step)
            guess = _guess(generator, jax.lax.stop_gradient(state.generator), target, batch["mask"], key, guesses)
        outputs, pull_back = jax.vjp(lambda params: _generate(generator, params, target, batch, guess), state.generator)
        completed = jax.lax.stop_gradient(outputs.completed)
        logged = {}

        discriminator, spectral, d_optimizer = state.discriminator, state.spectral, state.discriminator_optimizer
        if weights.adversarial:
            (d_loss, (stats, judged)), d_grads = jax.value_and_grad(critic.loss, has_aux=True)(
                discriminator, spectral, target, completed, batch, state.step
            )
            d_updates, d_optimizer = discriminator_optimizer.update(d_grads, d_optimizer, discriminator)
            discriminator, spectral = optax.apply_updates(discriminator, d_updates), stats
            logged |= judged | {"loss/discriminator": d_loss, "gradient_norm/discriminator": optax.tree.norm(d_grads)}

        def generator_loss(outputs: GeneratorOutputs):
            terms = _reconstruction_terms(outputs, target, batch["mask"], vgg_params, weights)
            if weights.adversarial:
                terms |= critic.generator_terms(discriminator, spectral, target, outputs.completed, batch)
            return losses.generator_objective(terms, weights).mean(), terms

        (g_loss, terms), output_grads = jax.value_and_grad(generator_loss, has_aux=True)(outputs)
        (g_grads,) = pull_back(output_grads)
        g_updates, g_optimizer = generator_optimizer.update(g_grads, state.generator_optimizer, state.generator)
        params = optax.apply_updates(state.generator, g_updates)

        new_state = TrainState(
            step=state.step + 1,
            generator=params,
            average=averaged(state, params, ema_decay),
            discriminator=discriminator,
            spectral=spectral,
            generator_optimizer=g_optimizer,
            discriminator_optimizer=d_optimizer,
        )
        logged |= {f"loss/{name}": value.mean() for name, value in terms.items()}
        logged |= {"loss/generator": g_loss, "gradient_norm/generator": optax.tree.norm(g_grads)}
        logged |= {f"temperature/head_{i}": t for i, t in enumerate(outputs.temperatures.mean(axis=0))}
        return new_state, logged

    return train_step


def make_validation_step(
    generator: nn.Module, weights: losses.LossWeights
) -> Callable[[Any, Batch, Any], dict[str, tuple[jax.Array, jax.Array]]]:
    """Builds the validation step.

    Args:
        generator: the `Generator`.
        weights: of the losses; the adversarial one plays no part.

    Returns:
        step(generator_params, batch, vgg_params) -> name -> (sum, count) over the batch. batch also holds
        weight [B], 0 for padding.
    """

    def validation_step(params: Any, batch: Batch, vgg_params: Any) -> dict[str, tuple[jax.Array, jax.Array]]:
        target = to_float(batch["image"])
        outputs = _generate(generator, params, target, batch)
        terms = _reconstruction_terms(outputs, target, batch["mask"], vgg_params, weights)
        return sum_scores(outputs, target, batch, terms, losses.generator_objective(terms, weights))

    return validation_step


def sum_scores(
    outputs: GeneratorOutputs, target: jax.Array, batch: Batch, terms: dict[str, jax.Array], loss: jax.Array
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """What validation says of a batch.

    Args:
        outputs: of the generator.
        target: the photos, [B, H, W, 3] in [0, 1].
        batch: of validation: mask [B, H, W], and weight [B], 0 for padding.
        terms: of the loss, each [B].
        loss: their weighted sum, [B].

    Returns:
        name -> (sum, count).
    """
    per_image = {f"loss/{name}": value for name, value in terms.items()}
    per_image["loss"] = loss
    per_image["mae"] = metrics.mean_absolute_error(outputs.completed, target)
    per_image["psnr"] = metrics.psnr(outputs.completed, target)
    per_image["hole_l1"] = losses.hole_l1(outputs.refined, target, batch["mask"])
    per_image["hole_psnr"] = metrics.hole_psnr(outputs.refined, target, batch["mask"])
    per_image["hole_psnr_coarse"] = metrics.hole_psnr(outputs.coarse, target, batch["mask"])
    # What a model has to beat: the fill that it starts from, and the mean colour of the pixels that it is given.
    fills = {"fill": outputs.filled, "mean_fill": _mean_known_colour(target, batch["mask"])}
    for name, image in fills.items():
        per_image[f"hole_psnr_{name}"] = metrics.hole_psnr(image, target, batch["mask"])
    for i in range(outputs.temperatures.shape[-1]):
        per_image[f"temperature/head_{i}"] = outputs.temperatures[:, i]
    counted = batch["weight"] > 0
    # PSNR is infinite or undefined where nothing is missing, as in an empty mask of a folder.
    with_hole = counted & (batch["mask"] > 0.5).any(axis=(1, 2))
    sums = {}
    for name, value in per_image.items():
        counts = with_hole if "psnr" in name or name == "hole_l1" else counted
        # where, not a product: what is left out may be inf.
        sums[name] = (jnp.sum(jnp.where(counts, value, 0.0)), jnp.sum(counts))
    return sums


def _reconstruction_terms(
    outputs: GeneratorOutputs, target: jax.Array, mask: jax.Array, vgg_params: Any, weights: losses.LossWeights
) -> dict[str, jax.Array]:
    """The terms of eq. (6) that need no discriminator, each [B]."""
    terms = {}
    for name, image in (("coarse", outputs.coarse), ("refined", outputs.refined)):
        if weights.l1 == "by_area":
            terms[name] = losses.reconstruction_loss_by_area(image, target, mask, weights.hole)
        elif weights.l1 == "relative":
            terms[name] = losses.relative_loss(image, target, outputs.filled, mask)
        else:
            terms[name] = losses.reconstruction_loss(image, target)
    if weights.perceptual:
        terms["perceptual"] = vgg.PERCEPTUAL_SCALE * losses.perceptual_loss(
            vgg.relu1_2(vgg_params, outputs.coarse), vgg.relu1_2(vgg_params, target)
        )
    return terms


def _generate(
    generator: nn.Module, params: Any, image: jax.Array, batch: Batch, guess: jax.Array | None = None
) -> GeneratorOutputs:
    outputs = generator.apply({"params": params}, image, batch["mask"], batch.get("sketch"), guess=guess)
    return cast(GeneratorOutputs, outputs)


def _guess(
    generator: nn.Module, params: Any, image: jax.Array, mask: jax.Array, key: jax.Array, share: float, sizes: int = 2
) -> jax.Array:
    """A guess at each hole, [B, H, W, 3]: for a share of them what the generator makes of it at half the size.

    There, it may itself start from a guess. The others get one colour, which stands for no guess, see `guess.around`.
    """
    chosen, other = jax.random.split(key)
    small, small_mask = halve(image, mask)
    inner = _guess(generator, params, small, small_mask, other, share, sizes - 1) if sizes > 1 else None
    outputs = cast(GeneratorOutputs, generator.apply({"params": params}, small, small_mask, guess=inner))
    use = jax.random.bernoulli(chosen, share, (len(image), 1, 1, 1))
    return jnp.where(use, enlarge(outputs.completed, *mask.shape[1:]), 0.5)


def to_float(image: jax.Array) -> jax.Array:
    """uint8 0..255 -> float32 [0, 1]; images travel to the device as bytes."""
    return image.astype(jnp.float32) / 255


def _mean_known_colour(image: jax.Array, mask: jax.Array) -> jax.Array:
    """The mean colour of the given pixels: [B, 1, 1, 3]."""
    known = 1 - (mask > 0.5).astype(jnp.float32)[..., None]
    return jnp.sum(image * known, axis=(1, 2), keepdims=True) / jnp.maximum(known.sum(axis=(1, 2), keepdims=True), 1)
