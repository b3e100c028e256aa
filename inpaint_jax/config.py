"""What the fields of a config may be, said in one sentence where they are not."""

from collections.abc import Mapping
from typing import Any

from inpaint_jax.losses import ADVERSARIAL, L1
from inpaint_jax.nets.fill import FILLS
from inpaint_jax.nets.generator import OUTPUTS
from inpaint_jax.nets.mhtma import KINDS
from inpaint_jax.nets.temperature import ACTIVATIONS

SCHEDULES = ("constant", "cosine")
SELECTIONS = ("loss", "hole_l1")

_POSITIVE_INTEGERS = (
    "batch_size",
    "data.image_size",
    "model.heads",
    "model.patch_size",
    "model.discriminator_width",
    "model.discriminator_features",
    "train.checkpoint_every_steps",
    "train.log_every_steps",
)
_POSITIVE_OR_NONE = ("data.validation_limit", "train.max_steps", "train.patience_steps")
_POSITIVE_NUMBER_OR_NONE = ("model.constant_temperature",)
_POSITIVE = ("train.validate_every_epochs", "train.patience_epochs")
_NOT_NEGATIVE = (
    "data.workers",
    "train.samples",
    "loss.hole_weight",
    "loss.coarse_weight",
    "loss.refined_weight",
    "loss.perceptual_weight",
    "loss.adversarial_weight",
    "loss.gradient_penalty_weight",
    "optimizer.generator_learning_rate",
    "optimizer.discriminator_learning_rate",
    "optimizer.warmup_steps",
)
_CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "data.resize": ("shortest", "stretch"),
    "data.crop": ("random", "center"),
    "loss.l1": L1,
    "loss.adversarial": ADVERSARIAL,
    "model.fill": tuple(FILLS),
    "model.output": OUTPUTS,
    "optimizer.schedule": SCHEDULES,
    "train.select_by": SELECTIONS,
    "model.attention": KINDS,
    "model.temperature_activation": (None, *ACTIVATIONS),
}


def check_config(config: Mapping[str, Any]) -> None:
    """Checks the fields one by one; what they mean together is checked by those who use them.

    Args:
        config: nested dict, see configs/default.py.

    Raises:
        ValueError: a field is out of its range; the message names it and the range.
    """

    def demand(name: str, fits: bool, what: str) -> None:
        if not fits:
            raise ValueError(f"config.{name} must be {what}, not {_get(config, name)!r}.")

    for name in _POSITIVE_INTEGERS:
        demand(name, _get(config, name) >= 1, "at least 1")
    for name in _POSITIVE_OR_NONE:
        value = _get(config, name)
        demand(name, value is None or value >= 1, "at least 1, or left out for no limit")
    for name in _POSITIVE_NUMBER_OR_NONE:
        value = _get(config, name)
        demand(name, value is None or value > 0, "positive, or left out to be learned")
    for name in _POSITIVE:
        demand(name, _get(config, name) > 0, "positive")
    for name in _NOT_NEGATIVE:
        demand(name, _get(config, name) >= 0, "0 or more")
    for name, choices in _CHOICES.items():
        names = [choice or "left out" for choice in choices]
        demand(name, _get(config, name) in choices, " or ".join(names))
    width, size, seed, flip = (_get(config, name) for name in ("model.width", "data.image_size", "seed", "data.flip"))
    demand("model.width", width >= 2 and width % 2 == 0, "an even number of channels")
    demand("data.image_size", size >= 16, "at least 16")
    demand("seed", 0 <= seed < 2**31, "between 0 and 2^31")
    zoom = _get(config, "data.zoom")
    free = not config["model"]["sketch"]
    demand("data.zoom", zoom == 1 or (1 < zoom <= 4 and free), "from 1 to 4, and 1 with sketches")
    demand("data.flip", 0 <= flip <= 1, "a probability")
    demand("optimizer.ema_decay", 0 <= config["optimizer"]["ema_decay"] < 1, "0, or a decay below 1 such as 0.999")
    if config["optimizer"]["schedule"] == "cosine":
        warmup, last = config["optimizer"]["warmup_steps"], config["train"]["max_steps"]
        demand("train.max_steps", last is not None, "given, for the cosine schedule to end at")
        demand(
            "optimizer.warmup_steps", warmup < last, f"below config.train.max_steps, {last}, for the cosine schedule"
        )
    demand("data.sketch_dropout", 0 <= config["data"]["sketch_dropout"] <= 1, "a share from 0 to 1")
    if not config["model"]["sketch"]:
        for name in ("data.sketches", "data.validation_sketches"):
            demand(name, not _get(config, name), "left out, unless config.model.sketch is True (--config=FILE:sketch)")
    for name in ("train", "validation"):
        demand(f"data.{name}", bool(config["data"][name]), "given, for example as folder:PATH")


def _get(config: Mapping[str, Any], name: str) -> Any:
    value = config
    for part in name.split("."):
        value = value[part]
    return value
