"""Configs: those that come along, fields that make no sense, and what a workdir says to a changed one."""

import importlib
import math
import re

import pytest

from configs import deepfillv2, parconv, places2
from inpaint_jax.config import Config, Loss, Optimizer, to_config_dict
from inpaint_jax.errors import UserError
from inpaint_jax.runs import check_workdir, claim_workdir
from inpaint_jax.training import loop


@pytest.mark.parametrize("name", ["paris_streetview", "celeba_hq", "places2", "quickstart", "default"])
def test_configs_load_and_keep_the_papers_settings(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    assert config.name == name
    if name == "quickstart":
        return
    assert (config.batch_size, config.data.image_size, config.model.width, config.model.heads) == (16, 256, 24, 2)
    loss = config.loss
    assert (loss.coarse_weight, loss.refined_weight, loss.perceptual_weight, loss.adversarial_weight) == (
        1.2,
        1.0,
        0.004,
        0.01,
    )
    assert loss.adversarial == "hinge"
    assert (config.optimizer.beta1, config.optimizer.beta2) == (0.5, 0.9)
    assert config.optimizer.generator_learning_rate == config.optimizer.discriminator_learning_rate == 1e-4
    assert math.isclose(config.data.flip, 0.5)


def test_the_published_recipe_of_deepfillv2():
    config = deepfillv2.get_config()
    assert (config.name, config.system, config.model.variant) == ("deepfillv2", "deepfillv2", "pt")
    assert (config.batch_size, config.data.image_size, config.data.masks, config.data.flip) == (
        16,
        256,
        "deepfillv2",
        0.0,
    )
    # L1 of the weight 1 in [-1, 1].
    assert Config.read(config).loss == Loss(
        coarse_weight=2.0, refined_weight=2.0, perceptual_weight=0.0, adversarial_weight=1.0
    )
    optimizer = Optimizer(generator_learning_rate=1e-4, discriminator_learning_rate=1e-4, beta1=0.5, beta2=0.999)
    assert Config.read(config).optimizer == optimizer
    assert config.train.max_steps == 1_000_000
    paper, ours = deepfillv2.get_config("paper"), places2.get_config()
    assert paper.data.to_dict() == ours.data.to_dict()
    assert (paper.name, paper.loss, paper.optimizer) == ("deepfillv2_paper", config.loss, config.optimizer)
    with pytest.raises(ValueError, match="There is no variant 'sketch'; leave it out, or take :paper"):
        deepfillv2.get_config("sketch")


def test_the_published_recipe_of_partial_convolutions():
    config = parconv.get_config()
    assert (config.name, config.system, config.model.width) == ("parconv", "parconv", 64)
    data = config.data
    assert (config.batch_size, data.image_size, data.masks, data.resize, data.flip) == (
        16,
        256,
        "random_walk",
        "stretch",
        0.0,
    )
    loss = Config.read(config).loss
    assert loss == Loss(perceptual_weight=0.05)
    assert (loss.hole_weight, loss.style_weight, loss.total_variation_weight) == (6.0, 120.0, 0.1)
    assert Config.read(config).optimizer == Optimizer(generator_learning_rate=2e-4, beta1=0.9, beta2=0.999)
    assert config.train.max_steps == 500_000
    paper, ours = parconv.get_config("paper"), places2.get_config()
    assert paper.data.to_dict() == ours.data.to_dict()
    assert (paper.name, paper.loss, paper.optimizer) == ("parconv_paper", config.loss, config.optimizer)
    with pytest.raises(ValueError, match="There is no variant 'sketch'; leave it out, or take :paper"):
        parconv.get_config("sketch")


# Fields of the tests' config that a system without a discriminator does not take.
NO_CRITIC = {"model__discriminator_width": 64, "model__discriminator_features": 1024}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data__train": None}, "config.data.train must be given, for example as folder:PATH"),
        ({"data__train": "folder:nowhere"}, "nowhere"),
        ({"data__masks": "stripes"}, "stripes"),
        ({"data__resize": "squeeze"}, "squeeze"),
        ({"dtype": "float99"}, "float99"),
        ({"data__train": "folder:"}, "folder:"),
        ({"optimizer__beta1": 2.0}, "config.optimizer.beta1 must be at least 0 and below 1, not 2.0."),
        ({"optimizer__generator_learning_rate": math.nan}, "config.optimizer.generator_learning_rate must be"),
        ({"batch_size": 0}, "config.batch_size must be at least 1, not 0."),
        ({"system": "deepfillv3"}, "config.system must be mhtma or deepfillv2 or parconv, not 'deepfillv3'."),
        (
            {"system": "deepfillv2", "model__heads": 4},
            "config.model.heads is for config.system=mhtma; leave it out with config.system=deepfillv2.",
        ),
        ({"loss__style_weight": 1.0}, "config.loss.style_weight is for config.system=parconv; leave it out"),
        (
            {"system": "parconv"},
            "config.model.discriminator_width is for config.system=mhtma or deepfillv2; leave it out with "
            "config.system=parconv.",
        ),
        (
            {"system": "parconv", "train__guesses": 0.5} | NO_CRITIC,
            "config.train.guesses is for config.system=mhtma; leave it out",
        ),
        (
            {"system": "parconv", "train__freeze_encoder_statistics": True} | NO_CRITIC,
            "config.train.freeze_encoder_statistics is for fine-tuning; set config.train.init_from, or leave it out.",
        ),
        (
            {"system": "parconv", "batch_size": 1} | NO_CRITIC,
            "config.batch_size must be at least 2 with config.system=",
        ),
        ({"model__variant": "tf"}, "config.model.variant is for config.system=deepfillv2; leave it out"),
        ({"model__patch_size": 99}, "config.model.patch_size=99 does not fit into the attention's map of 8 x 8"),
        ({"model__sketch": True, "data__zoom": 2.0}, "config.data.zoom must be 1 with config.model.sketch."),
        ({"data__sketches": "folder"}, "--config=FILE:sketch"),
        ({"model__width": 5}, "config.model.width must be at least 2 and at most 1024 and even, not 5."),
        ({"model__heads": 3}, "config.model.heads=3 does not divide the 16 channels"),
        ({"train__log_every_steps": 0}, "config.train.log_every_steps must be at least 1"),
        ({"train__max_steps": 0}, "config.train.max_steps must be at least 1"),
        ({"train__patience_epochs": -1.0}, "config.train.patience_epochs must be above 0"),
        ({"data__crop": "middle"}, "config.data.crop must be random or center"),
        ({"seed": -1}, "config.seed must be at least 0"),
        ({"loss__adversarial": "lsgan"}, "config.loss.adversarial must be hinge or wgan_gp, not 'lsgan'."),
        ({"loss__gradient_penalty_weight": -1.0}, "config.loss.gradient_penalty_weight must be at least 0, not -1.0."),
        ({"loss__l1": "median"}, "config.loss.l1 must be mean or by_area or relative, not 'median'."),
        ({"model__fill": "telea"}, "config.model.fill must be constant or tension_spline, not 'telea'."),
        ({"model__output": "sum"}, "config.model.output must be image or residual, not 'sum'."),
        ({"train__select_by": "psnr"}, "config.train.select_by must be loss or hole_l1 or last, not 'psnr'."),
        ({"train__guesses": 1.5}, "config.train.guesses must be at least 0 and at most 1, not 1.5."),
        (
            {"train__guesses": 0.5},
            "config.train.guesses is for config.model.output=residual and config.model.fill=tension_spline, without "
            "sketches; set it to 0.",
        ),
        ({"optimizer__schedule": "linear"}, "config.optimizer.schedule must be constant or cosine, not 'linear'."),
        ({"optimizer__ema_decay": 1.0}, "config.optimizer.ema_decay must be at least 0 and below 1, not 1.0."),
        (
            {"optimizer__schedule": "cosine", "train__max_steps": None},
            "config.train.max_steps must be given, for the cosine schedule to end there.",
        ),
        (
            {"optimizer__schedule": "cosine", "optimizer__warmup_steps": 12},
            "config.optimizer.warmup_steps must be below config.train.max_steps, 12, for the cosine schedule, not 12.",
        ),
    ],
)
def test_fields_that_make_no_sense(make_config, tmp_path, fields, message):
    config = make_config()
    with config.unlocked():
        for name, value in fields.items():
            group, _, field = name.rpartition("__")
            target = config[group] if group else config
            target[field] = value
    with pytest.raises(UserError, match=re.escape(message)):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_end_of_a_cosine_stays(schedule, make_config, tmp_path):
    claim_workdir(tmp_path, Config.read(make_config(optimizer__schedule=schedule)))
    longer = Config.read(make_config(optimizer__schedule=schedule, train__max_steps=20))
    if schedule == "constant":
        check_workdir(tmp_path, longer)
    else:
        with pytest.raises(ValueError, match=r"\(train.max_steps: 12 there, 20 now\)"):
            check_workdir(tmp_path, longer)


def test_a_config_is_read_as_it_was_written():
    config = Config()
    assert Config.read(config.to_dict()) == Config.read(to_config_dict(config)) == config
    fields = config.to_dict()
    del fields["system"]  # as in files of before there were several
    assert Config.read(fields) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "The config holds no config"),
        (Config().to_dict() | {"batch_size": 2.5}, "config.batch_size must be of type int, not 2.5."),
        ({"widht": 1}, "There is no config.widht"),
        ({"name": "x"}, "The config lacks config.seed: it is damaged."),
        (
            Config().to_dict() | {"model": {"widht": 8}},
            "There is no config.model.widht; did you mean config.model.width?",
        ),
    ],
)
def test_a_damaged_config_is_refused(fields, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Config.read(fields)
