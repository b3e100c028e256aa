"""DeepFillv2 against the outputs of its PyTorch versions, and its attention against loops."""

import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint_jax import inspection
from inpaint_jax.config import Config, Model
from inpaint_jax.inference import Inpainter
from inpaint_jax.nets.deepfillv2 import DeepFillV2, DeepFillV2Discriminator
from inpaint_jax.nets.deepfillv2_attention import deepfillv2_attention, evenly_spaced
from inpaint_jax.nets.generator import Generator
from inpaint_jax.systems import deepfillv2_weights
from inpaint_jax.systems.deepfillv2 import DeepFillV2Critic

FILES = {"pt": "deepfillv2", "tf": "deepfillv2_tf"}
TOLERANCE = 2e-5  # of images in [-1, 1]; float32 itself is 5e-6 away from float64

# What the reference calls the output of a module: its path here.
INTERMEDIATES = {
    "s1_conv1": "coarse/encoder/conv_0",
    "s1_down": "coarse/encoder",
    "s1_dilated16": "coarse/middle_4",
    "s1_up": "coarse/decoder/conv_1",
    "s2_conv_branch": "refinement/texture_4",
    "s2_attn_in": "refinement/context_0",
    "s2_attn_branch": "refinement/context_2",
    "s2_up": "refinement/decoder/conv_1",
}


@pytest.fixture(scope="module", params=FILES)
def reference(request, shared):
    """(variant, arrays of the reference, parameters of the generator, state_dict of the discriminator)."""
    folder, name = shared / "reference" / "compared", FILES[request.param]
    if not (folder / f"{name}.npz").is_file():
        pytest.skip(f"no reference outputs at {folder}")
    recipe = runpy.run_path(str(folder / "compared_systems_recipe.py"))
    with np.load(folder / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    weights, judge = (
        recipe["state"](system, recipe["read_keys"](arrays[keys]))
        for system, keys in ((name, "keys_generator"), (f"{name}_d", "keys_discriminator"))
    )
    return request.param, arrays, deepfillv2_weights.to_params(weights, request.param), judge


def batch_of(arrays, *cases):
    images = np.stack([arrays[f"{case}/image_uint8"] for case in cases]) / np.float32(255)
    return images, np.stack([arrays[f"{case}/mask_uint8"] for case in cases])


def as_theirs(x):
    """NHWC in [0, 1] -> NCHW in [-1, 1]."""
    return 2 * np.asarray(x).transpose(0, 3, 1, 2) - 1


def samples_of(x, arrays, name):
    """What the reference has of a map: values [N] of NHWC x in their order, and theirs."""
    theirs = arrays[f"{name}/sample"]
    flat = np.asarray(x).transpose(0, 3, 1, 2)
    assert flat.shape == tuple(arrays[f"{name}/shape"]), name
    np.testing.assert_allclose([flat.mean(), flat.std()], arrays[f"{name}/mean_std"], rtol=1e-4, atol=1e-5)
    return flat.ravel()[np.linspace(0, flat.size - 1, theirs.size).astype(np.int64)], theirs


def assert_images_agree(outputs, row, arrays, case):
    every = 1 if case == "a" else 2
    final = as_theirs(outputs.refined)[row]
    np.testing.assert_allclose(final[:, ::every, ::every], arrays[f"{case}/final"], atol=TOLERANCE)
    coarse = as_theirs(outputs.coarse)[row, :, ::2, ::2]
    np.testing.assert_allclose(coarse, arrays[f"{case}/coarse"], atol=TOLERANCE)
    completed = np.asarray(outputs.completed[row, ::4, ::4]) * 255
    assert np.abs(completed - arrays[f"{case}/composite_uint8_stride4"]).max() < 1.01  # they truncate


def test_generator_and_discriminator_agree_with_the_reference(reference):
    """Cases a and b in one batch, as they came out alone: every sample has its own mask. With intermediate maps."""
    variant, arrays, params, judge = reference
    images, masks = batch_of(arrays, "a", "b")
    generator = DeepFillV2(variant=variant)
    outputs, seen = jax.jit(lambda x, m: generator.apply({"params": params}, x, m, capture_intermediates=True))(
        images, masks
    )
    for row, case in enumerate("ab"):
        assert_images_agree(outputs, row, arrays, case)
        maps = {}
        for name, path in INTERMEDIATES.items():
            module = seen["intermediates"]
            for part in path.split("/"):
                module = module[part]
            maps[name] = np.asarray(module["__call__"][0])[row : row + 1]
        options = {"fuse": variant == "pt", "align_corners": variant == "tf"}
        attend = jax.jit(lambda x, m, options=options: deepfillv2_attention(x, m, **options))
        maps["s2_attn_out"] = attend(maps["s2_attn_in"], masks[row : row + 1])
        for name, found in maps.items():
            ours, theirs = samples_of(found, arrays, f"{case}/{name}")
            np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * max(1, np.abs(theirs).max()), err_msg=name)

    # The judge's first two calls, on [a, b, completed a, completed b]; between them only its power iteration goes on.
    both, holes = jnp.concatenate([images, outputs.completed]), np.concatenate([masks, masks])
    network = DeepFillV2Discriminator(variant=variant)
    variables = judge_variables(judge)
    call = jax.jit(
        lambda params, stats: network.apply(
            {"params": params, "batch_stats": stats},
            both,
            holes,
            update_stats=True,
            mutable=["batch_stats", "intermediates"],
            capture_intermediates=lambda module, _: (module.name or "").endswith("_norm"),
        )
    )
    stats, judged = variables["batch_stats"], {}
    for number in (1, 2):
        scores, kept = call(variables["params"], stats)
        stats = kept["batch_stats"]
        judged[number] = np.asarray(scores)
        flat = judged[number].transpose(0, 3, 1, 2).reshape(4, -1)[:, ::4]
        np.testing.assert_allclose(flat, arrays[f"disc/scores_call{number}"], atol=TOLERANCE)
        if number == 2:
            break
        for i in range(6):
            found = kept["intermediates"][f"conv_{i}_norm"]["__call__"][0]
            ours, theirs = samples_of(jax.nn.leaky_relu(found, 0.2), arrays, f"disc/d_conv{i + 1}")
            np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * max(1, np.abs(theirs).max()))
            kept_u = stats[f"conv_{i}_norm"][f"conv_{i}/kernel/u"].T
            np.testing.assert_allclose(kept_u, arrays[f"disc/conv{i + 1}/weight_u_after_call1"], atol=TOLERANCE)

    hinge = 0.5 * (np.maximum(0, 1 - judged[1][:2]).mean() + np.maximum(0, 1 + judged[1][2:]).mean())
    assert hinge == pytest.approx(float(arrays["disc/hinge_d_call1"]), abs=TOLERANCE)
    assert -judged[2][2:].mean() == pytest.approx(float(arrays["disc/hinge_g_fakes_call2"]), abs=TOLERANCE)
    l1 = 2 * np.abs(images[0] - np.asarray(outputs.refined[0])).mean()
    assert l1 == pytest.approx(float(arrays["l1_mean_real_minus_final_a"]), abs=TOLERANCE)


def judge_variables(state):
    """The discriminator's variables from the reference's state_dict."""
    params, stats = {}, {}
    for i in range(6):
        theirs = f"conv{i + 1}.conv_sn"
        params[f"conv_{i}"] = {
            "kernel": jnp.asarray(state[f"{theirs}.weight"].transpose(2, 3, 1, 0)),
            "bias": jnp.asarray(state[f"{theirs}.bias"]),
        }
        u = jnp.asarray(state[f"{theirs}.weight_u"].T)
        stats[f"conv_{i}_norm"] = {f"conv_{i}/kernel/u": u, f"conv_{i}/kernel/sigma": jnp.ones(())}
    return {"params": params, "batch_stats": stats}


@pytest.mark.slow
def test_wide_images_and_the_published_mask_for_a_batch_agree(reference):
    variant, arrays, params, _ = reference
    images, masks = batch_of(arrays, "wide")
    apply = jax.jit(DeepFillV2(variant=variant).apply)
    assert_images_agree(apply({"params": params}, images, masks), 0, arrays, "wide")
    images, masks = batch_of(arrays, "a", "b")
    apply = jax.jit(DeepFillV2(variant=variant, shared_mask=True).apply)
    shared_mask = as_theirs(apply({"params": params}, images, masks).refined)[1, :, ::4, ::4]
    np.testing.assert_allclose(shared_mask, arrays["batch_ab/final_b"], atol=TOLERANCE)
    assert np.abs(shared_mask - arrays["b/final"][:, ::2, ::2]).max() > 0.1


def test_parameters():
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 256, 256), jnp.float32)
    key = jax.random.key(0)

    def count(params):
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    for variant in FILES:
        params = jax.eval_shape(DeepFillV2(variant=variant).init, key, image, mask)["params"]
        assert (count(params["coarse"]), count(params["refinement"])) == (1_631_151, 2_421_327)
        network = DeepFillV2Discriminator(variant=variant)
        judge = jax.eval_shape(lambda *args, network=network: network.init(*args, update_stats=False), key, image, mask)
        assert count(judge["params"]) == 5_946_816


def slow_attention(features, mask, fuse, align_corners):
    """One sample, [H, W, C], in loops and float64, step by step as published."""
    f = np.asarray(features, np.float64)
    height, width, channels = f.shape
    h, w = height // 2, width // 2

    def places(side, rate):
        if align_corners:
            return [int(np.floor(i * (side - 1) / (side // rate - 1) + 0.5)) for i in range(side // rate)]
        return list(range(0, side, rate))

    small = np.zeros((h + 2, w + 2, channels))
    hole = np.zeros((h + 2, w + 2))
    for i, (y, top) in enumerate(zip(places(height, 2), places(4 * height, 8))):
        for j, (x, left) in enumerate(zip(places(width, 2), places(4 * width, 8))):
            small[i + 1, j + 1], hole[i + 1, j + 1] = f[y, x], mask[top, left]
    cells = [(i, j) for i in range(h) for j in range(w)]
    patches = [small[i : i + 3, j : j + 3].ravel() for i, j in cells]
    valid = np.array([float(hole[i : i + 3, j : j + 3].sum() == 0) for i, j in cells])
    scores = np.array([[key @ query / max(np.linalg.norm(key), 1e-4) for query in patches] for key in patches])

    def fused(scores):
        total = np.zeros_like(scores)
        for i in range(len(cells)):
            for j in range(len(cells)):
                for d in (-1, 0, 1):
                    if 0 <= i + d < len(cells) and 0 <= j + d < len(cells):
                        total[i, j] += scores[i + d, j + d]
        return total

    if fuse:
        turned = np.array([i * w + j for j in range(w) for i in range(h)])  # row-major places, column by column
        scores = fused(scores)
        scores[np.ix_(turned, turned)] = fused(scores[np.ix_(turned, turned)])
    scores = 10 * scores * valid[:, None]
    weights = np.exp(scores - scores.max(axis=0))
    weights = weights / weights.sum(axis=0) * valid[:, None]
    padded = np.pad(f, ((1, 1), (1, 1), (0, 0)))
    total = np.zeros_like(padded)
    for query, (y, x) in enumerate(cells):
        for key, (i, j) in enumerate(cells):
            total[2 * y : 2 * y + 4, 2 * x : 2 * x + 4] += (
                weights[key, query] * padded[2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
            )
    return total[1:-1, 1:-1] / 4


def attention_sample(height=10, width=12):
    rng = np.random.default_rng(0)
    features = 0.3 * rng.normal(size=(2, height, width, 3)).astype(np.float32)
    mask = np.zeros((2, 4 * height, 4 * width), bool)
    mask[0, 5:14, 9:30] = True
    mask[1, 20:, 33:] = True
    return features, mask


@pytest.mark.parametrize(("fuse", "align_corners"), [(True, False), (False, True), (True, True)])
def test_attention_agrees_with_loops(fuse, align_corners):
    features, mask = attention_sample()
    attended = deepfillv2_attention(features, mask, fuse=fuse, align_corners=align_corners)
    expected = np.stack([slow_attention(f, m, fuse, align_corners) for f, m in zip(features, mask)])
    np.testing.assert_allclose(attended, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_evenly_spaced_pixels_are_those_of_pytorch():
    assert evenly_spaced(8, 1).tolist() == [0]
    assert evenly_spaced(12, 6).tolist() == [0, 2, 4, 7, 9, 11]
    # Exactly 28.5, 46.5, 92.5, 100.5, 60.5: what torch.linspace(0, side - 1, side // 2) + 0.5 rounds down to (2.14).
    for side, middle in ((58, 28), (94, 46), (186, 93), (202, 101), (242, 120)):
        assert evenly_spaced(side, side // 2)[side // 4] == middle


def test_attention_takes_nothing_from_the_hole():
    """Pixels far inside change nothing elsewhere; without any known key there is nothing to take."""
    features, _ = attention_sample(16, 16)
    mask = np.zeros((2, 64, 64), bool)
    mask[:, 16:48, 16:48] = True
    changed = features.copy()
    changed[:, 8, 8] = 5.0
    before, after = (np.asarray(deepfillv2_attention(x, mask, fuse=False)) for x in (features, changed))
    difference = np.abs(before - after).max(axis=(0, 3))
    assert difference[5:13, 5:13].max() > 1e-3  # as a query
    difference[5:13, 5:13] = 0
    assert difference.max() < 1e-6
    np.testing.assert_array_equal(deepfillv2_attention(features, np.ones((2, 64, 64), bool)), 0)


@pytest.mark.usefixtures("own_checks")
def test_what_does_not_fit_is_refused():
    features, mask = attention_sample()
    with pytest.raises(ValueError, match="even height and width, and the mask four times that"):
        deepfillv2_attention(features, mask[:, 1:])
    with pytest.raises(ValueError, match="even height"):
        deepfillv2_attention(features[:, 1:], mask[:, 4:])
    image, hole = np.zeros((1, 16, 16, 3), np.float32), np.zeros((1, 16, 16))
    for given in ({"sketch": hole}, {"temperatures": np.ones((1, 1))}, {"without": ["attention"]}, {"guess": image}):
        with pytest.raises(ValueError, match="takes an image and its mask"):
            DeepFillV2(4).init(jax.random.key(0), image, hole, **given)
    with pytest.raises(ValueError, match="variant must be pt or tf, not 'torch'"):
        DeepFillV2(4, "torch").init(jax.random.key(0), image, hole)


def test_any_size_and_nothing_from_the_hole_and_known_pixels_as_given():
    rng = np.random.default_rng(0)
    image = rng.random((2, 21, 35, 3), np.float32)
    hole = np.zeros((2, 21, 35), bool)
    hole[0, 4:11, 5:18], hole[1, 8:, 20:] = True, True
    generator = DeepFillV2(4)
    variables = jax.jit(generator.init)(jax.random.key(0), image, hole)
    apply = jax.jit(generator.apply)
    outputs = apply(variables, image, hole)
    assert outputs.completed.shape == image.shape
    assert outputs.temperatures.shape == (2, generator.temperature_count) == (2, 0)
    assert Generator(4).temperature_count == 2
    np.testing.assert_array_equal(np.asarray(outputs.completed)[~hole], image[~hole])
    np.testing.assert_array_equal(np.asarray(outputs.completed)[hole], np.asarray(outputs.refined)[hole])
    np.testing.assert_array_equal(np.asarray(outputs.filled)[hole], 0.5)
    other = np.where(hole[..., None], 1 - image, image)
    np.testing.assert_array_equal(apply(variables, other, hole).completed, outputs.completed)


def test_what_makes_no_sense_for_it_gets_a_sentence():
    config = Config(name="other", system="deepfillv2", model=Model(width=4))
    image, hole = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 32, 32), bool)
    shapes = jax.eval_shape(DeepFillV2(4).init, jax.random.key(0), image / np.float32(255), hole)["params"]
    inpainter = Inpainter(config, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes), 0)
    assert not inpainter.guided
    assert not inpainter.fills_wide_holes
    for run, message in (
        (lambda: inpainter.predict(image, hole, temperatures=np.ones((1, 1))), "'other' has no temperatures; leave"),
        (lambda: inpainter.predict(image, hole, without=["attention"]), "nothing to do without"),
        (lambda: inpainter.predict(image, hole, hole), "'other' was trained without sketches; leave the sketch out"),
        (lambda: inpainter.attention_inputs(image[0], hole[0]), "'deepfillv2' attention, which can not be looked into"),
        (
            lambda: inspection.temperatures_by_ratio(inpainter, inspection.Samples(image, hole)),
            "'other' has no temperatures",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            run()


def test_critic_takes_half_the_hinge_loss_over_all_scores():
    rng = np.random.default_rng(0)
    real, fake = (jnp.asarray(rng.random((2, 32, 32, 3)), jnp.float32) for _ in range(2))
    batch, step = {"mask": jnp.asarray(rng.random((2, 32, 32)) > 0.7)}, jnp.zeros((), jnp.int32)
    network = DeepFillV2Discriminator(4)
    critic = DeepFillV2Critic(network)
    variables = jax.jit(lambda key: critic.init(key, 32))(jax.random.key(0))
    params = jax.tree.map(lambda leaf: 30 * leaf, variables["params"])  # biases: scores beyond the hinges, too
    stats = variables["batch_stats"]
    loss, (stats, logged) = critic.loss(params, stats, real, fake, batch, step)

    def judge(image):
        variables = {"params": params, "batch_stats": stats}
        return np.asarray(network.apply(variables, image, batch["mask"], update_stats=False))

    # Its power iteration has gone on for a step meanwhile, which moves scores a little.
    on_real, on_fake = judge(real), judge(fake)
    assert (np.abs(on_real) > 1).any()
    hinge = np.maximum(0, 1 - on_real).mean() + np.maximum(0, 1 + on_fake).mean()
    assert float(loss) == pytest.approx(0.5 * hinge, rel=0.1)
    assert float(logged["logit/fake"]) == pytest.approx(on_fake.mean(), rel=0.1)
    terms = critic.generator_terms(params, stats, real, fake, batch)
    np.testing.assert_allclose(terms["adversarial"], -on_fake.mean(axis=(1, 2, 3)), rtol=1e-4)
