"""The first step of the quickstart's training, in miniature, in numbers.

Tests of the parts hold when a default, the order of the data or the way in which two parts meet changes. These numbers
do not: they are here so that nobody changes the training without knowing.
"""

import json

import pytest

from configs import quickstart
from inpaint_jax.training import loop
from inpaint_jax.writers import read_metrics

# float32 on a CPU. What another CPU or another level of XLA's optimisations changes is within the tolerance.
TOLERANCE = 1e-3
EXPECTED = {}


def test_the_first_step_gives_the_numbers_that_it_always_gave(tmp_path):
    config = quickstart.get_config()
    config.batch_size = 4
    config.data.image_size = 32
    config.data.workers = 0
    config.data.validation_limit = 4
    config.model.discriminator_width = 4
    config.model.discriminator_features = 16
    config.loss.adversarial_weight = 0.01  # the quickstart has no discriminator
    config.optimizer.warmup_steps = 0  # whose first step has a learning rate of zero
    config.train.max_steps = 1
    config.train.log_every_steps = 1
    config.train.samples = 0
    loop.train(config, tmp_path / "run")

    values = {name: value for row in read_metrics(tmp_path / "run") if row["step"] == 1 for name, value in row.items()}
    got = {name: values.get(name) for name in EXPECTED}
    assert got == pytest.approx(EXPECTED, rel=TOLERANCE, abs=1e-5), (
        "The first training step gives other numbers than before. If you did not mean to change the training, find out "
        "what did: config, data, masks, initial parameters, networks, losses or optimizer. If you did, or if a new "
        "version of jax draws other random numbers, say so in CHANGELOG.md and write these into EXPECTED:\n"
        + json.dumps(got, indent=4)
    )
