"""What has to be right on a device before its speed counts; each check is an error beside its bound.

    python benchmarks/gpu_checks.py --photos=PACK [--checks=attention,step,resume] [--json=FILE]

attention: each method in value and gradient against the float64 numpy version of the tests, with a sample that has no
valid key, and for bfloat16 features; then at 64 x 64 with the heads of the paper's width against the CPU. step: a
training step against the CPU's, and in bfloat16 against float32. resume: four steps at a stretch against two and two,
bit for bit; on a GPU this needs XLA_FLAGS=--xla_gpu_deterministic_ops=true.
"""

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hardware import describe, describe_devices
from timing import Table

from inpaint_jax import checkpoints
from inpaint_jax.config import Config, to_config_dict
from inpaint_jax.nets.attention import METHODS, masked_patch_attention
from inpaint_jax.systems import make_system
from inpaint_jax.training import loop
from inpaint_jax.training.feed import Feed

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import attention_reference as reference

# Map of the comparison with numpy, which takes seconds, and of that with the CPU.
SMALL, LARGE = (17, 23, 8), (64, 64, 48)
HALF_STEP = 2**-8  # of bfloat16
SIZE, WIDTH, BATCH = 64, 8, 4  # of the training steps


def main() -> None:
    """Makes all checks, prints the table, and writes JSON after each; exits with 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--checks", default=",".join(CHECKS))
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    if unknown := set(arguments.checks.split(",")) - set(CHECKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    rows: list[dict[str, Any]] = []
    result = {**describe_devices(), **describe(("jax", "jaxlib", "flax", "numpy")), "rows": rows}
    table = Table({"check": 60, "error": 9, "bound": 9, "passed": 6})
    for name in arguments.checks.split(","):
        try:
            for what, error, bound in CHECKS[name](arguments.photos):
                passed = bool(error <= bound)  # not so for NaN
                rows.append({"check": what, "error": float(error), "bound": float(bound), "passed": passed})
                table.row(what, f"{error:.2g}", f"{bound:.2g}", str(passed))
        except Exception:  # the other checks are made all the same, and the exit code says it
            traceback.print_exc()
            rows.append({"check": name, "passed": False, "traceback": traceback.format_exc()})
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(0 if all(row["passed"] for row in rows) else 1)


Rows = Iterator[tuple[str, float, float]]


def check_attention(photos: Path) -> Rows:
    """Relative to the largest value; a gradient along a random direction, and as a share of what its length gives."""
    del photos
    features, mask, temperature = _maps(SMALL, (0.1, 0.01, 0.7))
    mask[2] = 1  # no valid key
    rng = np.random.default_rng(1)
    weights, *directions = (rng.normal(size=features.shape).astype(np.float32) for _ in range(2))
    directions.append(np.float32([0.5, 0.1, -0.7]) * temperature)
    exact = [np.float64(features), np.float64(temperature)]
    expected = reference.masked_patch_attention(exact[0], mask, exact[1])
    half = jnp.asarray(features, jnp.bfloat16)
    expected_half = reference.masked_patch_attention(np.asarray(half, np.float64), mask, exact[1])
    slopes = []
    for i, direction in enumerate(directions):
        sides = []
        for step in (1e-4, -1e-4):
            moved = [value + step * direction if j == i else value for j, value in enumerate(exact)]
            sides.append(np.sum(weights * reference.masked_patch_attention(moved[0], mask, moved[1])))
        slopes.append((sides[0] - sides[1]) / 2e-4)

    methods = [method for method in METHODS if method != "auto"]
    for method in methods:
        attend = partial(masked_patch_attention, method=method)
        label = f"{method}, {SMALL[0]} x {SMALL[1]}, against numpy:"
        # The bounds are those of `masked_patch_attention`.
        for i, t in enumerate(temperature):
            value = jax.jit(attend)(features, mask, temperature)[i]
            yield f"{label} value at t = {t:.2g}", _largest(value, expected[i]), max(1e-5, 4e-7 / t)
        value = jax.jit(attend)(half, mask, temperature)
        yield f"{label} bfloat16 value", _largest(value, expected_half), 3 * HALF_STEP
        gradients = jax.jit(jax.grad(lambda f, t, a=attend: jnp.sum(weights * a(f, mask, t)), (0, 1)))
        for name, g, d, slope in zip(("features", "t"), gradients(features, temperature), directions, slopes):
            g = np.float64(g)
            length = np.linalg.norm(g) * np.linalg.norm(d) / np.sqrt(g.size)
            yield f"{label} gradient by {name}", abs(np.sum(g * d) - slope) / length, 2e-3

    features, mask, temperature = _maps(LARGE, (0.1, 0.01))
    with jax.default_device(jax.devices("cpu")[0]):
        expected = np.asarray(jax.jit(partial(masked_patch_attention, method="blocked"))(features, mask, temperature))
    for method in methods:
        value = jax.jit(partial(masked_patch_attention, method=method))(features, mask, temperature)
        yield f"{method}, {LARGE[0]} x {LARGE[1]}, against the CPU: value", _largest(value, expected), 8e-5


def check_step(photos: Path) -> Rows:
    """Losses, norms and temperatures, relatively; and the gradient, by the length of the difference."""
    in_float, in_bfloat = (_config(photos, dtype) for dtype in ("float32", "bfloat16"))
    batches = Feed.open(in_float).training_batches(0)
    batch = next(batches)
    batches.close()
    kind = jax.devices()[0].device_kind
    with jax.default_matmul_precision("highest"):
        with jax.default_device(jax.devices("cpu")[0]):
            on_cpu = _first_step(in_float, batch)
        here = _first_step(in_float, batch)
    for name in sorted(on_cpu[0]):
        yield f"step on {kind}, against the CPU: {name}", _relative(here[0][name], on_cpu[0][name]), 2e-3
    yield f"step on {kind}, against the CPU: gradient", _relative(here[1], on_cpu[1]), 1e-2
    # On a CPU: losses within 3e-4, the gradient within 0.014.
    half = _first_step(in_bfloat, batch)
    label = f"step on {kind}, bfloat16 against float32:"
    for name in ("loss/coarse", "loss/refined", "loss/discriminator"):
        yield f"{label} {name}", _relative(half[0][name], here[0][name]), 5 * HALF_STEP
    yield f"{label} gradient", _relative(half[1], here[1]), 0.1


def check_resume(photos: Path) -> Rows:
    """How many numbers of the state differ."""
    config = _config(photos, "bfloat16").to_dict()
    config["loss"] |= {"adversarial_weight": 0.0}  # as the day trains, and quicker to compile
    with tempfile.TemporaryDirectory() as folder:
        ends = []
        for run, stops in (("straight", (4,)), ("resumed", (2, 4))):
            for stop in stops:
                fields = to_config_dict(Config.read(config | {"train": config["train"] | {"max_steps": stop}}))
                loop.train(fields, Path(folder, run))
            ends.append([checkpoints.load_item(Path(folder, run), 4, item) for item in ("generator", "rest")])
    pairs = zip(*(jax.tree.leaves(jax.device_get(end)) for end in ends), strict=True)
    differing = sum(int(np.sum(np.asarray(a) != np.asarray(b))) for a, b in pairs)
    yield "four steps, at a stretch and resumed: numbers that differ", differing, 0


CHECKS: dict[str, Callable[[Path], Rows]] = {
    "attention": check_attention,
    "step": check_step,
    "resume": check_resume,
}


def _maps(shape: tuple[int, int, int], temperatures: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, masks with a hole of their own, and temperatures, one sample for each of these."""
    rng = np.random.default_rng(0)
    height, width, _ = shape
    mask = np.zeros((len(temperatures), height, width), np.float32)
    for i in range(len(temperatures)):
        top, left = rng.integers(0, height // 2), rng.integers(0, width // 2)
        mask[i, top : top + height // 3, left : left + width // 2] = 1
    features = rng.normal(size=(len(temperatures), *shape)).astype(np.float32)
    return features, mask, np.float32(temperatures)


def _config(photos: Path, dtype: str) -> Config:
    """The paper's settings, small, with an average and without VGG."""
    fields = Config().to_dict()
    fields |= {"dtype": dtype, "batch_size": BATCH}
    fields["data"] |= {"train": f"folder:{photos}/train", "validation": f"folder:{photos}/val"}
    fields["data"] |= {"image_size": SIZE, "workers": 0, "validation_limit": BATCH}
    fields["model"] |= {"width": WIDTH, "discriminator_width": WIDTH, "discriminator_features": 64}
    fields["loss"] |= {"perceptual_weight": 0.0}
    fields["optimizer"] |= {"ema_decay": 0.9}
    fields["train"] |= {"samples": 0, "log_every_steps": 1}
    return Config.read(fields)


def _first_step(config: Config, batch: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The metrics, and the generator's gradient as Adam keeps it."""
    system = make_system(config)
    state = jax.jit(system.initial_state)(jax.random.key(0, impl="threefry2x32"))
    state, metrics = jax.jit(system.train_step)(state, batch, system.frozen)
    means = jax.tree.leaves(jax.device_get(optax.tree.get(state.generator_optimizer, "mu")))
    return jax.device_get(metrics), np.concatenate([mean.ravel() for mean in means])


def _largest(value: Any, expected: np.ndarray) -> float:
    return float(np.abs(np.asarray(value, np.float64) - expected).max() / np.abs(expected).max())


def _relative(value: Any, expected: Any) -> float:
    value, expected = np.float64(value), np.float64(expected)
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))


if __name__ == "__main__":
    main()
