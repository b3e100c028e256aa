"""Partial convolutions against the outputs of their PyTorch version, and one layer against loops."""

import logging
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from torch_files import write_zip

from inpaint_jax.config import Config
from inpaint_jax.features import vgg_pools, weights
from inpaint_jax.nets.parconv import (
    STATISTICS,
    ParConvUNet,
    PartialConv,
    PartialLayer,
    standardised,
    unstandardised,
    with_statistics,
)
from inpaint_jax.systems import make_system, parconv_weights

TOLERANCE = 1e-4  # of the root mean square; float32 itself is up to 4e-5 of it away from float64

# What the reference calls the output of a layer: ours.
INTERMEDIATES = {
    "enc_1": "encoder_1",
    "enc_2": "encoder_2",
    "enc_4": "encoder_4",
    "enc_7": "encoder_7",
    "dec_7": "decoder_7",
    "dec_5": "decoder_5",
    "dec_3": "decoder_3",
    "dec_2": "decoder_2",
    "dec_1_preact_conv": "decoder_1",
}


@pytest.fixture(scope="module")
def reference(shared):
    """Arrays of the reference, and parameters of the network."""
    folder = shared / "reference" / "compared"
    if not (folder / "parconv.npz").is_file():
        pytest.skip(f"no reference outputs at {folder}")
    recipe = runpy.run_path(str(folder / "compared_systems_recipe.py"))
    with np.load(folder / "parconv.npz") as file:
        arrays = {key: file[key] for key in file.files}
    state = recipe["state"]("parconv", recipe["read_keys"](arrays["keys_generator"]))
    return arrays, parconv_weights.to_params(state)


def batch_of(arrays, *cases):
    images = np.stack([arrays[f"{case}/image_uint8"] for case in cases]) / np.float32(255)
    return images, np.stack([arrays[f"{case}/mask_uint8"] for case in cases])


def as_theirs(x):
    """NHWC in [0, 1] -> NCHW as the network gives it."""
    return np.asarray(standardised(x)).transpose(0, 3, 1, 2)


def assert_agree(ours, theirs, what=""):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * np.sqrt(np.mean(theirs**2)), err_msg=what)


def assert_images_agree(outputs, row, arrays, case):
    every = 1 if case == "a" else 2
    assert_agree(as_theirs(outputs.refined)[row, :, ::every, ::every], arrays[f"{case}/final"])
    composite = as_theirs(jnp.where(arrays[f"{case}/mask_uint8"][..., None] > 0, outputs.refined, outputs.filled))[row]
    chosen = np.linspace(0, composite.size - 1, 4096).astype(np.int64)
    assert_agree(composite.ravel()[chosen], arrays[f"{case}/composite_sample"])


def test_network_agrees_with_the_reference(reference):
    """Cases a and b in one batch, as they came out alone, with intermediate maps and masks."""
    arrays, params = reference
    images, masks = batch_of(arrays, "a", "b")
    outputs, seen = jax.jit(lambda *args: ParConvUNet().apply(*args, capture_intermediates=True))(
        {"params": params}, images, masks
    )
    seen = seen["intermediates"]
    for row, case in enumerate("ab"):
        assert_images_agree(outputs, row, arrays, case)
        for name, ours in INTERMEDIATES.items():
            found = np.asarray(seen[ours]["__call__"][0][0])[row : row + 1].transpose(0, 3, 1, 2)
            assert found.shape == tuple(arrays[f"{case}/{name}/shape"]), name
            np.testing.assert_allclose([found.mean(), found.std()], arrays[f"{case}/{name}/mean_std"], rtol=1e-4)
            theirs = arrays[f"{case}/{name}/sample"]
            chosen = np.linspace(0, found.size - 1, theirs.size).astype(np.int64)
            assert_agree(found.ravel()[chosen], theirs, name)
        for i in range(1, 8):
            valid = np.asarray(seen[f"encoder_{i}"]["__call__"][0][1])[row].mean()
            assert valid == pytest.approx(float(arrays[f"{case}/mask_after_enc_{i}_valid_share"]), abs=1e-6)


@pytest.mark.slow
def test_wide_images_agree(reference):
    arrays, params = reference
    images, masks = batch_of(arrays, "wide")
    assert_images_agree(jax.jit(ParConvUNet().apply)({"params": params}, images, masks), 0, arrays, "wide")


@pytest.mark.parametrize("frozen", [pytest.param(False), pytest.param(True, marks=pytest.mark.slow)])
def test_training_mode_agrees_with_the_reference(frozen, reference):
    """What comes out of a batch, and the running statistics after it, of PyTorch's names and numbers."""
    arrays, params = reference
    network = ParConvUNet(freeze_encoder=frozen)
    run = jax.jit(lambda *args: network.apply(*args, train=True, mutable=[STATISTICS]))
    outputs, updates = run({"params": params}, *batch_of(arrays, "a", "b"))
    case = "train_frozen_encoder_ab" if frozen else "train_ab"
    assert_agree(as_theirs(outputs.refined)[:, :, ::4, ::4], arrays[f"{case}/final"])
    after = with_statistics(params, updates[STATISTICS])
    assert jax.tree.structure(after) == jax.tree.structure(params)
    if frozen:
        kept = {name: layer for name, layer in after.items() if name.startswith("encoder")}
        jax.tree.map(np.testing.assert_array_equal, kept, {name: params[name] for name in kept})
        assert (after["decoder_7"]["norm"]["var"] != params["decoder_7"]["norm"]["var"]).all()
        return
    compared = [name for name in arrays if name.startswith("train_ab/after/")]
    for name in compared:
        layer, _, leaf = name.removeprefix("train_ab/after/").split(".")
        ours = after[layer.replace("enc", "encoder").replace("dec", "decoder")]["norm"]
        assert_agree(ours[leaf.removeprefix("running_")], arrays[name], name)
    assert len(compared) == 4


def test_parameters():
    """As many as published that learn; two statistics for every channel that is normalised."""
    image, mask = jax.ShapeDtypeStruct((1, 128, 128, 3), jnp.float32), jax.ShapeDtypeStruct((1, 128, 128), jnp.float32)
    shapes = jax.eval_shape(ParConvUNet().init, jax.random.key(0), image, mask)
    assert set(shapes) == {"params"}
    leaves = flatten_dict(shapes["params"])
    statistics = {path: leaf.size for path, leaf in leaves.items() if path[-1] in ("mean", "var")}
    assert sum(leaf.size for leaf in leaves.values()) - sum(statistics.values()) == 25_779_796
    assert sum(statistics.values()) == 2 * (128 + 256 + 4 * 512 + 3 * 512 + 256 + 128 + 64)


def slow_partial_conv(maps, masks, kernel, bias, stride):
    """One sample in loops and float64: maps [H, W, C], each with a mask [H, W], side by side."""
    side, reach = len(kernel), len(kernel) // 2
    x = np.concatenate([each * mask[..., None] for each, mask in zip(maps, masks)], axis=-1).astype(np.float64)
    m = np.concatenate([np.repeat(mask[..., None], each.shape[-1], -1) for each, mask in zip(maps, masks)], axis=-1)
    x, m = (np.pad(each, ((reach, reach), (reach, reach), (0, 0))) for each in (x, m))
    height, width = (-(-(size - 2 * reach) // stride) for size in x.shape[:2])
    out, valid = np.zeros((height, width, kernel.shape[-1])), np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            rows, columns = (slice(stride * at, stride * at + side) for at in (i, j))
            total = m[rows, columns].sum()
            if total > 0:
                valid[i, j] = 1
                products = np.einsum("ijc,ijcd->d", x[rows, columns], kernel.astype(np.float64))
                out[i, j] = products * np.prod(kernel.shape[:3]) / total + bias
    return out, valid


@pytest.mark.parametrize("skip", [False, True])
def test_partial_convolution_agrees_with_loops(skip):
    """With windows that hold nothing, some, or all; up-sampled beside a skip of other channels and holes, or alone."""
    rng = np.random.default_rng(0)
    x, valid = rng.normal(size=(2, 10, 12, 4)).astype(np.float32), np.ones((2, 10, 12, 1), np.float32)
    valid[0, 2:9, 1:8], valid[1, :, 6:] = 0, 0
    beside, beside_valid = rng.normal(size=(2, 20, 24, 3)).astype(np.float32), np.ones((2, 20, 24, 1), np.float32)
    beside_valid[:, 3:19, 4:20] = 0
    args = jax.tree.map(jnp.asarray, (x, valid, (beside, beside_valid)) if skip else (x, valid))
    layer = PartialConv(5, 3, 1 if skip else 2, bias=True)
    params = layer.init(jax.random.key(0), *args)["params"] | {"bias": rng.normal(size=5).astype(np.float32)}
    ours, ours_valid = layer.apply({"params": params}, *args)
    kernel, bias = np.asarray(params["kernel"]), params["bias"]
    for row in range(2):
        maps, masks = [x[row]], [valid[row, ..., 0]]
        if skip:
            maps, masks = ([each[0].repeat(2, 0).repeat(2, 1)] for each in (maps, masks))
            maps, masks = [*maps, beside[row]], [*masks, beside_valid[row, ..., 0]]
        expected, expected_valid = slow_partial_conv(maps, masks, kernel, bias, 1 if skip else 2)
        np.testing.assert_allclose(ours[row], expected, atol=1e-5)
        np.testing.assert_array_equal(ours_valid[row, ..., 0], expected_valid)
        assert set(np.unique(expected_valid)) == {0, 1}


def test_any_size_and_nothing_from_the_hole_and_known_pixels_as_given():
    rng = np.random.default_rng(0)
    image = rng.random((2, 21, 35, 3), np.float32)
    hole = np.zeros((2, 21, 35), bool)
    hole[0, 4:11, 5:18], hole[1, 8:, 20:] = True, True
    network = ParConvUNet(4)
    variables = jax.jit(network.init)(jax.random.key(0), image, hole)
    apply = jax.jit(network.apply)
    outputs = apply(variables, image, hole)
    assert outputs.completed.shape == image.shape
    assert outputs.temperatures.shape == (2, network.temperature_count) == (2, 0)
    np.testing.assert_array_equal(np.asarray(outputs.completed)[~hole], image[~hole])
    np.testing.assert_allclose(np.asarray(outputs.completed)[hole], np.clip(outputs.refined, 0, 1)[hole], atol=1e-6)
    np.testing.assert_allclose(unstandardised(standardised(image)), image, atol=1e-6)
    other = np.where(hole[..., None], 1 - image, image)
    np.testing.assert_array_equal(apply(variables, other, hole).completed, outputs.completed)
    # An untrained network sees its input: what is known matters to what is filled.
    assert np.abs(apply(variables, 1 - image, hole).refined - outputs.refined).max() > 0.01
    everything = apply(variables, image, np.ones_like(hole))
    assert np.isfinite(everything.completed).all()


def test_no_gradient_reaches_statistics():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    layer, valid = PartialLayer(2), jnp.ones((2, 8, 8, 1))
    params = layer.init(jax.random.key(0), x, valid, train=False)["params"]
    for train in (False, True):
        slope = jax.grad(
            lambda params, train=train: (layer.apply({"params": params}, x, valid, train=train)[0] ** 2).sum()
        )(params)
        learns = {path: bool(np.any(leaf)) for path, leaf in flatten_dict(slope, sep="/").items()}
        assert learns == {
            "conv/kernel": True,
            "norm/scale": True,
            "norm/bias": True,
            "norm/mean": False,
            "norm/var": False,
        }


@pytest.mark.usefixtures("own_checks")
def test_what_does_not_fit_is_refused():
    image, hole = np.zeros((1, 16, 16, 3), np.float32), np.zeros((1, 16, 16))
    for given in ({"sketch": hole}, {"temperatures": np.ones((1, 1))}, {"without": ["attention"]}, {"guess": image}):
        with pytest.raises(ValueError, match="takes an image and its mask"):
            ParConvUNet(2).init(jax.random.key(0), image, hole, **given)
    with pytest.raises(ValueError, match="mask must be"):
        ParConvUNet(2).init(jax.random.key(0), image, hole[0])


def slow_terms(image, truth, hole, pools):
    """The losses of one batch in numpy, of images less the mean colour: name -> mean."""
    completed = np.where(hole[..., None], image, truth)
    distance = np.abs(image - truth)

    def distances(of):
        pairs = [zip(pools(x), pools(truth)) for x in (image, completed)]
        return sum(np.abs(of(a) - of(b)).mean() for pair in pairs for a, b in pair)

    def gram(x):
        flat = np.asarray(x, np.float64).reshape(len(x), -1, x.shape[-1])
        return flat.transpose(0, 2, 1) @ flat / flat[0].size

    steps = [np.abs(np.diff(completed, axis=axis)).mean() for axis in (1, 2)]
    return {
        "valid": (distance * ~hole[..., None]).mean(),
        "hole": (distance * hole[..., None]).mean(),
        "perceptual": distances(np.asarray),
        "style": distances(gram),
        "total_variation": sum(steps),
    }


@pytest.mark.slow
def test_a_step_takes_the_published_losses_and_keeps_statistics(make_config, tmp_path, caplog):
    rng = np.random.default_rng(0)
    channels = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256)}
    vgg = {
        f"features.{i}.weight": rng.normal(size=(d, c, 3, 3)) * (9 * c / 2) ** -0.5 for i, (c, d) in channels.items()
    }
    vgg |= {f"features.{i}.bias": np.zeros(d, np.float32) for i, (_, d) in channels.items()}
    write_zip(tmp_path / "vgg.pth", vgg)
    no_critic = {"model__discriminator_width": 64, "model__discriminator_features": 1024}
    fields = {"system": "parconv", "model__width": 2, "loss__perceptual_weight": 0.05, **no_critic}
    fields |= {"loss__vgg_weights": str(tmp_path / "vgg.pth"), "optimizer__generator_learning_rate": 3e-3}
    system = make_system(Config.read(make_config(**fields)))
    assert "These losses are off" not in caplog.text
    state = start = jax.jit(system.initial_state)(jax.random.key(0))
    batch = {"image": rng.integers(256, size=(2, 32, 32, 3), dtype=np.uint8), "mask": rng.random((2, 32, 32)) < 0.3}
    step = jax.jit(system.train_step)
    logs = []
    for _ in range(10):
        state, logged = step(state, batch, system.frozen)
        logs.append(logged)

    # By a slow version: what the first step logs, and the statistics that it leaves.
    target = batch["image"] / np.float32(255)
    run = jax.jit(lambda params: ParConvUNet(2).apply({"params": params}, target, batch["mask"], train=True))
    image, truth = (np.asarray(standardised(x)) for x in (run(start.generator).refined, target))
    pools = jax.jit(lambda x: vgg_pools.pools(system.frozen, x))
    terms = slow_terms(image, truth, batch["mask"], pools)
    for name, value in terms.items():
        assert float(logs[0][f"loss/{name}"]) == pytest.approx(value, rel=1e-3), name
    factors = {"valid": 1, "hole": 6, "perceptual": 0.05, "style": 120, "total_variation": 0.1}
    total = sum(factors[name] * value for name, value in terms.items())
    assert float(logs[0]["loss/generator"]) == pytest.approx(total, rel=1e-3)
    assert logs[-1]["loss/generator"] < 0.9 * logs[0]["loss/generator"]
    for layer in ("encoder_2", "decoder_2"):
        means = state.generator[layer]["norm"]["mean"]
        assert np.abs(means).max() > 1e-3
        # The gradient of a statistic is zero, so that Adam keeps nothing of it.
        moments = state.generator_optimizer[0].mu[layer]["norm"]
        assert np.any(moments["scale"])
        assert not np.any(moments["mean"])


def test_losses_that_are_off_are_said(make_config, tmp_path, caplog, monkeypatch):
    """Without a file, there is an error; nothing is left out in silence."""
    monkeypatch.setenv("INPAINT_JAX_CACHE", str(tmp_path))
    for variable in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # no network, on any machine
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    no_critic = {"model__discriminator_width": 64, "model__discriminator_features": 1024}
    with pytest.raises(weights.WeightsUnavailable, match=r"vgg16-397923af\.pth from https://download\.pytorch\.org"):
        make_system(Config.read(make_config(system="parconv", **no_critic)))
    with caplog.at_level(logging.WARNING, "inpaint_jax"):
        system = make_system(Config.read(make_config(system="parconv", loss__style_weight=0.0, **no_critic)))
    assert system.frozen is None
    assert "These losses are off, since their weights are 0: perceptual, style." in caplog.text
