"""Guesses from half the size: geometry, and what the training step makes of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from inpaint_jax.config import Config
from inpaint_jax.data.sources import open_source
from inpaint_jax.losses import LossWeights
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator
from inpaint_jax.nets.fill import tension_spline
from inpaint_jax.nets.generator import Generator
from inpaint_jax.nets.guess import around, enlarge, halve
from inpaint_jax.systems import steps
from inpaint_jax.systems.critics import GlobalLocalCritic
from inpaint_jax.systems.optimizers import make_optimizer
from inpaint_jax.systems.state import create_state


@pytest.fixture(scope="module")
def photo():
    return np.asarray(Image.fromarray(np.asarray(open_source("skimage:validation")[0])).resize((80, 72)))


def square(side, height=72, width=80):
    hole = np.zeros((height, width), bool)
    top, left = (height - side) // 2, (width - side) // 2
    hole[top : top + side, left : left + side] = True
    return hole


def test_half_the_size_is_the_mean_of_what_is_given(photo):
    image = photo[None, :71].astype(np.float32) / 255
    hole = np.random.default_rng(0).random(image.shape[:3]) < 0.5
    image[hole] = np.nan  # never looked at
    small, small_hole = jax.jit(halve)(image, hole)
    assert small.shape == (1, 35, 40, 3)
    for y, x in np.random.default_rng(1).integers(0, (35, 40), (60, 2)):
        block = np.s_[0, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
        given = ~hole[block]
        assert small_hole[0, y, x] == (given.sum() < 2)
        if given.any():
            np.testing.assert_allclose(small[0, y, x], image[block][given].mean(axis=0), atol=1e-6)


def test_twice_the_size_keeps_place_and_colour():
    y, x = np.mgrid[:12, :10] / 20
    ramp = np.stack([y, x, (x + y) / 2], axis=-1).astype(np.float32)[None]
    small, _ = halve(ramp, np.zeros((1, 12, 10)))
    np.testing.assert_allclose(enlarge(small, 12, 10)[:, 3:-3, 3:-3], ramp[:, 3:-3, 3:-3], atol=1e-6)
    odd = enlarge(small, 13, 11)
    assert odd.shape == (1, 13, 11, 3)
    np.testing.assert_array_equal(odd[:, :12, :10], enlarge(small, 12, 10))


def test_a_guess_is_brought_into_line_with_what_is_given(photo):
    """A guess that is right but for its brightness is the truth; one of one colour is the spline."""
    truth = photo[None].astype(np.float32) / 255
    hole = square(24)[None]
    dark = jnp.asarray(0.8 * truth + 0.1)
    lifted = jax.jit(around)(dark - 0.1, dark, hole)
    np.testing.assert_allclose(lifted, dark, atol=2e-3)
    flat = jax.jit(around)(jnp.full_like(dark, 0.5), dark, hole)
    np.testing.assert_allclose(flat, jax.jit(tension_spline)(dark, hole), atol=5e-3)


def test_a_training_step_starts_from_guesses(photo):
    """With a share of 1 all holes do, from two sizes below: the loss is that of generators called by hand."""
    generator = Generator(width=2, fill="tension_spline", output="residual", skips=True)
    critic = GlobalLocalCritic(GlobalLocalDiscriminator(2, 8), 8)
    optimizer = make_optimizer(Config(), 1e-3)
    state = create_state(
        jax.random.key(0), generator, critic, optimizer, optimizer, image_size=48, sketch=False, average=False
    )
    # Outputs start near zero: enlarge them, or there is nothing to tell apart.
    params = jax.tree.map_with_path(lambda path, leaf: 20 * leaf if path[-2].key == "image" else leaf, state.generator)
    image, hole = photo[None, :48, :48], square(24, 48, 48)[None]
    target = image.astype(np.float32) / 255
    half = halve(target, hole)
    quarter = halve(*half)

    generate = jax.jit(lambda image, mask, guess: generator.apply({"params": params}, image, mask, guess=guess))
    guess = enlarge(generate(*quarter, None).completed, 24, 24)
    guess = enlarge(generate(*half, guess).completed, 48, 48)
    distance, without = (np.abs(generate(target, hole, start).refined - target)[hole].mean() for start in (guess, None))
    assert abs(distance - without) > 1e-3

    weights = LossWeights(l1="by_area", hole=1.0, perceptual=0.0, adversarial=0.0)
    step = steps.make_train_step(generator, critic, optimizer, optimizer, weights, guesses=1.0)
    batch = {"image": image, "mask": hole, "crop": np.zeros((1, 2), int)}
    _, logged = jax.jit(step)(state.replace(generator=params), batch, None)
    assert logged["loss/refined"] == pytest.approx(distance, rel=1e-4)


def test_which_holes_start_from_a_guess_is_drawn_anew_each_step(photo):
    """By the key alone, about as many as asked for; the others get one colour."""
    generator = Generator(width=2, fill="tension_spline", output="residual", skips=True)
    image = np.repeat(photo[None, :32, :32].astype(np.float32) / 255, 16, axis=0)
    hole = np.repeat(square(12, 32, 32)[None], 16, axis=0)
    params = generator.init(jax.random.key(0), image[:1], hole[:1])["params"]
    make = jax.jit(lambda key: steps._guess(generator, params, image, hole, key, 0.5, sizes=1))
    drawn = [np.asarray(make(jax.random.key(k)) != 0.5).any(axis=(1, 2, 3)) for k in (0, 0, 1)]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    assert 3 <= drawn[0].sum() <= 13
