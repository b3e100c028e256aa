"""What moves between devices in a step: gradients and metrics, no images."""

import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY, several_devices

PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from inpaint_jax.losses import LossWeights
from inpaint_jax.nets import attention, tiles
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator
from inpaint_jax.nets.generator import Generator
from inpaint_jax import devices
from inpaint_jax.systems.critics import GlobalLocalCritic
from inpaint_jax.systems.state import create_state
from inpaint_jax.systems.steps import make_train_step

mesh = devices.data_mesh()
adversarial, attention_method = sys.argv[1:]
if attention_method == "tiles":  # of four queries, as large maps are refined
    attention._LARGEST_GRAM, tiles._queries_at_a_time = 0, lambda *_: 4
discriminator = GlobalLocalDiscriminator(width=4, features=16, spectral_norm=adversarial == "hinge")
parts = Generator(width=4), GlobalLocalCritic(discriminator, crop_size=16), optax.sgd(1e-2), optax.sgd(1e-2)
state = jax.jit(
    lambda key: create_state(key, *parts, image_size=32), out_shardings=devices.replicated(mesh)
)(jax.random.key(0, impl="rbg"))
batch = {
    "image": np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8),
    "mask": np.ones((4, 32, 32), bool),
    "crop": np.zeros((4, 2), np.int32),
}
step = make_train_step(*parts, LossWeights(perceptual=0.0))
sharded = devices.put_batch(batch, mesh)
compiled = jax.jit(step, out_shardings=devices.replicated(mesh)).lower(state, sharded, None).compile()
print(compiled.as_text())
# The random numbers of WGAN-GP must not depend on the devices either.
alone = jax.jit(step)(jax.device_put(state, jax.devices()[0]), batch, None)
close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4)
jax.tree.map(close, alone, compiled(state, sharded, None))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("adversarial", "attention"), [("hinge", "tiles"), ("wgan_gp", "gram")])
def test_no_image_moves_between_devices(adversarial, attention):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, adversarial, attention],
        cwd=REPOSITORY,
        env={**os.environ, **several_devices(2), "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    collectives = set(re.findall(r"(all-[a-z]+|collective-permute|reduce-scatter)(?:-start)?\(", done.stdout))
    assert collectives == {"all-reduce"}
