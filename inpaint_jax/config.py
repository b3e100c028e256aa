"""Every field of a config once: type, default, range and meaning. The defaults are the paper's (Section IV-B).

One thing differs: the paper squeezes photos into squares (data.resize=stretch), we cut squares out of them.

`configs/*.py` start from `to_config_dict(Config())` and change a few fields; ml_collections turns flags such as
`--config.data.image_size=128` into further changes. `Config.read` makes the typed object of the result, and is the one
place where a field that makes no sense is refused. A new field is one line here, and its use.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from inpaint_jax.errors import UserError
from inpaint_jax.losses import ADVERSARIAL, L1
from inpaint_jax.nets.deepfillv2 import VARIANTS
from inpaint_jax.nets.fill import FILLS
from inpaint_jax.nets.generator import OUTPUTS
from inpaint_jax.nets.mhtma import KINDS
from inpaint_jax.nets.temperature import ACTIVATIONS

SYSTEMS = ("mhtma", "deepfillv2", "parconv")
_WITH_CRITIC = ("mhtma", "deepfillv2")


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a field means, and the values that it may have."""

    meaning: str
    choices: tuple[Any, ...] = ()
    at_least: float = -math.inf
    at_most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    even: bool = False
    free: bool = False
    of: tuple[str, ...] = SYSTEMS

    def fault(self, value: Any) -> str | None:
        """What the value would have to be, if it is wrong."""
        if self.choices:
            return (
                None
                if value in self.choices
                else " or ".join("left out" if choice is None else choice for choice in self.choices)
            )
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        fits = (
            self.at_least <= value <= self.at_most and self.above < value < self.below and not (self.even and value % 2)
        )
        bounds = {"at least": self.at_least, "above": self.above, "below": self.below, "at most": self.at_most}
        words = [f"{word} {bound}" for word, bound in bounds.items() if math.isfinite(bound)]
        words += ["even"] * self.even
        return None if fits and math.isfinite(value) else " and ".join(words) or "a finite number"


def _field(default: Any, meaning: str, **rule: Any) -> Any:
    """A field of a config.

    Args:
        default: the paper's value. A default of None stands for "not given".
        meaning: for readers.
        **rule: `choices`, or bounds: `at_least`, `at_most`, `above`, `below`, `even`. `free` marks fields that may
            change when a run goes on, because no training step depends on them. `of` names the systems that read it,
            all by default; others refuse any value but the default.
    """
    return dataclasses.field(default=default, metadata={"rule": _Rule(meaning, **rule)})


@dataclasses.dataclass(frozen=True)
class Data:
    """What to train, validate and test on."""

    train: str | None = _field(None, "photos: folder:PATH, tfds:NAME[/CONFIG]:SPLIT or skimage:train")
    validation: str | None = _field(None, "likewise")
    test: str | None = _field(None, "likewise, for evaluate", free=True)
    masks: str = _field("freeform", "or mixed (holes of all ratios), deepfillv2 (its own), random_walk, or folder:PATH")
    image_size: int = _field(256, "side of the images", at_least=16, at_most=2**14)
    resize: Literal["shortest", "stretch"] = _field(
        "shortest", "the shortest side to image_size, then crop; stretch resizes both sides (as the paper)"
    )
    crop: Literal["random", "center"] = _field("random", "of training photos; center otherwise")
    flip: float = _field(0.5, "probability of mirroring a training photo", at_least=0, at_most=1)
    zoom: float = _field(
        1.0,
        "training photos are resized to between 1 and this times image_size before the crop; 1 with sketches",
        at_least=1,
        at_most=4,
    )
    workers: int = _field(2, "processes that read and mask photos", at_least=0, at_most=1024, free=True)
    validation_limit: int | None = _field(None, "images of the validation set to use; all by default", at_least=1)
    sketches: str | None = _field(
        None, "folder of `inpaint-jax sketch` for data.train; made in the workdir by default", free=True
    )
    validation_sketches: str | None = _field(None, "the same for data.validation", free=True)
    sketch_dropout: float = _field(
        0.3,
        "share of the training samples that lose lines: half of these all, the others each line with 1/2; 0 is the "
        "paper, whose models never fill a hole that nobody drew in",
        at_least=0,
        at_most=1,
    )
    pidinet_weights: str | None = _field(
        None, "file, to make sketches; downloaded into the cache by default", free=True
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """The generator and the discriminator."""

    sketch: bool = _field(False, "a fifth input channel: guided by sketches (Section IV-F)", of=("mhtma",))
    width: int = _field(24, "w, channels of the first layer", at_least=2, at_most=1024, even=True)
    fill: str = _field(
        "constant", "what the hole holds at first; tension_spline is smooth", choices=(*FILLS,), of=("mhtma",)
    )
    output: str = _field(
        "image", "of both stages; residual is added to the fill inside the hole", choices=OUTPUTS, of=("mhtma",)
    )
    skips: bool = _field(False, "from encoders to decoders, as in a U-Net", of=("mhtma",))
    attention: str = _field("mhtma", "or its siblings: single, contextual (CA), atma", choices=KINDS, of=("mhtma",))
    heads: int = _field(2, "K", at_least=1, of=("mhtma",))
    patch_size: int = _field(3, "s", at_least=1, of=("mhtma",))
    constant_temperature: float | None = _field(
        None, "of all heads; learned by default (CA: 1/10)", above=0, of=("mhtma",)
    )
    temperature_activation: str | None = _field(
        None, "softplus by default, leaky_relu in atma", choices=(None, *ACTIVATIONS), of=("mhtma",)
    )
    variant: str = _field(
        "pt", "tf: SAME padding, no fuse, as in weights converted from TensorFlow", choices=VARIANTS, of=("deepfillv2",)
    )
    discriminator: Literal["global_local", "patch"] = _field(
        "global_local", "the paper's, or one that judges every patch and is told the hole (SN-PatchGAN)", of=("mhtma",)
    )
    discriminator_width: int = _field(64, "channels of its first layer", at_least=1, at_most=1024, of=_WITH_CRITIC)
    discriminator_features: int = _field(
        1024, "of each branch of global_local", at_least=1, at_most=2**16, of=("mhtma",)
    )


@dataclasses.dataclass(frozen=True)
class Loss:
    """The terms of eq. (6) and their weights."""

    l1: str = _field(
        "mean",
        "over all pixels; by_area takes one mean over the hole and one over the known pixels; relative is the share of "
        "the fill's error inside the hole that is left (with model.output=image nothing then trains known pixels)",
        choices=L1,
        of=_WITH_CRITIC,
    )
    hole_weight: float = _field(
        6.0, "of the hole's L1 distance, where the other's is 1; for by_area, and for parconv", at_least=0
    )
    coarse_weight: float = _field(1.2, "lambda_1", at_least=0, of=_WITH_CRITIC)
    refined_weight: float = _field(1.0, "lambda_2", at_least=0, of=_WITH_CRITIC)
    perceptual_weight: float = _field(
        0.004,
        "lambda_p, of activations scaled by vgg.PERCEPTUAL_SCALE; 0 needs no VGG weights (for parconv, of vgg_pools, "
        "where 0.05 is published; 0 of style_weight, too, needs none)",
        at_least=0,
    )
    style_weight: float = _field(
        120.0, "of the distance between the Gram matrices of VGG's activations", at_least=0, of=("parconv",)
    )
    total_variation_weight: float = _field(
        0.1, "of the differences between neighbours in the completed image", at_least=0, of=("parconv",)
    )
    adversarial_weight: float = _field(
        0.01, "lambda_adv^G; 0 trains without the discriminator", at_least=0, of=_WITH_CRITIC
    )
    adversarial: str = _field(
        "hinge",
        "with spectral norms; wgan_gp has a gradient penalty instead (Table II)",
        choices=ADVERSARIAL,
        of=("mhtma",),
    )
    feature_matching_weight: float = _field(
        0.0,
        "of the distance between the discriminator's features of image and photo; for patch alone",
        at_least=0,
        of=("mhtma",),
    )
    gradient_penalty_weight: float = _field(
        10.0, "lambda of WGAN-GP (Gulrajani et al. 2017)", at_least=0, of=("mhtma",)
    )
    vgg_weights: str | None = _field(None, "file; downloaded into the cache by default", free=True)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Adam for both networks."""

    generator_learning_rate: float = _field(1e-4, "peak", at_least=0)
    discriminator_learning_rate: float = _field(1e-4, "peak", at_least=0)
    beta1: float = _field(0.5, "of Adam", at_least=0, below=1)
    beta2: float = _field(0.9, "of Adam", at_least=0, below=1)
    schedule: Literal["constant", "cosine"] = _field("constant", "of both rates; cosine falls to 0 at train.max_steps")
    clip_norm: float = _field(0.0, "the most that the norm of a network's gradient may be; 0: no limit", at_least=0)
    warmup_steps: int = _field(0, "in which both rates rise from 0", at_least=0)
    ema_decay: float = _field(
        0.0,
        "of the generator's moving average, which is then validated and used, such as 0.999; 0: none",
        at_least=0,
        below=1,
    )


@dataclasses.dataclass(frozen=True)
class Train:
    """How long, how often, and by what to choose."""

    init_from: str | None = _field(None, "workdir, exported file or name of a model whose networks the run starts from")
    guesses: float = _field(
        0.0,
        "share of the training holes that start from what the generator makes of them at half the size, instead of the "
        "fill; such a model fills wide holes from coarse to fine; for residual outputs and the tension spline alone",
        at_least=0,
        at_most=1,
        of=("mhtma",),
    )
    freeze_encoder_statistics: bool = _field(
        False,
        "for fine-tuning: batch normalisation in the encoder goes by the statistics of train.init_from, which stay",
        of=("parconv",),
    )
    max_steps: int | None = _field(None, "no limit by default: early stopping ends the run", at_least=1, free=True)
    select_by: Literal["loss", "hole_l1", "last"] = _field(
        "loss",
        "the best checkpoint, and early stopping; hole_l1 looks into the hole alone; last is for texture, which both "
        "of them punish",
    )
    patience_epochs: float = _field(30.0, "without a better validation", above=0, free=True)
    patience_steps: int | None = _field(None, "the same in steps; whichever comes first", at_least=1, free=True)
    validate_every_epochs: float = _field(1.0, "passes over the training photos", above=0, free=True)
    checkpoint_every_steps: int = _field(1000, "besides those after each validation", at_least=1, free=True)
    log_every_steps: int = _field(50, "means of which are logged", at_least=1, free=True)
    samples: int = _field(8, "rows of the sample sheets", at_least=0, free=True)


@dataclasses.dataclass(frozen=True)
class Config:
    """All of a run but its workdir."""

    name: str = _field("default", "of the run; runs/<name> is its workdir by default")
    system: str = _field("mhtma", "the paper's, or one that it is compared with", choices=SYSTEMS)
    seed: int = _field(0, "of parameters, order, crops, flips and masks", at_least=0, below=2**31)
    dtype: Literal["float32", "bfloat16"] = _field("float32", "of the networks' computation; bfloat16 for GPUs")
    batch_size: int = _field(16, "over all devices together", at_least=1)
    data: Data = Data()
    model: Model = Model()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    train: Train = Train()

    @classmethod
    def read(cls, fields: Mapping[str, Any] | ConfigDict, source: str = "The config") -> "Config":
        """The typed config of nested fields, as in config.json.

        Args:
            fields: name -> value, groups as mappings.
            source: where the fields come from, to begin an error with.

        Raises:
            UserError: a field is unknown, of another type, or out of its range; a group is missing; or two fields
                contradict each other.
        """
        config = _read(cls, fields.to_dict() if isinstance(fields, ConfigDict) else fields, source, "config")
        _check_together(config)
        return config

    def to_dict(self) -> dict[str, Any]:
        """Nested fields, as JSON can hold them."""
        return dataclasses.asdict(self)


def to_config_dict(config: Config) -> ConfigDict:
    """Nested fields that flags can override; those that are not given know their type all the same."""

    def convert(group: Any) -> ConfigDict:
        result = ConfigDict()
        for name, kind in typing.get_type_hints(type(group)).items():
            value = getattr(group, name)
            if dataclasses.is_dataclass(value):
                value = convert(value)
            elif value is None:
                value = placeholder(_types(kind)[0])
            result[name] = value
        return result

    return convert(config)


def free_fields() -> set[str]:
    """Names ("train.max_steps", ...) of the fields that may change when a run goes on."""
    found = set()
    for field in dataclasses.fields(Config):
        if dataclasses.is_dataclass(field.default):
            inner = dataclasses.fields(field.default)
            found |= {f"{field.name}.{each.name}" for each in inner if each.metadata["rule"].free}
    return found


def _read(kind: type, values: Any, source: str, path: str) -> Any:
    if not isinstance(values, Mapping):
        raise UserError(f"{source} holds no {path}: it is damaged, or of something else.")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for name in values:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            meant = f"; did you mean {path}.{close[0]}?" if close else f"; there are {', '.join(fields)}."
            raise UserError(f"There is no {path}.{name}{meant}")
    # Fields that came later have as their default what was done before: those of groups, and `system`.
    if missing := [name for name in fields if name not in values and kind is Config and name != "system"]:
        raise UserError(f"{source} lacks {path}.{missing[0]}: it is damaged.")
    return kind(**{name: _value(fields[name], hints[name], values[name], source, f"{path}.{name}") for name in values})


def _value(field: dataclasses.Field, hint: Any, value: Any, source: str, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _read(typing.cast(type, hint), value, source, path)
    allowed = _types(hint)
    if value is None and type(None) in allowed:
        return None
    if float in allowed and type(value) is int:
        value = float(value)
    if type(value) not in allowed:
        raise UserError(f"{path} must be of type {allowed[0].__name__}, not {value!r}.")
    rule = field.metadata["rule"]
    if typing.get_origin(hint) is Literal:
        rule = dataclasses.replace(rule, choices=typing.get_args(hint))
    if (wanted := rule.fault(value)) is not None:
        raise UserError(f"{path} must be {wanted}, not {value!r}.")
    return value


def _types(hint: Any) -> tuple[type, ...]:
    """The types of values that a field may have."""
    if typing.get_origin(hint) is Literal:
        return (str,)
    return typing.get_args(hint) if typing.get_origin(hint) is types.UnionType else (hint,)


def _check_together(config: Config) -> None:
    """What fields mean together, as far as the config alone tells."""
    data, model, loss = config.data, config.model, config.loss
    optimizer, train = config.optimizer, config.train

    def demand(fits: bool, sentence: str) -> None:
        if not fits:
            raise UserError(sentence)

    for group in ("model", "loss", "train"):
        for field in dataclasses.fields(getattr(config, group)):
            systems = field.metadata["rule"].of
            demand(
                config.system in systems or getattr(getattr(config, group), field.name) == field.default,
                f"config.{group}.{field.name} is for config.system={' or '.join(systems)}; leave it out with "
                f"config.system={config.system}.",
            )
    channels = 4 * model.width
    demand(
        model.attention == "single" or channels % model.heads == 0,
        f"config.model.heads={model.heads} does not divide the {channels} channels of the attention (4 x width); "
        "take 1, 2 or 4, for example.",
    )
    cells = -(-data.image_size // 4)
    demand(
        model.patch_size <= cells,
        f"config.model.patch_size={model.patch_size} does not fit into the attention's map of {cells} x {cells} (a "
        "quarter of config.data.image_size); 3 is the paper's.",
    )
    demand(
        loss.feature_matching_weight == 0 or loss.adversarial_weight > 0,
        "config.loss.feature_matching_weight needs a discriminator; raise config.loss.adversarial_weight above 0.",
    )
    if model.discriminator == "patch":
        demand(
            loss.adversarial == "hinge", "config.loss.adversarial must be hinge with config.model.discriminator=patch."
        )
    else:
        demand(
            loss.feature_matching_weight == 0,
            "config.loss.feature_matching_weight is for config.model.discriminator=patch; set it to 0.",
        )
    demand(
        train.guesses == 0 or (model.output == "residual" and model.fill == "tension_spline" and not model.sketch),
        "config.train.guesses is for config.model.output=residual and config.model.fill=tension_spline, without "
        "sketches; set it to 0.",
    )
    demand(
        bool(train.init_from) or not train.freeze_encoder_statistics,
        "config.train.freeze_encoder_statistics is for fine-tuning; set config.train.init_from, or leave it out.",
    )
    demand(
        config.system != "parconv" or config.batch_size > 1 or data.image_size > 128 or train.freeze_encoder_statistics,
        "config.batch_size must be at least 2 with config.system=parconv and images of up to 128 pixels: batch "
        "normalisation has a single value to go by otherwise.",
    )
    demand(data.zoom == 1 or not model.sketch, "config.data.zoom must be 1 with config.model.sketch.")
    for name in ("sketches", "validation_sketches"):
        demand(
            model.sketch or not getattr(data, name),
            f"config.data.{name} is for models that are guided by sketches; train one with --config=FILE:sketch.",
        )
    if optimizer.schedule == "cosine":
        demand(
            train.max_steps is not None, "config.train.max_steps must be given, for the cosine schedule to end there."
        )
        demand(
            train.max_steps is None or optimizer.warmup_steps < train.max_steps,
            f"config.optimizer.warmup_steps must be below config.train.max_steps, {train.max_steps}, for the cosine "
            f"schedule, not {optimizer.warmup_steps}.",
        )
