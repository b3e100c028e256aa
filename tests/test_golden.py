"""The first step of the quickstart's training, in miniature, in numbers.

Tests of the parts hold when a default, the order of the data or the way in which two parts meet changes. These numbers
do not: they are here so that nobody changes the training without knowing.
"""

import json

import pytest

from configs import quickstart
from inpaint_jax.training import loop
from inpaint_jax.writers import read_metrics

# float32 on a CPU: what the step itself measures, within what another CPU or level of XLA's optimisations changes.
EXPECTED = {
    "loss/generator": 2.20329,
    "loss/coarse": 1.00096,
    "loss/refined": 1.00214,
    "loss/discriminator": 1.99997,
    "gradient_norm/generator": 1.58331,
    "gradient_norm/discriminator": 0.22205,
    "temperature/head_0": 0.693147,
    "temperature/head_1": 0.693147,
}
# What validation says after it. Adam's first update is a sign, and rounding decides that of the smallest gradients.
EXPECTED_AFTERWARDS = {
    "validation/hole_l1": 0.0604241,
    "validation/loss": 2.20857,
    "validation/hole_psnr_fill": 28.6001,
}


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
    got = {name: values.get(name) for name in (*EXPECTED, *EXPECTED_AFTERWARDS)}
    expected = {name: pytest.approx(value, rel=1e-3) for name, value in EXPECTED.items()}
    expected |= {name: pytest.approx(value, rel=2e-2) for name, value in EXPECTED_AFTERWARDS.items()}
    assert got == expected, (
        "The first training step gives other numbers than before. If you did not mean to change the training, find out "
        "what did: config, data, masks, initial parameters, networks, losses or optimizer. If you did, or if a new "
        "version of jax draws other random numbers, say so in CHANGELOG.md and write these down above:\n"
        + json.dumps(got, indent=4)
    )
