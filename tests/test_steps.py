"""One step against a plainer version of it, and the parts of the loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from inpaint_jax import devices, losses
from inpaint_jax.config import Config, Optimizer, Train
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator, PatchDiscriminator, local_crops
from inpaint_jax.nets.fill import HOLE_COLOUR
from inpaint_jax.nets.generator import Generator
from inpaint_jax.systems import critics, make_system
from inpaint_jax.systems.critics import GlobalLocalCritic, PatchCritic
from inpaint_jax.systems.optimizers import learning_rate
from inpaint_jax.systems.state import create_state
from inpaint_jax.systems.steps import make_train_step, make_validation_step
from inpaint_jax.training.meter import Meter, TrainingDivergedError
from inpaint_jax.training.progress import Progress
from inpaint_jax.training.validation import validate

SIZE, CROP = 32, 16


@pytest.fixture(scope="module")
def parts():
    generator, discriminator = Generator(width=4), GlobalLocalDiscriminator(width=4, features=16)
    optimizer = optax.sgd(1e-2)
    state = jax.jit(
        lambda key: create_state(
            key, generator, GlobalLocalCritic(discriminator, CROP), optimizer, optimizer, image_size=SIZE, average=True
        )
    )(jax.random.key(0))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (3, SIZE, SIZE, 3), np.uint8),
        "mask": rng.random((3, SIZE, SIZE)) > 0.7,
        "crop": rng.integers(0, SIZE - CROP + 1, (3, 2), np.int32),
    }
    return generator, discriminator, optimizer, state, batch


def test_step_equals_two_plain_gradient_steps(parts):
    """Discriminator first, on constants; then the generator from scratch, through the new discriminator."""
    generator, discriminator, optimizer, state, batch = parts
    weights = losses.LossWeights(coarse=0.7, refined=1.3, perceptual=0.0, adversarial=0.5)
    networks = generator, GlobalLocalCritic(discriminator, CROP), optimizer, optimizer
    step = jax.jit(make_train_step(*networks, weights, ema_decay=0.15))
    new, logged = step(state, batch, None)

    target = jnp.asarray(batch["image"], jnp.float32) / 255
    crop = lambda image: local_crops(image, batch["crop"], CROP)  # noqa: E731
    variables = {"params": state.discriminator, "batch_stats": state.spectral}

    @jax.jit
    def plain(state):
        fake = generator.apply({"params": state.generator}, target, batch["mask"]).completed

        def d_loss(params):
            both = {**variables, "params": params}
            real_logit = discriminator.apply(both, target, crop(target), update_stats=False)
            fake_logit = discriminator.apply(both, fake, crop(fake), update_stats=False)
            return jnp.mean(jnp.maximum(0, 1 - real_logit) + jnp.maximum(0, 1 + fake_logit))

        critic = jax.tree.map(lambda p, g: p - 1e-2 * g, state.discriminator, jax.grad(d_loss)(state.discriminator))

        def g_loss(params):
            outputs = generator.apply({"params": params}, target, batch["mask"])
            logit = discriminator.apply(
                {"params": critic, "batch_stats": new.spectral},
                outputs.completed,
                crop(outputs.completed),
                update_stats=False,
            )
            coarse, refined = (jnp.mean(jnp.abs(x - target)) for x in (outputs.coarse, outputs.refined))
            return 0.7 * coarse + 1.3 * refined - 0.5 * jnp.mean(logit)

        value, gradient = jax.value_and_grad(g_loss)(state.generator)
        return critic, jax.tree.map(lambda p, g: p - 1e-2 * g, state.generator, gradient), value

    critic, expected, value = plain(state)
    close = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6)  # noqa: E731
    jax.tree.map(close, new.discriminator, critic)
    jax.tree.map(close, new.generator, expected)
    assert float(logged["loss/generator"]) == pytest.approx(float(value), rel=1e-5)
    assert int(new.step) == 1

    # The average starts as what it is an average of, and its decay rises from 1 / 10 to 2 / 11, had it no limit.
    average = state.generator
    jax.tree.map(np.testing.assert_array_equal, state.average, average)
    for decay in (1 / 10, 0.15, 0.15):
        average = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, average, new.generator)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), new.average, average)
        new, _ = step(new, batch, None)
    published, rest = new.split()
    assert published is new.published is new.average
    assert "average" not in rest
    jax.tree.map(np.testing.assert_array_equal, type(new).join(published, rest), new)


def test_a_step_takes_the_memory_of_the_state(parts):
    """The loop donates the state; what the program could not reuse would be held twice on a device."""
    generator, discriminator, optimizer, state, batch = parts
    critic = GlobalLocalCritic(discriminator, CROP)
    step = make_train_step(generator, critic, optimizer, optimizer, losses.LossWeights(perceptual=0.0), ema_decay=0.15)
    compiled = jax.jit(step, donate_argnums=0).lower(state, batch, None).compile()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert compiled.memory_analysis().alias_size_in_bytes > 0.99 * size  # but for a few unread scalars


@pytest.mark.slow
def test_wgan_gp_step_equals_a_plain_one_and_teaches_the_critic(parts):
    generator, _, optimizer, with_norms, batch = parts
    discriminator = GlobalLocalDiscriminator(width=4, features=16, spectral_norm=False)
    critic = GlobalLocalCritic(discriminator, CROP, gradient_penalty_weight=3.0)
    networks = generator, critic, optimizer, optax.adam(1e-3, b1=0.5, b2=0.9)
    state = jax.jit(lambda key: create_state(key, *networks, image_size=SIZE))(jax.random.key(0))
    assert state.spectral == state.average == {}
    assert state.split()[0] is state.published is state.generator
    assert jax.tree.structure(state.discriminator) == jax.tree.structure(with_norms.discriminator)
    weights = losses.LossWeights(perceptual=0.0)
    step = jax.jit(make_train_step(*networks, weights))
    new, first = step(state, batch, None)

    target = jnp.asarray(batch["image"], jnp.float32) / 255
    share = jax.random.uniform(jax.random.fold_in(jax.random.key(0, impl="threefry2x32"), state.step), (3, 1, 1, 1))

    def judge_one(params, image, corner):
        crop = jax.lax.dynamic_slice(image, (*corner, 0), (CROP, CROP, 3))
        return discriminator.apply({"params": params}, image[None], crop[None], update_stats=False)[0]

    @jax.jit
    def plain(state):
        fake = generator.apply({"params": state.generator}, target, batch["mask"]).completed

        def penalty_of_one(params, image, corner, mask):
            slope = jax.grad(judge_one, argnums=1)(params, image, corner) * mask[..., None]
            return (jnp.linalg.norm(slope.ravel()) - 1) ** 2

        def d_loss(params):
            judge = jax.vmap(judge_one, in_axes=(None, 0, 0))
            between = share * target + (1 - share) * fake
            penalties = jax.vmap(penalty_of_one, in_axes=(None, 0, 0, 0))(params, between, batch["crop"], batch["mask"])
            difference = judge(params, fake, batch["crop"]) - judge(params, target, batch["crop"])
            return difference.mean() + 3 * penalties.mean(), penalties.mean()

        return jax.value_and_grad(d_loss, has_aux=True)(state.discriminator)

    (value, penalty), gradient = plain(state)
    assert float(first["loss/discriminator"]) == pytest.approx(float(value), rel=1e-5)
    assert float(first["loss/gradient_penalty"]) == pytest.approx(float(penalty), rel=1e-5)
    taken = jax.tree.map(lambda mean: mean / 0.5, new.discriminator_optimizer[0].mu)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-3), taken, gradient)

    for _ in range(20):
        new, last = step(new, batch, None)
    assert all(np.isfinite(value) for value in last.values())
    assert last["loss/discriminator"] < 0.9 * first["loss/discriminator"]
    assert new.spectral == new.average == {}


@pytest.mark.slow
def test_bfloat16_trains_like_float32(parts):
    *_, optimizer, state, batch = parts
    weights = losses.LossWeights(perceptual=0.0)
    lasts = {}
    for dtype in (jnp.float32, jnp.bfloat16):
        critic = GlobalLocalCritic(GlobalLocalDiscriminator(width=4, features=16, dtype=dtype), CROP)
        step = jax.jit(make_train_step(Generator(width=4, dtype=dtype), critic, optimizer, optimizer, weights))
        new = state
        for _ in range(3):
            new, lasts[dtype] = step(new, batch, None)
        assert {leaf.dtype for leaf in jax.tree.leaves(new)} <= {jnp.dtype("float32"), jnp.dtype("int32")}
    for name, value in lasts[jnp.float32].items():
        assert np.isfinite(lasts[jnp.bfloat16][name])
        if name in ("loss/coarse", "loss/refined", "loss/discriminator"):
            assert float(lasts[jnp.bfloat16][name]) == pytest.approx(float(value), rel=0.03)


def test_an_image_without_a_hole_does_not_spoil_the_means(parts):
    generator, *_, state, batch = parts
    step = jax.jit(make_validation_step(generator, losses.LossWeights(perceptual=0.0)))
    mask = batch["mask"].copy()
    mask[1] = False
    means = validate(
        step, state.generator, [{**batch, "mask": mask, "weight": np.ones(3, np.float32)}], None, devices.data_mesh()
    )
    assert all(np.isfinite(value) for value in means.values())
    rows = {name: value[[0, 2]] for name, value in batch.items()}
    others = validate(step, state.generator, [{**rows, "weight": np.ones(2, np.float32)}], None, devices.data_mesh())
    for name in ("hole_psnr", "hole_psnr_fill", "hole_l1"):
        assert means[name] == pytest.approx(others[name], rel=1e-5)


def test_hole_l1_and_the_fill_are_validated(parts):
    generator, *_, state, batch = parts
    step = jax.jit(make_validation_step(generator, losses.LossWeights(perceptual=0.0)))
    batches = [{**batch, "weight": np.ones(3, np.float32)}]
    means = validate(step, state.generator, batches, None, devices.data_mesh())
    target, mask = batch["image"] / np.float32(255), batch["mask"]
    refined = np.asarray(jax.jit(generator.apply)({"params": state.generator}, target, mask).refined)
    by_hand = [np.abs(refined[i] - target[i])[mask[i]].mean() for i in range(3)]
    assert means["hole_l1"] == pytest.approx(np.mean(by_hand), rel=1e-4)
    fills = [-10 * np.log10(np.square(np.float32(HOLE_COLOUR) - target[i])[mask[i]].mean()) for i in range(3)]
    assert means["hole_psnr_fill"] == pytest.approx(np.mean(fills), rel=1e-4)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup", [0, 20])
def test_learning_rate(schedule, warmup):
    config = Config(optimizer=Optimizer(schedule=schedule, warmup_steps=warmup), train=Train(max_steps=100))
    rate = learning_rate(config, 0.4)
    at = rate if callable(rate) else lambda _: rate
    assert at(0) == pytest.approx(0.0 if warmup else 0.4)
    if warmup:
        assert at(5) == pytest.approx(0.1)
    assert at(warmup) == pytest.approx(0.4)
    middle, end = (0.2, 0.0) if schedule == "cosine" else (0.4, 0.4)
    assert at((warmup + 100) // 2) == pytest.approx(middle, abs=1e-6)
    assert at(100) == at(1000) == pytest.approx(end, abs=1e-6)


def test_validation_does_not_depend_on_the_batch_size(parts):
    generator, *_, state, batch = parts
    step = jax.jit(make_validation_step(generator, losses.LossWeights(perceptual=0.0)))
    mesh = devices.data_mesh()
    whole = [{**batch, "weight": np.ones(3, np.float32)}]
    padded = []
    for rows in ([0, 1], [2, 0]):
        part = {name: value[rows] for name, value in batch.items()}
        padded.append({**part, "weight": np.float32([1, 0 if rows == [2, 0] else 1])})
    # What is padding may be anything, holes without a pixel and black images included.
    padded[1]["image"][1], padded[1]["mask"][1] = 0, False
    padded[1]["crop"][1] = 0
    expected = validate(step, state.generator, whole, None, mesh)
    got = validate(step, state.generator, padded, None, mesh)
    assert got == pytest.approx(expected, rel=1e-5)
    assert "adversarial" not in "".join(expected)


def test_meter_reads_late_averages_and_checks():
    lines = []
    meter = Meter(2, 4, lambda step, means: lines.append((step, means)))
    for step in range(1, 6):
        meter.push(step, {"loss": jnp.float32(step)})
        assert len(lines) == (step - 1) // 2, "step n is read after step n + 1 was dispatched"
    meter.flush()
    assert [(step, means["loss"]) for step, means in lines] == [(2, 1.5), (4, 3.5)]
    meter.push(6, {"loss": jnp.float32(6), "gradient_norm": jnp.float32(jnp.nan)})
    with pytest.raises(TrainingDivergedError, match="gradient_norm is nan at step 6"):
        meter.flush()


def test_progress_keeps_the_best():
    progress = Progress()
    assert progress.update(0, 3.0)
    assert progress.update(10, 2.0)
    assert not progress.update(20, 2.0)
    assert (progress.best_step, progress.best_score, progress.validated_step) == (10, 2.0, 20)


def test_without_an_adversarial_weight_there_is_no_critic(parts):
    """The critic stays as it is, nothing of it is logged, and the generator learns from the other terms alone."""
    generator, discriminator, optimizer, state, batch = parts
    networks = generator, GlobalLocalCritic(discriminator, CROP), optimizer, optimizer
    weights = losses.LossWeights(l1="relative", perceptual=0.0, adversarial=0.0)
    new, logged = jax.jit(make_train_step(*networks, weights))(state, batch, None)
    for name in ("discriminator", "spectral", "discriminator_optimizer"):
        jax.tree.map(np.testing.assert_array_equal, getattr(new, name), getattr(state, name))
    assert not [name for name in logged if "discriminator" in name or "logit" in name or "adversarial" in name]
    target = jnp.asarray(batch["image"], jnp.float32) / 255

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        outputs = generator.apply({"params": params}, target, batch["mask"])
        shares = [
            losses.relative_loss(x, target, outputs.filled, batch["mask"]) for x in (outputs.coarse, outputs.refined)
        ]
        return jnp.mean(1.2 * shares[0] + shares[1])

    value, gradient = loss(state.generator)
    assert float(logged["loss/generator"]) == pytest.approx(float(value), rel=1e-5)
    expected = jax.tree.map(lambda p, g: p - 1e-2 * g, state.generator, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.generator, expected)


def test_a_patch_critic_calls_fake_what_the_hole_touches(parts):
    """One step against loops over patches, and the generator's terms."""
    generator, _, optimizer, _, batch = parts
    network = PatchDiscriminator(width=4)
    mask = np.zeros((3, SIZE, SIZE), bool)
    mask[0, 3:9, 3:20], mask[1, 30:, 30:] = True, True  # the third photo has no hole
    batch = {**batch, "mask": mask}
    critic = PatchCritic(network)
    variables = jax.jit(lambda key: critic.init(key, SIZE))(jax.random.key(3))
    params, stats = variables["params"], variables["batch_stats"]
    real = jnp.asarray(batch["image"], jnp.float32) / 255
    fake = jnp.where(mask[..., None], 0.5, real)
    loss, (new_stats, logged) = jax.jit(critic.loss)(params, stats, real, fake, batch, 0)
    terms = jax.jit(critic.generator_terms)(params, new_stats, real, fake, batch)

    judge = jax.jit(
        lambda stats, image: network.apply({"params": params, "batch_stats": stats}, image, mask, update_stats=False)
    )
    (on_real, _), (on_fake, _) = judge(stats, real), judge(stats, fake)
    (_, of_real), (later_on_fake, of_fake) = judge(new_stats, real), judge(new_stats, fake)
    side = SIZE // 8
    assert on_real.shape == (3, side, side)
    total, adversarial = 0.0, []
    for i in range(3):
        touched = []
        for y in range(side):
            for x in range(side):
                is_fake = mask[i, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].any()
                r, f = float(on_real[i, y, x]), float(on_fake[i, y, x])
                total += max(0, 1 - r) + max(0, 1 + f if is_fake else 1 - f)
                touched += [float(later_on_fake[i, y, x])] if is_fake else []
        adversarial.append(-np.mean(touched) if touched else 0.0)
    assert float(loss) == pytest.approx(total / (3 * side * side), rel=1e-4)
    assert float(logged["logit/real"]) == pytest.approx(float(on_real.mean()), rel=1e-4)
    np.testing.assert_allclose(terms["adversarial"], adversarial, rtol=1e-4, atol=1e-6)
    expected = [
        sum(float(jnp.abs(a[i] - b[i]).mean()) for a, b in zip(of_fake, of_real)) / max(mask[i].mean(), 0.02)
        for i in range(3)
    ]
    np.testing.assert_allclose(terms["feature_matching"], expected, rtol=1e-4)
    assert terms["feature_matching"][2] == 0

    weights = losses.LossWeights(perceptual=0.0, adversarial=0.1, feature_matching=0.2)
    networks = generator, critic, optimizer, optimizer
    state = jax.jit(lambda key: create_state(key, *networks, image_size=SIZE))(jax.random.key(0))
    new, logged = jax.jit(make_train_step(*networks, weights))(state, batch, None)
    weighted = 1.2 * logged["loss/coarse"] + logged["loss/refined"] + 0.1 * logged["loss/adversarial"]
    assert float(logged["loss/generator"]) == pytest.approx(
        float(weighted + 0.2 * logged["loss/feature_matching"]), rel=1e-4
    )
    for name in ("generator", "discriminator", "spectral"):
        old = jax.tree.leaves(getattr(state, name))
        assert any((a != b).any() for a, b in zip(old, jax.tree.leaves(getattr(new, name)), strict=True))


def test_cells_of_a_size_that_eight_does_not_divide(parts):
    """What the hole touches has the shape of the logits, and the last cells reach beyond the image."""
    critic = PatchCritic(PatchDiscriminator(width=2), feature_matching=False)
    mask = np.zeros((1, 20, 20), bool)
    mask[0, 19, 19] = True
    variables = jax.eval_shape(lambda: critic.init(jax.random.key(0), 20))
    image, batch = jax.ShapeDtypeStruct((1, 20, 20, 3), np.float32), {"mask": mask}

    def terms(variables, image):
        return critic.generator_terms(variables["params"], variables["batch_stats"], image, image, batch)

    assert jax.eval_shape(terms, variables, image).keys() == {"adversarial"}
    (touched,) = critics._touched(jnp.asarray(mask))
    assert touched.shape == (3, 3)
    assert touched.sum() == touched[2, 2] == 1


def test_a_config_may_ask_for_the_patch_critic(make_config):
    fields = {"model__discriminator": "patch", "loss__feature_matching_weight": 0.1}
    system = make_system(Config.read(make_config(**fields)))
    state = jax.eval_shape(system.initial_state, jax.random.key(0))
    batch = {
        "image": jax.ShapeDtypeStruct((2, SIZE, SIZE, 3), np.uint8),
        "mask": jax.ShapeDtypeStruct((2, SIZE, SIZE), bool),
        "crop": jax.ShapeDtypeStruct((2, 2), np.int32),
    }
    new, logged = jax.eval_shape(system.train_step, state, batch, None)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert {"loss/adversarial", "loss/feature_matching", "loss/discriminator", "logit/fake"} <= logged.keys()
