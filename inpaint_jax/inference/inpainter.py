"""A trained generator as a function of images: load it once, call it on images and masks of any size."""

import dataclasses
import logging
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

from inpaint_jax.config import Config
from inpaint_jax.models import load_model
from inpaint_jax.nets.generator import GeneratorOutputs
from inpaint_jax.nets.guess import enlarge, halve
from inpaint_jax.systems import make_generator

logger = logging.getLogger("inpaint_jax")

# Sides up to the first number are padded to a multiple of the second. Twenty sizes reach to 2048, so that a folder of
# odd sizes compiles few programs, and a side grows by less than a quarter from 128 pixels on.
_SIDE_STEPS = ((256, 32), (512, 64), (1024, 128))
_LARGEST_STEP = 256


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the generator makes of a batch of images.

    Attributes:
        completed: uint8 [B, H, W, 3], the given pixels as they were, and `refined` in the hole.
        coarse: uint8 [B, H, W, 3], the first stage's image.
        refined: uint8 [B, H, W, 3], the second stage's image; see `GeneratorOutputs`, and as far as the `margin` goes.
        temperatures: float32 [B, K] of the attention heads.
    """

    completed: np.ndarray
    coarse: np.ndarray
    refined: np.ndarray
    temperatures: np.ndarray


@dataclasses.dataclass(frozen=True)
class AttentionInputs:
    """What the heads of MHTMA are given for one image; for the functions of `inspection.rows`.

    The maps are a quarter of the image's size after its padding, see `padded_side`: [:height // 4, :width // 4] is the
    image, and what lies behind it, its reflection, can be attended to as well.

    Attributes:
        embedded: a float32 [1, H, W, C'] for each head, F_e.
        mask: float32 [1, H, W], 1 = missing.
        temperatures: float32 [1, K], the learned ones.
        patch_size: s.
    """

    embedded: tuple[np.ndarray, ...]
    mask: np.ndarray
    temperatures: np.ndarray
    patch_size: int


class Inpainter:
    """Fills holes: `Inpainter.load("runs/places2")(image, mask)`.

    Images are padded by reflection to one of a few sizes (see `padded_side`) and cropped afterwards; one program is
    compiled for every padded size and batch size, and kept. Batches are split over all local devices; a single image
    runs on the first, as do the images of a batch whose wide holes are filled at smaller sizes first.

    Args:
        config: of the run that trained the generator.
        params: the generator's parameters.
        step: of the run, that they are of.

    Attributes:
        config: as given.
        generator: of the config's system, see `systems.make_generator`.
        params: as given.
        step: as given.
        name: of the config.
        image_size: side of the images that the generator was trained on.
        guided: whether it takes sketches.
        is_smooth: whether it was trained without a critic or a loss of style, so that the middle of wide holes lacks
            texture.
        fills_wide_holes: whether `predict` heeds `wide`.
        needs_sketch: whether it was never trained without one (config.data.sketch_dropout 0, as in the paper), so that
            it is not run without one either.
    """

    def __init__(self, config: Config, params: Any, step: int):
        self.config = config
        self.params = params
        self.step = step
        self.name = config.name
        self.image_size = config.data.image_size
        self.guided = config.model.sketch
        loss = config.loss
        self.is_smooth = (loss.style_weight if config.system == "parconv" else loss.adversarial_weight) == 0
        self.fills_wide_holes = config.train.guesses > 0
        self.needs_sketch = self.guided and config.data.sketch_dropout == 0
        self.generator = make_generator(config)
        devices = jax.local_devices()
        mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
        self._devices = len(devices)
        self._one_device = SingleDeviceSharding(devices[0])
        self._all_devices = NamedSharding(mesh, PartitionSpec("data"))
        self._params_on_one = jax.device_put(params, self._one_device)
        self._params_on_all = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))

    @classmethod
    def load(cls, path: str | Path, step: int | None = None) -> "Inpainter":
        """Loads a trained generator.

        Args:
            path: the workdir of a run, a file that `inpaint-jax export` wrote, the name of a model that comes along, or
                an address such as "hf://OWNER/NAME".
            step: which checkpoint of a workdir; the best one by default (the latest, if none was validated).

        Raises:
            UserError: see `models.load_model`.
        """
        return cls(*load_model(path, step))

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, sketch: np.ndarray | None = None, *, wide: bool = False
    ) -> np.ndarray:
        """Fills the hole of an image, or of each image of a batch; given pixels come back bit-identical.

        Args:
            image: uint8 [H, W, 3] RGB, or [B, H, W, 3]; any size.
            mask: [H, W] or [B, H, W], see `predict`. An empty one gives the image back.
            sketch: like `mask`, 1 = line, for a generator that was trained with sketches; see `predict`.
            wide: see `predict`.

        Returns:
            uint8, of the shape of `image`.

        Raises:
            ValueError: as in `predict`.
        """
        image, mask = np.asarray(image), np.asarray(mask)
        if image.ndim == 3:
            sketches = None if sketch is None else np.asarray(sketch)[None]
            return self(image[None], mask[None], sketches, wide=wide)[0]
        check_images(image, mask)
        holes = as_bool(mask)
        if sketch is None and not holes.any():
            return image.copy()
        if full := int(holes.all(axis=(1, 2)).sum()):
            logger.warning(
                "%d of %d masks cover the whole image: nothing is given to continue from. Is the mask inverted? "
                "1, True or white = missing.",
                full,
                len(holes),
            )
        return self.predict(image, holes, sketch, margin=0, wide=wide).completed

    def predict(
        self,
        images: np.ndarray,
        masks: np.ndarray,
        sketches: np.ndarray | None = None,
        margin: int | None = None,
        *,
        without: Collection[str] = (),
        temperatures: np.ndarray | None = None,
        wide: bool = False,
    ) -> Prediction:
        """Runs the generator on a batch, and hands back all that it makes.

        Args:
            images: uint8 [B, H, W, 3] RGB, any H and W. What they hold inside the hole is never looked at.
            masks: [B, H, W], a hole for every image. bool: True = missing. Numbers, each mask by itself: if none
                is above 1, those above 0.5 are missing; if the largest is from 128 to 255, those above 127.5 are.
                Anything else is an error, not a guess.
            sketches: [B, H, W], 1 = line, read like masks, for a generator that was trained with sketches, whose
                lines were one pixel wide. Left out, there are no lines; a generator that `needs_sketch` refuses that.
            margin: how many pixels around the hole `refined` is looked at; None = everywhere, 0 if `completed` is all
                that is wanted. The less, the faster large images with small holes; each value compiles its own program.
            without: what the refinement is to do without: "convolution", "attention", "head_0", "head_1", ...; to see
                what each is good for (Fig. 8).
            temperatures: [B, K] to use instead of the learned ones.
            wide: fill wide holes at half the size first, each image by itself: edges go on into them. Done if the
                generator was trained for it (config.train.guesses), without sketches. The paper has one pass.

        Returns:
            Prediction. `completed` holds the given pixels bit for bit.

        Raises:
            ValueError: shapes or types do not fit, a mask is ambiguous, the generator knows no sketches or needs
                one, or has nothing of a name in `without`.
        """
        wide = wide and sketches is None and self.fills_wide_holes
        images, holes, sketches = self._checked(images, masks, sketches)
        if temperatures is not None:
            temperatures = np.asarray(temperatures, np.float32)
            if not np.isfinite(temperatures).all():
                raise ValueError("temperatures must be finite numbers.")
            if not (heads := self.generator.temperature_count):
                raise ValueError(f"The model {self.name!r} has no temperatures; leave them out.")
            if temperatures.shape != (len(images), heads):
                raise ValueError(
                    f"temperatures must be one for each image and head, of shape {(len(images), heads)}, not "
                    f"{temperatures.shape}."
                )
        if wide and len(images) > 1:  # holes of different widths take different sizes
            alone = partial(self.predict, margin=margin, without=without, wide=True)
            given = [None] * len(images) if temperatures is None else temperatures[:, None]
            each = zip(images[:, None], holes[:, None], given)
            return _joined([alone(image, hole, temperatures=own) for image, hole, own in each])
        switches = tuple(sorted(without))
        params = self._params_on_one if len(images) == 1 else self._params_on_all
        given, hole = self._put(images), self._put(holes)
        lines = None if sketches is None else self._put(sketches)
        if temperatures is not None:
            temperatures = self._repeat_last(temperatures)
        guess = self._guess(given, hole, switches, temperatures) if wide else None
        outputs = jax.device_get(
            _run(self.generator, margin, switches, params, given, hole, lines, guess, temperatures)
        )
        count, height, width, _ = images.shape
        coarse, refined = (x[:count, :height, :width] for x in outputs[:2])
        completed = np.where(holes[..., None], refined, images)
        return Prediction(completed, coarse, refined, temperatures=outputs[2][:count])

    def _guess(
        self, image: jax.Array, hole: jax.Array, without: tuple[str, ...], temperatures: np.ndarray | None
    ) -> jax.Array | None:
        """What a hole may hold, [1, H, W, 3], by filling it at half the size first; None if it is not wide.

        Args:
            image: [1, H, W, 3], padded.
            hole: bool [1, H, W].
            without: see `predict`.
            temperatures: likewise.
        """
        if not is_wide(np.asarray(hole[0]), self.image_size):
            return None
        small, small_hole = _halve(image, hole)
        if small_hole.all():
            return None
        guess = self._guess(small, small_hole, without, temperatures)
        refined = _run(self.generator, 0, without, self._params_on_one, small, small_hole, None, guess, temperatures)[1]
        return _enlarge(refined, small, small_hole, *hole.shape[1:])

    def attention_inputs(
        self, image: np.ndarray, mask: np.ndarray, sketch: np.ndarray | None = None
    ) -> AttentionInputs:
        """What the heads of the attention are given, to look at their weights and at other temperatures.

        Args:
            image: uint8 [H, W, 3] RGB.
            mask: [H, W], see `predict`.
            sketch: [H, W] or None, see `predict`.

        Returns:
            AttentionInputs.

        Raises:
            ValueError: as in `predict`; or the generator's attention is a sibling of MHTMA that has no such heads.
        """
        kind = self.config.model.attention if self.config.system == "mhtma" else self.config.system
        if kind not in ("mhtma", "single"):
            raise ValueError(
                f"The model {self.name!r} has {kind!r} attention, which can not be looked into; "
                "models with 'mhtma' or 'single' can."
            )
        sketches = None if sketch is None else np.asarray(sketch)[None]
        inputs = self._checked(np.asarray(image)[None], np.asarray(mask)[None], sketches)
        inputs = [None if x is None else self._put(x) for x in inputs]
        embedded, mask, temperatures = jax.device_get(_attend(self.generator, self._params_on_one, *inputs))
        return AttentionInputs(embedded, mask, temperatures, self.config.model.patch_size)

    def _checked(
        self, images: np.ndarray, masks: np.ndarray, sketches: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Images, holes as bool, and sketches as bool where the generator takes them; or one sentence."""
        images, masks = np.asarray(images), np.asarray(masks)
        check_images(images, masks)
        holes = as_bool(masks)
        if sketches is not None:
            if not self.guided:
                raise ValueError(f"The model {self.name!r} was trained without sketches; leave the sketch out.")
            if np.shape(sketches) != images.shape[:3]:
                raise ValueError(
                    f"The sketch must be of shape {images.shape[:3]}, as its image, not {np.shape(sketches)}."
                )
            sketches = as_bool(np.asarray(sketches), "sketch")
        elif self.needs_sketch:
            raise ValueError(
                f"The model {self.name!r} was never trained without a sketch (config.data.sketch_dropout was 0); give "
                "it one."
            )
        elif self.guided:
            sketches = np.zeros_like(holes)
        return images, holes, sketches

    def _put(self, x: np.ndarray) -> jax.Array:
        """Pads [B, H, W, ...] by copies of the last image and by reflection, and puts it on the devices."""
        count, height, width = x.shape[:3]
        alone = count == 1
        below, right = (padded_side(side, self.image_size) - side for side in (height, width))
        rest = [(0, 0)] * (x.ndim - 3)
        x = np.pad(x, [(0, 0), (0, below), (0, right), *rest], mode="reflect")
        return jax.device_put(self._repeat_last(x), self._one_device if alone else self._all_devices)

    def _repeat_last(self, x: np.ndarray) -> np.ndarray:
        """[B, ...], the last one repeated until all devices have the same share; a single one runs on the first."""
        more = 0 if len(x) == 1 else -len(x) % self._devices
        return np.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1), mode="edge")


def is_wide(hole: np.ndarray, image_size: int) -> bool:
    """Whether a hole is better filled at half the size first.

    Args:
        hole: bool [H, W].
        image_size: side of the training images.

    Returns:
        whether some of its pixels are further than an eighth of the training images from any given one, and half the
        size is still no smaller than they were. Never for a hole that covers everything.
    """
    if min(hole.shape) // 2 < image_size or hole.all():
        return False
    return bool(cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3).max() > image_size / 8)


def _joined(predictions: Sequence[Prediction]) -> Prediction:
    fields = [field.name for field in dataclasses.fields(Prediction)]
    return Prediction(**{name: np.concatenate([getattr(each, name) for each in predictions]) for name in fields})


def padded_side(side: int, image_size: int) -> int:
    """The side that the generator is run at: the next multiple of 32 up to 256, of 64, 128, 256 beyond 256, 512, 1024.

    Args:
        side: of the image, in pixels.
        image_size: side of the training images, taken as it is wherever it is the next one.
    """
    step = next((step for largest, step in _SIDE_STEPS if side <= largest), _LARGEST_STEP)
    padded = side + -side % step
    return min(padded, image_size) if side <= image_size else padded


def as_bool(masks: np.ndarray, what: str = "mask") -> np.ndarray:
    """Reads masks of any type by the rule of `Inpainter.predict`: [B, H, W] -> bool [B, H, W].

    Args:
        masks: bool or numbers.
        what: to call them in an error.

    Raises:
        ValueError: the numbers fit neither 0-1 nor 0-255.
    """
    if masks.dtype == bool:
        return masks
    if masks.dtype.kind not in "uif":
        raise ValueError(f"A {what} is bool, or numbers from 0 to 1 or from 0 to 255, not {masks.dtype}.")
    return np.stack([mask > _half_of_white(mask, what) for mask in masks])


def _half_of_white(mask: np.ndarray, what: str) -> float:
    least, largest = mask.min(), mask.max()
    if least >= 0 and largest <= 1:
        return 0.5
    if least >= 0 and 127.5 < largest <= 255:
        return 127.5
    true = "line" if what == "sketch" else "missing"
    raise ValueError(
        f"A {what} of values from {least} to {largest} is ambiguous: give bool (True = {true}), 0 and 1, or 0 to 255."
    )


def check_images(images: np.ndarray, masks: np.ndarray) -> None:
    """Checks [B, H, W, 3] and [B, H, W]; raises ValueError, see `Inpainter.predict`."""
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"An image must be RGB, [H, W, 3], or a batch of them, [B, H, W, 3], not of shape {images.shape}; "
            "drop an alpha channel, and repeat a grey one three times."
        )
    if images.dtype != np.uint8:
        raise ValueError(
            f"An image must be uint8, 0 to 255, not {images.dtype}; convert it yourself, so that you know how."
        )
    if 0 in images.shape:
        raise ValueError(f"There is no pixel in an image of shape {images.shape}.")
    if masks.shape != images.shape[:3]:
        raise ValueError(
            f"The mask must be as large as its image, of shape {images.shape[:3]} with the batch, not {masks.shape}."
        )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _run(
    generator: nn.Module,
    margin: int | None,
    without: tuple[str, ...],
    params: Any,
    images: jax.Array,
    holes: jax.Array,
    sketches: jax.Array | None,
    guess: jax.Array | None,
    temperatures: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """uint8 and bool in; coarse and refined as uint8, and the temperatures, out."""
    images = images.astype(jnp.float32) / 255
    outputs = cast(
        GeneratorOutputs,
        generator.apply(
            {"params": params},
            images,
            holes,
            sketches,
            margin,
            without=without,
            temperatures=temperatures,
            guess=guess,
        ),
    )
    return _to_bytes(outputs.coarse), _to_bytes(outputs.refined), outputs.temperatures


@jax.jit
def _halve(image: jax.Array, hole: jax.Array) -> tuple[jax.Array, jax.Array]:
    """uint8 and bool in and out."""
    small, small_hole = halve(image.astype(jnp.float32) / 255, hole)
    return _to_bytes(small), small_hole


@partial(jax.jit, static_argnums=(3, 4))
def _enlarge(refined: jax.Array, image: jax.Array, hole: jax.Array, height: int, width: int) -> jax.Array:
    """A guess at the next size, of what was made at this one: uint8 in, float32 in [0, 1] out."""
    completed = jnp.where(hole[..., None], refined, image)
    return enlarge(completed.astype(jnp.float32) / 255, height, width)


@partial(jax.jit, static_argnums=0)
def _attend(
    generator: nn.Module, params: Any, images: jax.Array, holes: jax.Array, sketches: jax.Array | None
) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
    """uint8 and bool in; embedded features of every head, mask of the cells, and temperatures out."""
    images = images.astype(jnp.float32) / 255
    both = generator.apply({"params": params}, images, holes, sketches, mutable=["intermediates"])
    outputs, seen = cast(tuple[GeneratorOutputs, dict[str, Any]], both)
    seen = seen["intermediates"]["refinement"]["attention_branch"]["mhtma"]
    embedded = tuple(x.astype(jnp.float32) for x in seen["embedded"])
    return embedded, seen["mask"][0].astype(jnp.float32), outputs.temperatures


def _to_bytes(images: jax.Array) -> jax.Array:
    return jnp.round(jnp.clip(images, 0, 1) * 255).astype(jnp.uint8)
