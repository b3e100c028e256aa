"""The photos, masks and sketches of a run, and the batches that are drawn from them."""

import dataclasses
import functools
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from inpaint_jax import devices
from inpaint_jax.config import Config, Data
from inpaint_jax.data import pipeline
from inpaint_jax.data.masks import MaskSource, open_masks
from inpaint_jax.data.sketches import UnusableSketches
from inpaint_jax.data.sources import ImageSource, open_source
from inpaint_jax.errors import UserError
from inpaint_jax.runs import flatten
from inpaint_jax.sketching.plan import (
    SketchedPhotos,
    SketchPlan,
    check_same_settings,
    plan_sketches,
)
from inpaint_jax.sketching.plan import fingerprint as sketch_fingerprint
from inpaint_jax.sketching.store import SketchStore

_log = logging.getLogger("inpaint_jax")


@dataclasses.dataclass
class Feed:
    """What a run is fed with.

    Attributes:
        config: of the run.
        train: photos to learn from.
        validation: photos to judge by.
        masks: the holes of both.
        sketches: role ("train", "validation") -> sketches, for a model that is guided by them.
        skipped: name -> reason of the unreadable files that came up so far.
    """

    config: Config
    train: ImageSource
    validation: ImageSource
    masks: MaskSource
    sketches: Mapping[str, SketchStore] = dataclasses.field(default_factory=dict)
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, config: Config) -> "Feed":
        """Opens photos and masks, without the sketches.

        Raises:
            UserError: they are nowhere, or none of the photos can be read.
        """
        data = config.data
        train, validation = (_given(data, name) for name in ("train", "validation"))
        feed = cls(config, open_source(train), open_source(validation), open_masks(data.masks, data.image_size))
        pipeline.check_readable(feed.train)
        pipeline.check_readable(feed.validation, feed.validation_count)
        return feed

    @property
    def steps_per_epoch(self) -> float:
        """Passes over the photos need not be whole numbers of steps."""
        return len(self.train) / self.config.batch_size

    @property
    def validation_count(self) -> int:
        """How many photos a validation looks at."""
        return min(len(self.validation), self.config.data.validation_limit or len(self.validation))

    def training_batches(self, start_step: int) -> pipeline.Batches:
        """This process's training batches from a step on, without end."""
        data = self.config.data
        return pipeline.training_batches(
            self.train,
            self.masks,
            size=data.image_size,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            workers=data.workers,
            resize=data.resize,
            crop=data.crop,
            flip=data.flip,
            zoom=data.zoom,
            sketches=self.sketches.get("train"),
            sketch_dropout=data.sketch_dropout,
            skipped=self.skipped,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def validation_batches(self) -> pipeline.Batches:
        """This process's part of the validation photos, always with the same masks."""
        return self._in_order(self.validation_count, self.config.batch_size, jax.process_index(), jax.process_count())

    @functools.cached_property
    def samples(self) -> Mapping[str, np.ndarray]:
        """The first readable validation photos, config.train.samples of them (one at least), the same on every
        process: image, mask and, if there is one, sketch."""
        found = []
        batches = self._in_order(self.validation_count, 1, 0, 1)
        for batch in batches:
            if batch["weight"][0]:
                found.append(batch)
            if len(found) == max(1, self.config.train.samples):
                break
        batches.close()
        names = [name for name in ("image", "mask", "sketch") if name in found[0]]
        return {name: np.concatenate([batch[name] for batch in found]) for name in names}

    def plan_sketches(self, workdir: Path) -> SketchPlan:
        """Where the sketches of the photos are, or how to make them; writes nothing.

        Raises:
            UserError: they are of other data, or cannot be made.
        """
        data = self.config.data
        if not self.config.model.sketch:
            return SketchPlan({}, [])
        # A broken mask should not come up only after hours of sketching.
        _ = dataclasses.replace(self).samples
        rule = {"size": data.image_size, "resize": data.resize}
        photos = [
            SketchedPhotos("train", "sketches", _given(data, "train"), self.train, **rule),
            SketchedPhotos(
                "validation",
                "validation_sketches",
                _given(data, "validation"),
                self.validation,
                limit=data.validation_limit,
                **rule,
            ),
        ]
        plan = plan_sketches(
            photos,
            {each.role: getattr(data, each.field) for each in photos},
            workdir,
            weights=data.pidinet_weights,
            workers=data.workers,
            may_make=jax.process_count() == 1,
        )
        if jax.process_count() > 1 and not devices.is_same_on_all_hosts(
            json.dumps(sketch_fingerprint(plan.found), sort_keys=True)
        ):
            raise UnusableSketches(
                "The hosts have different sketches; copy the folders of config.data.sketches and "
                "config.data.validation_sketches from one host to all others."
            )
        return plan

    def fingerprint(self) -> dict[str, Any]:
        """What a run can only go on exactly with, as JSON can hold it."""
        return {
            "training_images": len(self.train),
            "validation_images": self.validation_count,
            "devices": jax.device_count(),
            **sketch_fingerprint(self.sketches),
        }

    def check_goes_on(self, saved_with: Mapping[str, Any], workdir: Path) -> None:
        """Warns of what is not as it was when the run was saved.

        Args:
            saved_with: its `fingerprint` then.
            workdir: of the run.

        Raises:
            UserError: the sketches are of other settings.
        """
        now = self.fingerprint()
        check_same_settings(saved_with, now, workdir)
        old, new = flatten(saved_with), flatten(now)
        differing = [
            f"{name}: {old.get(name)!r} then, {new.get(name)!r} now"
            for name in sorted(old.keys() | new.keys())
            if old.get(name) != new.get(name)
        ]
        if differing:
            _log.warning("This run goes on, but not exactly as if it had never stopped (%s).", "; ".join(differing))

    def _in_order(self, limit: int, batch_size: int, process_index: int, process_count: int) -> pipeline.Batches:
        return pipeline.evaluation_batches(
            self.validation,
            self.masks,
            size=self.config.data.image_size,
            batch_size=batch_size,
            seed=pipeline.validation_seed(self.config.seed),
            resize=self.config.data.resize,
            limit=limit,
            sketches=self.sketches.get("validation"),
            skipped=self.skipped,
            process_index=process_index,
            process_count=process_count,
        )


def _given(data: Data, name: str) -> str:
    if spec := getattr(data, name):
        return spec
    raise UserError(f"config.data.{name} must be given, for example as folder:PATH.")
