"""Seconds, images a second and memory of a whole training step on real photos, and what the data takes of it.

    python benchmarks/train_step.py [--size=256] [--width=24] [--batch-size=2] [--steps=10] [--dtype=float32]
        [--folder=DIR] [--vgg-weights=FILE] [--json=FILE]

The step is the one that train.py runs: both networks, all losses (the perceptual one if weights are given), Adam.
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hardware import describe

from inpaint_jax.data.masks import local_crop_side, open_masks
from inpaint_jax.data.pipeline import training_batches
from inpaint_jax.data.sources import open_source
from inpaint_jax.features import vgg
from inpaint_jax.losses import LossWeights
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator
from inpaint_jax.nets.generator import Generator
from inpaint_jax.training import sharding
from inpaint_jax.training.state import create_state
from inpaint_jax.training.steps import make_train_step

SHARED = Path(os.environ.get("INPAINT_JAX_SHARED", Path(__file__).parents[2] / "shared"))
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy", "grain")


def main() -> None:
    """Measures, prints the table, and writes JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=256, help="side of the images")
    parser.add_argument("--width", type=int, default=24, help="channels of the generator's first layer")
    parser.add_argument("--discriminator-width", type=int, default=64)
    parser.add_argument("--discriminator-features", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10, help="steps timed, after one to warm up")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--folder", default=str(SHARED / "data/street/train"), help="photos to train on")
    parser.add_argument("--vgg-weights", default=str(SHARED / "weights/vgg16_oxford_block1.npz"), help="'' for none")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()

    weights = LossWeights() if arguments.vgg_weights else LossWeights(perceptual=0.0)
    dtype = jnp.dtype(arguments.dtype)
    generator = Generator(arguments.width, dtype=dtype)
    discriminator = GlobalLocalDiscriminator(
        arguments.discriminator_width, arguments.discriminator_features, dtype=dtype
    )
    adam = optax.adam(1e-4, b1=0.5, b2=0.9)
    crop_size = local_crop_side(arguments.size, arguments.size)
    sizes = {"image_size": arguments.size, "crop_size": crop_size}
    mesh = sharding.data_mesh()
    everywhere = sharding.replicated(mesh)
    new_state = jax.jit(
        lambda key: create_state(key, generator, discriminator, adam, adam, **sizes), out_shardings=everywhere
    )
    state = new_state(jax.random.key(0, impl="rbg"))
    step = jax.jit(
        make_train_step(generator, discriminator, adam, adam, weights, crop_size=crop_size),
        donate_argnums=0,
        out_shardings=everywhere,
    )
    vgg_params = sharding.put_everywhere(vgg.load(arguments.vgg_weights), mesh) if arguments.vgg_weights else None
    source, masks = open_source(f"folder:{arguments.folder}"), open_masks("freeform", arguments.size)
    batches = training_batches(source, masks, size=arguments.size, batch_size=arguments.batch_size, seed=0, workers=0)

    seconds, waits = [], []
    for i in range(arguments.steps + 1):
        start = time.perf_counter()
        batch = sharding.put_batch(next(batches), mesh)
        waited = time.perf_counter() - start
        if i == 0:
            compiled = step.lower(state, batch, vgg_params).compile()
        start = time.perf_counter()
        state, metrics = compiled(state, batch, vgg_params)
        loss = float(metrics["loss/generator"])
        if i:
            seconds.append(time.perf_counter() - start)
            waits.append(waited)
            print(f"step {i:3}  {seconds[-1]:8.3f} s   generator loss {loss:.4f}", flush=True)
    batches.close()

    low, median, high = np.percentile(seconds, [25, 50, 75])
    operations = compiled.cost_analysis()["flops"]
    result = {
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        **describe(LIBRARIES),
        **{name: getattr(arguments, name) for name in ("size", "width", "batch_size", "steps", "dtype")},
        "perceptual_loss": bool(arguments.vgg_weights),
        "seconds_per_step": {
            "median": round(float(median), 4),
            "q25": round(float(low), 4),
            "q75": round(float(high), 4),
        },
        "images_per_second": round(arguments.batch_size / median, 3),
        "gflop_per_step": round(operations / 1e9, 2),
        "gflop_per_second": round(operations / median / 1e9, 1),
        "share_of_the_step_that_waits_for_data": round(float(np.median(waits) / (median + np.median(waits))), 5),
        "host_memory_peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "device_memory_peak_gib": _device_peak(),
    }
    for name, value in result.items():
        print(f"{name:40} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def _device_peak() -> float | None:
    """Peak of the first device's own memory, None where it uses the host's."""
    statistics = jax.local_devices()[0].memory_stats()
    return round(statistics["peak_bytes_in_use"] / 2**30, 2) if statistics else None


if __name__ == "__main__":
    main()
