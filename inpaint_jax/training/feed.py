"""The photos and masks of a run, and the batches that are drawn from them."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from inpaint_jax.data import pipeline
from inpaint_jax.data.images import Crop, Resize
from inpaint_jax.data.masks import MaskSource
from inpaint_jax.data.sketches import Sketches
from inpaint_jax.data.sources import ImageSource

# Validation must not repeat the training masks, whatever the seed.
_VALIDATION_SEED_OFFSET = 1_000_003


@dataclasses.dataclass(frozen=True)
class Feed:
    """What a run is fed with.

    Attributes:
        train: photos to learn from.
        validation: photos to judge by.
        masks: the holes of both.
        size: side of the images.
        batch_size: over all devices and processes.
        seed: of order, crops, flips and masks.
        workers: processes that read training photos.
        resize: "shortest" or "stretch".
        crop: of training photos, "random" or "center".
        flip: probability of mirroring a training photo.
        zoom: up to how many times `size` a training photo is resized to before the crop.
        validation_limit: how many of the validation photos to use, None for all.
        train_sketches: of the training photos, for a generator that is guided by them.
        validation_sketches: of the validation photos, likewise.
        sketch_dropout: share of the training samples whose sketch loses lines, see `sketches.drop_lines`; those of
            validation are whole.
        skipped: name -> reason of the unreadable files that came up so far.
    """

    train: ImageSource
    validation: ImageSource
    masks: MaskSource
    size: int
    batch_size: int
    seed: int
    workers: int
    resize: Resize
    crop: Crop
    flip: float
    zoom: float
    validation_limit: int | None
    train_sketches: Sketches | None = None
    validation_sketches: Sketches | None = None
    sketch_dropout: float = 0.0
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> float:
        """Passes over the photos need not be whole numbers of steps."""
        return len(self.train) / self.batch_size

    @property
    def validation_count(self) -> int:
        """How many photos a validation looks at."""
        return min(len(self.validation), self.validation_limit or len(self.validation))

    def training_batches(self, start_step: int) -> pipeline.Batches:
        """This process's training batches from a step on, without end."""
        return pipeline.training_batches(
            self.train,
            self.masks,
            size=self.size,
            batch_size=self.batch_size,
            seed=self.seed,
            start_step=start_step,
            workers=self.workers,
            resize=self.resize,
            crop=self.crop,
            flip=self.flip,
            zoom=self.zoom,
            sketches=self.train_sketches,
            sketch_dropout=self.sketch_dropout,
            skipped=self.skipped,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def validation_batches(self) -> pipeline.Batches:
        """This process's part of the validation photos, always with the same masks."""
        return self._in_order(self.validation_count, self.batch_size, jax.process_index(), jax.process_count())

    def samples(self, count: int) -> Mapping[str, np.ndarray]:
        """The first readable validation photos, the same on every process: image, mask and, if there is one, sketch."""
        found = []
        batches = self._in_order(self.validation_count, 1, 0, 1)
        for batch in batches:
            if batch["weight"][0]:
                found.append(batch)
            if len(found) == count:
                break
        batches.close()
        names = [name for name in ("image", "mask", "sketch") if name in found[0]]
        return {name: np.concatenate([batch[name] for batch in found]) for name in names}

    def _in_order(self, limit: int, batch_size: int, process_index: int, process_count: int) -> pipeline.Batches:
        return pipeline.evaluation_batches(
            self.validation,
            self.masks,
            size=self.size,
            batch_size=batch_size,
            seed=self.seed + _VALIDATION_SEED_OFFSET,
            resize=self.resize,
            limit=limit,
            sketches=self.validation_sketches,
            skipped=self.skipped,
            process_index=process_index,
            process_count=process_count,
        )
