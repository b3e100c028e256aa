"""The losses of Section III-B and those of WGAN-GP (Table II), one function per term, and their weighted sum.

Every term is given per sample, so that training takes its mean and validation can leave out padding. L1 distances are
means over the elements of an image, not sums: a weight then means the same at every image size.

Images are in [0, 1]. In masks, 1 (or True) = missing.
"""

import dataclasses
import functools
import operator
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from inpaint_jax.arrays import AnyArray

# What the two networks may fight by: eqs. (4) and (5), or WGAN-GP, to which the paper compares them in Table II.
ADVERSARIAL = ("hinge", "wgan_gp")

# How L1 distances are taken: as one mean over all pixels, as in the paper; one over the hole and one over the rest; or
# that inside the hole as a share of the fill's.
L1 = ("mean", "by_area", "relative")


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """How L1 distances are taken, and the weights of eqs. (2) and (6); the defaults are the paper's, but for `hole`.

    Attributes:
        l1: how the L1 distances are taken, one of `L1`.
        hole: weight of the hole in "by_area"; the others have no use for it.
        coarse: lambda_1, of the coarse image's L1 distance.
        refined: lambda_2, of the refined image's L1 distance.
        perceptual: lambda_p. At 0 the term is not computed, and needs no VGG.
        adversarial: lambda_adv^G.
        feature_matching: of `feature_matching_loss`, for a discriminator that judges patches.
    """

    l1: str = "mean"
    hole: float = 6.0
    coarse: float = 1.2
    refined: float = 1.0
    perceptual: float = 0.004
    adversarial: float = 0.01
    feature_matching: float = 0.0

    def __post_init__(self):
        if self.l1 not in L1:
            raise ValueError(f"l1 must be {' or '.join(L1)}, not {self.l1!r}.")


def reconstruction_loss(image: Float[AnyArray, "B H W 3"], target: Float[AnyArray, "B H W 3"]) -> Float[Array, "B"]:
    """||I - I_gt||_1 of eq. (2), for one of its two images."""
    return jnp.mean(jnp.abs(image - target), axis=(1, 2, 3))


def reconstruction_loss_by_area(
    image: Float[AnyArray, "B H W 3"],
    target: Float[AnyArray, "B H W 3"],
    mask: Shaped[AnyArray, "B H W"],
    hole_weight: float,
) -> Float[Array, "B"]:
    """The L1 distance as one mean over the hole and one over the known pixels, so that no hole is too small to count.

    In the plain mean, a hole of 5 % has 5 % of the weight. Liu et al. 2018 (partial convolutions) weigh holes 6.

    Args:
        image: the network's.
        target: the truth.
        mask: of the hole.
        hole_weight: of the first mean; that of the second is 1.

    Returns:
        the sum; a mean over no pixels counts as nothing.
    """
    return hole_weight * hole_l1(image, target, mask) + hole_l1(image, target, mask <= 0.5)


def relative_loss(
    image: Float[AnyArray, "B H W 3"],
    target: Float[AnyArray, "B H W 3"],
    filled: Float[AnyArray, "B H W 3"],
    mask: Shaped[AnyArray, "B H W"],
) -> Float[Array, "B"]:
    """The share of the fill's L1 distance inside the hole that is left: 1 is no better than the fill, 0 is the truth.

    So a smooth photo, whose fill is nearly right, counts as much as one full of texture, which nothing can predict; as
    a mean of PSNR does, whose slope is that of the relative error, too.

    Args:
        image: the network's.
        target: the truth.
        filled: what the networks started from.
        mask: of the hole.

    Returns:
        the shares; 0 where nothing is missing. A fill that is less than a grey level off counts as one level off.
    """
    before = jax.lax.stop_gradient(hole_l1(filled, target, mask))
    return hole_l1(image, target, mask) / jnp.maximum(before, 1 / 255)


def hole_l1(
    image: Float[AnyArray, "B H W 3"], target: Float[AnyArray, "B H W 3"], mask: Shaped[AnyArray, "B H W"]
) -> Float[Array, "B"]:
    """The mean L1 distance inside the hole; 0 where nothing is missing."""
    hole = (mask > 0.5).astype(jnp.float32)
    distance = jnp.abs(image - target).mean(axis=-1)
    return jnp.sum(hole * distance, axis=(1, 2)) / jnp.maximum(hole.sum(axis=(1, 2)), 1)


def perceptual_loss(
    features: Float[AnyArray, "B H W C"], target_features: Float[AnyArray, "B H W C"]
) -> Float[Array, "B"]:
    """||V(I_c) - V(I_gt)||_1 of eq. (3), V being VGG-16 up to ReLU1_2.

    Args:
        features: activations of the coarse image, scaled by `features.vgg.PERCEPTUAL_SCALE` in training.
        target_features: activations of the truth.
    """
    return jnp.mean(jnp.abs(features - target_features), axis=(1, 2, 3))


def hinge_discriminator_loss(real_logits: Float[Array, "B"], fake_logits: Float[Array, "B"]) -> Float[Array, "B"]:
    """[1 - D(I)]_+ + [1 + D(I_out)]_+ of eq. (4)."""
    return nn.relu(1 - real_logits) + nn.relu(1 + fake_logits)


def hinge_generator_loss(fake_logits: Float[Array, "B"]) -> Float[Array, "B"]:
    """-D(I_out) of eq. (5), which is also the generator's loss in WGAN-GP."""
    return -fake_logits


def patch_hinge_discriminator_loss(
    real_logits: Float[Array, "B h w"], fake_logits: Float[Array, "B h w"], touched: Float[Array, "B h w"]
) -> Float[Array, "B"]:
    """The hinge loss over cells, of which only those count as fake that the hole touches (Suvorov et al. 2022).

    Args:
        real_logits: of the photo.
        fake_logits: of the completed image.
        touched: 1 where a cell of the completed image holds a missing pixel.
    """
    fake = jnp.where(touched > 0, nn.relu(1 + fake_logits), nn.relu(1 - fake_logits))
    return (nn.relu(1 - real_logits) + fake).mean(axis=(1, 2))


def feature_matching_loss(
    features: Sequence[Float[Array, "..."]],
    target_features: Sequence[Float[Array, "..."]],
    mask: Shaped[Array, "B H W"],
) -> Float[Array, "B"]:
    """The L1 distances between what a discriminator sees in image and truth (Wang et al. 2018, eq. 4), by area.

    Outside the hole there is next to nothing, so the mean over the image is divided by the share of the hole.

    Args:
        features: of the completed image, [B, _, _, C] of every layer.
        target_features: of the photo; they get no gradient.
        mask: of the hole.

    Returns:
        the sum over the layers. A hole of less than 2 % counts as one of 2 %.
    """
    pairs = zip(features, target_features, strict=True)
    distances = [
        jnp.abs(one.astype(jnp.float32) - jax.lax.stop_gradient(other).astype(jnp.float32)).mean(axis=(1, 2, 3))
        for one, other in pairs
    ]
    share = jnp.maximum((mask > 0.5).astype(jnp.float32).mean(axis=(1, 2)), 0.02)
    return functools.reduce(operator.add, distances) / share


def wasserstein_critic_loss(real_logits: Float[Array, "B"], fake_logits: Float[Array, "B"]) -> Float[Array, "B"]:
    """D(I_out) - D(I), the critic's loss in WGAN-GP without its penalty (Gulrajani et al. 2017, eq. 3)."""
    return fake_logits - real_logits


def gradient_penalty(gradient: Float[AnyArray, "B H W 3"], mask: Shaped[AnyArray, "B H W"]) -> Float[Array, "B"]:
    """(||M * grad D(x)||_2 - 1)^2 at an image x between I and I_out (Gulrajani et al. 2017, eq. 3; M: Yu et al. 2018).

    I and I_out are the same outside the hole, so the lines between them run within it; only there the slope matters.

    Args:
        gradient: of the logits with respect to the images x.
        mask: M.

    Returns:
        the penalty; 1, with a gradient of zero, where nothing is missing.
    """
    squares = jnp.sum(jnp.where(mask[..., None] > 0.5, gradient, 0.0) ** 2, axis=(1, 2, 3))
    # where twice: the square root's slope at 0 is infinite, and 0 times that, from the branch not taken, is nan.
    flat = squares == 0
    norm = jnp.where(flat, 0.0, jnp.sqrt(jnp.where(flat, 1.0, squares)))
    return (norm - 1) ** 2


def l1_within(
    image: Float[AnyArray, "B H W 3"], target: Float[AnyArray, "B H W 3"], area: Shaped[AnyArray, "B H W"]
) -> Float[Array, "B"]:
    """The L1 distance where `area` is 1, as a mean over all pixels: L_hole and L_valid of Liu et al. 2018, eq. 2."""
    return jnp.mean(area[..., None] * jnp.abs(image - target), axis=(1, 2, 3))


def features_loss(
    features: Sequence[Float[Array, "B _ _ _"]], target_features: Sequence[Float[Array, "B _ _ _"]]
) -> Float[Array, "B"]:
    """The L1 distances between features, summed over the layers: half of L_perceptual of Liu et al. 2018, eq. 3."""
    pairs = zip(features, target_features, strict=True)
    return functools.reduce(operator.add, [jnp.abs(one - other).mean(axis=(1, 2, 3)) for one, other in pairs])


def style_loss(
    features: Sequence[Float[Array, "B _ _ _"]], target_features: Sequence[Float[Array, "B _ _ _"]]
) -> Float[Array, "B"]:
    """The L1 distances between the Gram matrices of features, summed over the layers (Liu et al. 2018, eqs. 4, 5)."""
    pairs = zip(features, target_features, strict=True)
    distances = [jnp.abs(gram_matrix(one) - gram_matrix(other)).mean(axis=(1, 2)) for one, other in pairs]
    return functools.reduce(operator.add, distances)


def gram_matrix(features: Float[Array, "B H W C"]) -> Float[Array, "B C C"]:
    """Inner products of the maps of all channels, divided by H W C."""
    return jnp.einsum("bhwc,bhwd->bcd", features, features) / (features[0].size)


def total_variation(image: Float[AnyArray, "B H W 3"]) -> Float[Array, "B"]:
    """The mean distance between neighbours in a row, and that in a column, added: L_tv of Liu et al. 2018, eq. 6.

    There, the sum is over the hole and what is next to it; as published in PyTorch, and here, over the whole image.
    """
    steps = (jnp.diff(jnp.asarray(image), axis=axis) for axis in (1, 2))
    return functools.reduce(operator.add, [jnp.abs(step).mean(axis=(1, 2, 3)) for step in steps])


def generator_objective(terms: Mapping[str, Float[AnyArray, "B"]], weights: LossWeights) -> Float[Array, "B"]:
    """L^G of eq. (6), the weighted sum of eqs. (2), (3) and (5).

    Args:
        terms: named as some of the fields of `LossWeights`. A missing term counts as nothing: without "adversarial"
            this is the validation loss, which compares from epoch to epoch.
        weights: their weights.
    """
    return functools.reduce(operator.add, (getattr(weights, name) * value for name, value in terms.items()))
