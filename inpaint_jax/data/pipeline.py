"""Batches of photos with holes, for training and for evaluation, made by grain, in worker processes if wished.

Everything random is a function of (seed, epoch, index), and the position in the data is the number of the step, so a
run resumes exactly from its step number alone, whatever the number of workers.
"""

import contextlib
import dataclasses
import logging
import signal
import sys
import weakref
from collections.abc import Iterator

import grain
import numpy as np
from absl import flags
from grain._src.python.dataset.transformations import process_prefetch

from inpaint_jax.data.images import Crop, Resize, UnreadableImage, crop_corner, cut_square, resize_only
from inpaint_jax.data.masks import MaskSource, NumberedMasks
from inpaint_jax.data.sketches import Sketches, drop_lines, sketch_square
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.data.workers import prepare_worker
from inpaint_jax.errors import UserError

logger = logging.getLogger("inpaint_jax")

Batch = dict[str, np.ndarray]

# A worker that is told to stop cannot, while nobody reads its last batch from the pipe. grain waits 25 s before it
# kills such a worker, one after the other; nothing is lost by doing so at once.
process_prefetch._PROCESS_KILL_TIMEOUT_S = 0.5

# Batches that each process holds ready; grain's own default of 500 would fill the memory.
PREFETCH = 2


class NoReadableImages(UserError):
    """Not one image of a source can be decoded."""


@dataclasses.dataclass(frozen=True, repr=False)
class _TrainingSample(grain.transforms.RandomMap):
    """Number of a photo -> sample. The numbers asked for and used tell the main process which files are bad."""

    source: ImageSource
    masks: MaskSource
    resize: Resize
    crop: Crop
    flip: float
    zoom: float
    sketches: Sketches | None
    sketch_dropout: float

    def random_map(self, element: int, rng: np.random.Generator) -> Batch:
        size = self.masks.size
        image, used = _first_readable(self.source, start=element)
        # Nothing is drawn without a zoom, so that such runs stay as they were.
        scale = rng.uniform(1, self.zoom) if self.zoom > 1 else 1
        image = resize_only(image, round(scale * size), self.resize)
        shape = image.shape[:2]
        corner = crop_corner(shape, size, self.crop, rng)
        image = cut_square(image, size, corner)
        flipped = rng.random() < self.flip
        if flipped:
            image = image[:, ::-1]
        mask, crop = self.masks.draw(rng)
        sample = {"image": image, "mask": mask, "crop": crop, "asked": np.int64(element), "used": np.int64(used)}
        if self.sketches is not None:
            sketch = sketch_square(self.sketches, used, shape, size, corner)
            sketch = sketch[:, ::-1] if flipped else sketch
            # Drawn last: photo, crop and mask of a sample are the same with sketches and without.
            sample["sketch"] = drop_lines(sketch, rng, self.sketch_dropout)
        return sample


@dataclasses.dataclass(frozen=True, repr=False)
class _EvaluationSample(grain.transforms.RandomMap):
    """Number of a photo -> sample; numbers from `count` on are padding, and unreadable photos count as that too."""

    source: ImageSource
    masks: NumberedMasks
    resize: Resize
    count: int
    sketches: Sketches | None

    def random_map(self, element: int, rng: np.random.Generator) -> Batch:
        size = self.masks.size
        image, sketch, weight = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), bool), 0
        if element < self.count:
            with contextlib.suppress(UnreadableImage):
                image, weight = resize_only(self.source[element], size, self.resize), 1
                shape = image.shape[:2]
                corner = crop_corner(shape, size)
                image = cut_square(image, size, corner)
                if self.sketches is not None:
                    sketch = sketch_square(self.sketches, element, shape, size, corner)
        mask, crop = self.masks.draw(rng, element)
        index = element if element < self.count else -1
        sample = {
            "image": image,
            "mask": mask,
            "crop": crop,
            "weight": np.float32(weight),
            "index": np.int32(index),
        }
        return sample if self.sketches is None else sample | {"sketch": sketch}


def check_readable(source: ImageSource, count: int | None = None) -> None:
    """Looks for one photo that can be read.

    Args:
      source: the photos.
      count: look at the first `count` only.

    Raises:
      NoReadableImages: there is none.
    """
    _first_readable(source, count=count)


def _first_readable(source: ImageSource, start: int = 0, count: int | None = None) -> tuple[np.ndarray, int]:
    """The first photo that can be read from number `start` on, starting over at the end; and its number."""
    count = len(source) if count is None else min(count, len(source))
    reason = None
    for offset in range(count):
        index = (start + offset) % count
        try:
            return source[index], index
        except UnreadableImage as error:
            reason = reason or error
    raise NoReadableImages(f"None of the {count} images can be read; check the data's path. The first: {reason}")


class Batches(Iterator[Batch]):
    """Iterates over batches; `close()` stops the workers.

    `skipped` maps the names of unreadable files met so far in the batches handed out to the reasons; each was logged
    as a warning when it came up.
    """

    def __init__(self, dataset: grain.IterDataset, source: ImageSource, skipped: dict[str, str] | None = None):
        self._source = source
        self.skipped = {} if skipped is None else skipped
        # At the latest when the program ends, before the interpreter takes grain's modules down under its workers.
        self._running = [iter(dataset)]
        self._stop = weakref.finalize(self, _close, self._running)

    def __next__(self) -> Batch:
        """Next batch; logs the unreadable files that it came across."""
        if not self._running:
            raise StopIteration
        try:
            batch = next(self._running[0])
        except BaseException:  # the end, an error in a worker, or Ctrl-C: nothing more will be asked of the workers
            self.close()
            raise
        if "used" in batch:
            asked, used = batch.pop("asked"), batch.pop("used")
            for first, last in zip(asked, used):
                self._note_unreadable((first + np.arange((last - first) % len(self._source))) % len(self._source))
        else:
            self._note_unreadable(batch["index"][(batch["weight"] == 0) & (batch["index"] >= 0)])
        return batch

    def _note_unreadable(self, indices: np.ndarray) -> None:
        for index in indices.tolist():
            name = self._source.name(index)
            if name in self.skipped:
                continue
            reason = "it could be read only at a second try"
            try:  # the worker hands over arrays only; reading once more gives the reason
                self._source[index]
            except UnreadableImage as error:
                reason = error.reason
            self.skipped[name] = reason
            logger.warning("Skipped %s, which cannot be read as an image: %s.", name, reason)

    def close(self) -> None:
        """Stops prefetching and ends the worker processes."""
        self._stop()


def _close(running: list[grain.DatasetIterator]) -> None:
    while running:
        running.pop().close()


def training_batches(
    source: ImageSource,
    masks: MaskSource,
    *,
    size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    workers: int = 0,
    resize: Resize = "shortest",
    crop: Crop = "random",
    flip: float = 0.5,
    zoom: float = 1.0,
    sketches: Sketches | None = None,
    sketch_dropout: float = 0.0,
    skipped: dict[str, str] | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Draws training batches without end, each epoch in a new order.

    Several hosts together draw exactly the samples that one host would: host p gets samples p, p + P, ... of each
    batch. An unreadable file is replaced by the next readable one and noted in `skipped`.

    Args:
      source: the photos.
      masks: the holes, of side `size`.
      size: side of the images.
      batch_size: of all processes together.
      seed: fixes the order, crops, flips and masks.
      start_step: number of batches to leave out, without reading them.
      workers: worker processes; 0 reads in threads of this process.
      resize: "shortest" or "stretch"; see resize_and_crop.
      crop: "random" or "center".
      flip: probability of mirroring left to right.
      zoom: photos are resized to between 1 and so many times `size` before the crop; 1 where there are sketches, which
        are of one size.
      sketches: of the photos, by their number; cropped and mirrored as these are.
      sketch_dropout: share of the samples that get no sketch or a part of one; see `sketches.drop_lines`.
      skipped: where to note unreadable files; those in it already are not warned about again.
      process_index: number of this host.
      process_count: number of hosts.

    Returns:
      Iterator of {"image": uint8 [b, size, size, 3], "mask": bool [b, size, size], True = missing,
      "crop": int32 [b, 2], top and left of the local crop}, b = batch_size / process_count. With sketches, also
      "sketch": bool [b, size, size], True = line; all else is the same with and without.

    Raises:
      ValueError: batch_size cannot be divided among the processes, or the masks have another size.
      NoReadableImages: the source has no readable image.
    """
    local_batch = _local_batch_size(batch_size, process_count)
    _check_size(masks, size)
    check_readable(source)
    sample = _TrainingSample(source, masks, resize, crop, flip, zoom, sketches, sketch_dropout)
    dataset = grain.MapDataset.range(len(source)).shuffle(seed=seed).repeat().random_map(sample, seed=seed)
    # There is no remainder in an endless stream, but rounding its length up would overflow for batches of 1.
    dataset = dataset[process_index::process_count].batch(local_batch, drop_remainder=True)[start_step:]
    return Batches(_prefetch(dataset, workers), source, skipped)


def validation_seed(seed: int) -> int:
    """The seed of a run's validation: its masks must not be those of training, whatever the run's seed is."""
    return seed + 1_000_003


def evaluation_batches(
    source: ImageSource,
    masks: NumberedMasks,
    *,
    size: int,
    batch_size: int,
    seed: int,
    resize: Resize = "shortest",
    start_step: int = 0,
    workers: int = 0,
    limit: int | None = None,
    sketches: Sketches | None = None,
    skipped: dict[str, str] | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Goes through the photos once, in order, cropped in the middle; the mask of photo i depends on (seed, i) alone.

    Every batch is full: `weight` is 0 for the rows that fill up the last one, and for unreadable photos, which are
    noted in `skipped`. Such rows hold a black image and a mask like any other, so that means over holes stay finite.
    All processes get the same number of batches: process p of P has rows p, p + P, ... of each.

    Args:
      source: the photos.
      masks: the holes, of side `size`.
      size: side of the images.
      batch_size: of all processes together.
      seed: fixes the masks.
      resize: "shortest" or "stretch"; see resize_and_crop.
      start_step: number of batches to leave out, without reading them.
      workers: worker processes; 0 reads in threads of this process.
      limit: take only the first `limit` photos.
      sketches: of the photos, by their number; cropped as these are, and whole.
      skipped: where to note unreadable files; those in it already are not warned about again.
      process_index: number of this host.
      process_count: number of hosts.

    Returns:
      Iterator of {"image": uint8 [b, size, size, 3], "mask": bool [b, size, size], True = missing,
      "crop": int32 [b, 2], "weight": float32 [b], "index": int32 [b], number of the photo or -1},
      b = batch_size / process_count. With sketches, also "sketch": bool [b, size, size], True = line.

    Raises:
      ValueError: batch_size cannot be divided among the processes, or the masks have another size.
      NoReadableImages: the source has no readable image.
    """
    local_batch = _local_batch_size(batch_size, process_count)
    _check_size(masks, size)
    count = len(source) if limit is None else min(limit, len(source))
    check_readable(source, count)
    padded = -(-count // batch_size) * batch_size
    sample = _EvaluationSample(source, masks, resize, count, sketches)
    dataset = grain.MapDataset.range(padded).random_map(sample, seed=seed)
    dataset = dataset[process_index::process_count].batch(local_batch)[start_step:]
    return Batches(_prefetch(dataset, workers), source, skipped)


def _local_batch_size(batch_size: int, process_count: int) -> int:
    if batch_size % process_count:
        raise ValueError(f"A batch of {batch_size} cannot be divided among {process_count} processes; use a multiple.")
    return batch_size // process_count


def _check_size(masks: NumberedMasks, size: int) -> None:
    if masks.size != size:
        raise ValueError(f"Masks are {masks.size} pixels wide but images {size}; give open_masks the same size.")


def _prefetch(dataset: grain.MapDataset, workers: int) -> grain.IterDataset:
    """Reads ahead in two threads here, or in worker processes; the order of batches is the same."""
    threads = 1 if workers else 2
    batches = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=PREFETCH))
    if not workers:
        return batches
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain looks up a flag; notebooks and tests have not parsed any
    # Batches through pipes: shared memory is short in containers (64 MB), and grain leaks some when workers stop.
    batches = grain.experimental.WithOptionsIterDataset(
        batches, grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
    )
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=PREFETCH)
    return batches.mp_prefetch(options, worker_init_fn=_start_worker)


def _start_worker(worker: int, workers: int) -> None:
    """As grain calls it: with the number of the worker, and how many there are."""
    prepare_worker()
    # A cluster's SIGTERM, too, reaches the whole group, and the training finishes its step before it ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
