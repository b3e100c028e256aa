"""Images a second, batches a minute and memory of whole training steps on real photos, and what the data takes of it.

    python benchmarks/train_step.py [--batch-sizes=2] [--dtypes=float32] [--devices=1] [--adversarial=hinge]
        [--size=256] [--width=24] [--steps=5] [--rounds=2] [--folder=DIR] [--vgg-weights=FILE] [--peak=FILE]
        [--json=FILE] [--plot=FILE.png]

The step is the one that train.py runs: both networks, all losses (the perceptual one if weights are given), Adam.
Batch sizes, dtypes, device counts and losses may be lists. Every batch size, dtype and device count runs in a process
of its own, all of them in turn in every round; losses take turns at every step of a process. The paper reports 71.8
batches a minute with the hinge loss and spectral norms, 59.0 with WGAN-GP, on two RTX 3090.
"""

import argparse
import itertools
import json
import math
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from counting import Work, count
from hardware import describe, describe_devices, device_memory_peak, host_memory_peak, program_memory
from machine_peak import print_peak, read
from plots import save_train_step
from processes import MeasurementFailed, run_alone
from timing import Table, alternate, format_seconds, format_spread, rates, significant, summarise

from inpaint_jax.data.masks import local_crop_side, open_masks
from inpaint_jax.data.pipeline import training_batches
from inpaint_jax.data.sources import open_source
from inpaint_jax.devices import put_batch, put_everywhere, replicated
from inpaint_jax.features import vgg
from inpaint_jax.losses import ADVERSARIAL, LossWeights
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator
from inpaint_jax.nets.generator import Generator
from inpaint_jax.systems.critics import GlobalLocalCritic
from inpaint_jax.systems.state import create_state
from inpaint_jax.systems.steps import make_train_step

SHARED = Path(os.environ.get("INPAINT_JAX_SHARED", Path(__file__).parents[2] / "shared"))
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "grain")
DTYPES = ("float32", "bfloat16")
PAPER = {"hinge": 71.8, "wgan_gp": 59.0}


def main() -> None:
    """Measures all settings, prints the table, writes JSON and draws the plot if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch-sizes", type=_integers, default=[2], help="over all devices together")
    parser.add_argument("--dtypes", type=_choices(DTYPES), default=["float32"])
    parser.add_argument("--devices", type=_integers, default=[1], help="how many; a CPU is split into as many")
    parser.add_argument("--adversarial", type=_choices(ADVERSARIAL), default=["hinge"])
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--width", type=int, default=24, help="channels of the generator's first layer")
    parser.add_argument("--discriminator-width", type=int, default=64)
    parser.add_argument("--discriminator-features", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=5, help="steps timed in each round, after one to warm up")
    parser.add_argument("--rounds", type=int, default=2, help="in which the settings take turns")
    parser.add_argument("--folder", default=str(SHARED / "data/street/train"), help="photos to train on")
    parser.add_argument("--vgg-weights", default=str(SHARED / "weights/vgg16_oxford_block1.npz"), help="'' for none")
    parser.add_argument("--peak", type=Path, help="JSON of machine_peak.py; measured by default")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plot", type=Path, help="also draw images a second against batch size")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments, **arguments.one)))
        return

    peak = read(arguments.peak) if arguments.peak else run_alone("machine_peak.py", [], "peak")
    print_peak(peak)
    measured = take_turns(arguments)
    rows = [figures(row, peak) for row in measured]
    print()
    print_table(rows)
    if not rows:
        raise SystemExit("no setting could be measured")
    result = {
        "device": measured[0]["device"],
        **describe(LIBRARIES),
        "peak": peak,
        **{name: getattr(arguments, name) for name in ("size", "width", "steps", "rounds")},
        "perceptual_loss": bool(arguments.vgg_weights),
        "paper_batches_per_minute": PAPER,
        "rows": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.plot:
        save_train_step(result, arguments.plot)


def take_turns(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs every setting once a round; gives one row for each of its losses, the seconds of all rounds together."""
    names = ("batch_size", "dtype", "devices")
    settings = list(itertools.product(arguments.batch_sizes, arguments.dtypes, arguments.devices))
    flags = [f"--{name}={value}" for name, value in _passed_on(arguments).items()]
    rows: dict[tuple, dict[str, Any]] = {}
    failed = set()
    for done in range(arguments.rounds):
        for setting in settings:
            batch_size, dtype, devices = setting
            label = f"round {done + 1}: batch {batch_size}, {dtype}, {devices} of the devices"
            if setting in failed:
                continue
            if batch_size % devices:
                failed.add(setting)
                print(f"{label}: skipped, the batch does not divide", flush=True)
                continue
            try:
                found = run_alone("train_step.py", flags, dict(zip(names, setting)))
            except MeasurementFailed as error:
                failed.add(setting)
                print(f"{label}: failed, {error}", flush=True)
                continue
            for row in found["losses"]:
                known = rows.setdefault((*setting, row["adversarial"]), row | {"seconds": [], "waits": []})
                known["seconds"] += row["seconds"]
                known["waits"] += row["waits"]
                median = format_seconds(np.median(row["seconds"]))
                print(f"{label}: {row['adversarial']} {median} a step", flush=True)
    return list(rows.values())


def measure(arguments: argparse.Namespace, batch_size: int, dtype: str, devices: int) -> dict[str, Any]:
    """One setting, in this process.

    Args:
        arguments: of the command.
        batch_size: over all devices.
        dtype: of both networks.
        devices: how many of those that there are.

    Returns:
        {"losses": rows}, with the seconds of every step, and of every wait for its batch.
    """
    jax.config.update("jax_num_cpu_devices", devices)
    if len(jax.devices()) < devices:
        raise SystemExit(f"there are {len(jax.devices())} devices, not {devices}")
    kinds = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((devices,), ("data",), axis_types=kinds, devices=jax.devices()[:devices])
    vgg_params = put_everywhere(vgg.load(arguments.vgg_weights), mesh) if arguments.vgg_weights else None
    source, masks = open_source(f"folder:{arguments.folder}"), open_masks("freeform", arguments.size)
    batches = training_batches(source, masks, size=arguments.size, batch_size=batch_size, seed=0, workers=0)
    batch = put_batch(next(batches), mesh)

    runs = {loss: _Run(arguments, loss, dtype, mesh, batch, vgg_params) for loss in arguments.adversarial}
    for run in runs.values():
        jax.block_until_ready(run(batch))
    seconds: dict[str, list[float]] = {loss: [] for loss in runs}
    waits = []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        batch = put_batch(next(batches), mesh)
        waits.append(time.perf_counter() - start)
        for loss, times in alternate({loss: partial(run, batch) for loss, run in runs.items()}, 1).items():
            seconds[loss] += times
    batches.close()

    rows = []
    for loss, run in runs.items():
        value = float(run.metrics["loss/generator"])
        if not math.isfinite(value):
            raise RuntimeError(f"the generator's loss became {value}")
        rows.append(
            {
                **describe_devices(),
                **{"batch_size": batch_size, "dtype": dtype, "devices": devices, "adversarial": loss},
                "cpu": jax.default_backend() == "cpu",
                "seconds": seconds[loss],
                "waits": waits,
                "flops": run.work.flops,
                "bytes": run.work.bytes,
                "program_memory_gib": significant(program_memory(run.compiled)),
                "host_memory_peak_gib": host_memory_peak(),
                "device_memory_peak_gib": device_memory_peak(),
                "generator_loss": significant(value),
            }
        )
    return {"losses": rows}


class _Run:
    """A training with one adversarial loss: each call is a step.

    Args:
        arguments: of the command.
        adversarial: the loss.
        dtype: of the networks.
        mesh: of the devices.
        batch: to compile the step for.
        vgg_params: of the perceptual loss, or None.
    """

    def __init__(self, arguments, adversarial: str, dtype: str, mesh, batch, vgg_params):
        weights = LossWeights() if arguments.vgg_weights else LossWeights(perceptual=0.0)
        generator = Generator(arguments.width, dtype=jnp.dtype(dtype))
        discriminator = GlobalLocalDiscriminator(
            arguments.discriminator_width,
            arguments.discriminator_features,
            dtype=jnp.dtype(dtype),
            spectral_norm=adversarial == "hinge",
        )
        adam = optax.adam(1e-4, b1=0.5, b2=0.9)
        critic = GlobalLocalCritic(discriminator, local_crop_side(arguments.size, arguments.size))
        everywhere = replicated(mesh)
        new_state = jax.jit(
            lambda key: create_state(key, generator, critic, adam, adam, image_size=arguments.size),
            out_shardings=everywhere,
        )
        step = make_train_step(generator, critic, adam, adam, weights)
        step = jax.jit(step, donate_argnums=0, out_shardings=everywhere)
        self._vgg_params = vgg_params
        self._state = new_state(jax.random.key(0, impl="rbg"))
        self.work: Work = count(step, self._state, batch, vgg_params)
        self.compiled = step.lower(self._state, batch, vgg_params).compile()
        self.metrics: dict[str, jax.Array] = {}

    def __call__(self, batch) -> tuple[Any, dict[str, jax.Array]]:
        self._state, self.metrics = self.compiled(self._state, batch, self._vgg_params)
        return self._state, self.metrics


def figures(row: dict[str, Any], peak: dict[str, Any]) -> dict[str, Any]:
    """What is reported of a measured row."""
    row = dict(row)
    seconds, waits = row.pop("seconds"), float(np.median(row.pop("waits")))
    median = float(np.median(seconds))
    work = Work(row.pop("flops"), row.pop("bytes"))
    # The parts that a CPU is split into share its cores.
    devices = 1 if row.pop("cpu") else row["devices"]
    return {
        **row,
        "seconds_per_step": summarise(seconds),
        "images_per_second": significant(row["batch_size"] / median),
        "batches_per_minute": significant(60 / median),
        **rates(work, median, peak, row["dtype"], devices),
        "share_of_the_step_that_waits_for_data": significant(waits / (median + waits), 2),
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """All rows, and what WGAN-GP takes beside the hinge loss."""
    widths = {"batch": 5, "dtype": 8, "devices": 7, "loss": 7, "step": 8, "fastest-slowest": 18, "images/s": 8}
    table = Table(
        widths | {"batches/min": 11, "GFLOP": 7, "GFLOP/s": 8, "of peak": 7, "program GiB": 11, "host GiB": 8}
    )
    for row in rows:
        table.row(
            str(row["batch_size"]),
            row["dtype"],
            str(row["devices"]),
            row["adversarial"],
            format_seconds(row["seconds_per_step"]["median"]),
            format_spread(row["seconds_per_step"]),
            f"{row['images_per_second']:.3g}",
            f"{row['batches_per_minute']:.3g}",
            f"{row['gflop']:.4g}",
            f"{row['gflop_per_second']:.3g}",
            f"{row['share_of_matrix_peak']:.1%}",
            f"{row['program_memory_gib']:.3g}",
            f"{row['host_memory_peak_gib']:.3g}",
        )
    speeds = {(row["batch_size"], row["dtype"], row["devices"], row["adversarial"]): row for row in rows}
    for (*setting, loss), row in speeds.items():
        if loss == "wgan_gp" and (hinge := speeds.get((*setting, "hinge"))):
            ratio = hinge["batches_per_minute"] / row["batches_per_minute"]
            paper = PAPER["hinge"] / PAPER["wgan_gp"]
            print(f"batch {setting[0]}: {ratio:.3g} times as many batches a minute with hinge (paper: {paper:.3g})")


def _passed_on(arguments: argparse.Namespace) -> dict[str, Any]:
    """The flags of a setting's own process, but for the setting."""
    names = ("size", "width", "discriminator_width", "discriminator_features", "steps", "folder", "vgg_weights")
    flags = {name.replace("_", "-"): getattr(arguments, name) for name in names}
    return flags | {"adversarial": ",".join(arguments.adversarial)}


def _integers(text: str) -> list[int]:
    values = [int(part) for part in text.split(",")]
    if min(values) < 1:
        raise argparse.ArgumentTypeError("must be positive")
    return values


def _choices(allowed: tuple[str, ...]):
    def parse(text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is not among {', '.join(allowed)}")
        return text.split(",")

    return parse


if __name__ == "__main__":
    main()
