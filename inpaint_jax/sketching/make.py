"""From photos to sketches: edge maps in batches on the device; reading and morphology in worker processes meanwhile."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import logging
import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from inpaint_jax.data import sketches
from inpaint_jax.data.images import Resize, UnreadableImage
from inpaint_jax.data.sources import ImageSource, open_source
from inpaint_jax.errors import UserError
from inpaint_jax.features import pidinet
from inpaint_jax.features.weights import WeightsUnavailable
from inpaint_jax.sketching import tasks

_log = logging.getLogger("inpaint_jax")


class SketchingError(UserError):
    """Something that whoever asked can mend; the message says how, in one sentence."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What sketches are made of, and how.

    Attributes:
        data: the photos, as in `data.sources.open_source`.
        size: image_size of the training.
        resize: data.resize of the training.
        threshold: of the edge map.
        min_size: components of fewer pixels are dropped; for a size of 256, scaled by area for others.
        weights: file of PiDiNet's; None for the cache or a download.
        batch_size: photos of one shape at a time; None takes 1 on a CPU, where more gain nothing, and 16 elsewhere.
        workers: processes that read photos and thin lines; 0 takes threads of this one.
        shard_size: sketches in a file, and what a killed run loses at most.
        limit: take only the first photos.
        maker: the command that makes them, as it is named to whoever has to start it again.
    """

    data: str
    size: int = 256
    resize: Resize = "shortest"
    threshold: float = sketches.THRESHOLD
    min_size: float = sketches.MIN_SIZE
    weights: str | Path | None = None
    batch_size: int | None = None
    workers: int = 2
    shard_size: int = 1000
    limit: int | None = None
    maker: str = sketches.COMMAND


def make_sketches(output: str | Path, settings: Settings) -> sketches.SketchStore:
    """Makes the sketches of all photos, or what is missing of them.

    Args:
        output: a folder, new or of an earlier run with the same settings; one run at a time.
        settings: see there. Batch size, weights' place and workers may change between runs.

    Returns:
        the finished folder.

    Raises:
        SketchingError: the settings cannot be met, or the folder holds other sketches.
    """
    source, params, depends_on = _find(settings)
    output = Path(output).expanduser()
    try:
        limits = {"limit": settings.limit, "maker": settings.maker}
        missing = sketches.claim(output, source, depends_on, settings.shard_size, **limits)
    except (ValueError, OSError) as error:
        raise SketchingError(str(error)) from error
    count = len(source) if settings.limit is None else min(settings.limit, len(source))
    if not missing:
        _log.info("Nothing to do: %s holds all %d sketches.", output, count)
        return sketches.SketchStore(output)

    todo = sum(map(len, missing.values()))
    if todo < count:
        _log.info("Going on: %d of %d sketches are there.", count - todo, count)
    unreadable = 0
    resized = tasks.ResizedPhotos(source, settings.size, settings.resize)
    maker = _Maker(resized, params, settings)
    try:
        # disable=None: a bar only where standard error is a terminal.
        with (
            logging_redirect_tqdm(),
            tqdm(total=count, initial=count - todo, unit="photo", disable=None) as progress,
        ):
            read = maker.read(number for numbers in missing.values() for number in numbers)
            for shard, numbers in missing.items():
                names = [source.name(number) for number in numbers]
                records = maker.records(names, read, progress)
                sketches.write_shard(output, shard, names, records)
                unreadable += records.count(None)
    except BrokenProcessPool as error:
        raise SketchingError(
            "A worker process died, most likely for lack of memory; the same command with fewer workers "
            "(--workers, or --config.data.workers of train.py) goes on."
        ) from error
    except OSError as error:
        raise SketchingError(f"{output} cannot be written ({error}); the same command goes on.") from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise SketchingError(
            f"The device has too little memory; {sketches.COMMAND} with a smaller --batch_size and --output={output} "
            "goes on."
        ) from error
    finally:
        maker.close()
    _log.info("Made %d sketches into %s.", todo - unreadable, output)
    if unreadable:
        _log.warning("%d photos could not be read and have no sketch.", unreadable)
    return sketches.SketchStore(output)


def describe(settings: Settings) -> dict[str, Any]:
    """What index.json will say of the sketches' settings, once everything that it takes to make them was found.

    Args:
        settings: see there. PiDiNet's weights are downloaded if they have to be.

    Raises:
        SketchingError: the settings cannot be met.
    """
    return _find(settings)[2]


def _find(settings: Settings) -> tuple[ImageSource, pidinet.Params, dict[str, Any]]:
    """The photos, the network's parameters, and all that the sketches depend on."""
    _check(settings)
    try:
        source = open_source(settings.data)
        weights = pidinet.PIDINET.fetch() if settings.weights is None else Path(settings.weights).expanduser()
        params = pidinet.load(weights)
        checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
    except (ValueError, OSError, WeightsUnavailable) as error:
        raise SketchingError(str(error)) from error
    return (
        source,
        params,
        {
            "data": settings.data,
            "size": settings.size,
            "resize": settings.resize,
            "threshold": float(settings.threshold),
            "min_size": float(settings.min_size),
            "weights": f"sha256:{checksum}",
        },
    )


def _check(settings: Settings) -> None:
    if settings.resize not in ("shortest", "stretch"):
        raise SketchingError(f'resize is {settings.resize!r}; use "shortest" or "stretch".')
    if settings.size < pidinet.SMALLEST:
        raise SketchingError(f"The size must be at least {pidinet.SMALLEST}, not {settings.size}.")
    if not 0 <= settings.threshold < 1:
        raise SketchingError(f"The threshold must be at least 0 and below 1, not {settings.threshold:g}.")
    for name, least in (("min_size", 0), ("workers", 0), ("shard_size", 1), ("batch_size", 1), ("limit", 1)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise SketchingError(f"The {name} must be at least {least}, not {value:g}.")


class _Maker:
    """The device, and the workers around it."""

    def __init__(self, resized: tasks.ResizedPhotos, params: pidinet.Params, settings: Settings):
        self._params = jax.device_put(params)
        self._settings = settings
        self._batch_size = settings.batch_size or (1 if jax.default_backend() == "cpu" else 16)
        # Photos read ahead, and edge maps that wait to be thinned: some for each worker, and a batch being gathered.
        self._ahead = 4 * max(1, settings.workers) + 2 * self._batch_size
        if settings.workers:
            # Fresh processes: a fork of one that runs jax may hang.
            self._pool = concurrent.futures.ProcessPoolExecutor(
                settings.workers,
                multiprocessing.get_context("spawn"),
                initializer=tasks.start_worker,
                initargs=(resized,),
            )
            self._read = tasks.read
        else:
            # scikit-image loads its parts at their first use, which two threads at once must not be.
            sketches.sketch_from_edges(np.zeros((2, 2), np.float32))
            self._pool = concurrent.futures.ThreadPoolExecutor(2)
            self._read = resized.read

    def close(self) -> None:
        """Ends the workers."""
        self._pool.shutdown(cancel_futures=True)

    def read(self, numbers: Iterable[int]) -> Iterator[np.ndarray | UnreadableImage]:
        """Photos in this order, some of them read ahead."""
        reading = collections.deque()
        for number in numbers:
            reading.append(self._pool.submit(self._read, number))
            if len(reading) > self._ahead:
                yield reading.popleft().result()
        while reading:
            yield reading.popleft().result()

    def records(
        self, names: list[str], read: Iterator[np.ndarray | UnreadableImage], progress: tqdm
    ) -> list[sketches.Record | None]:
        """Records for `sketches.write_shard`, of as many photos as there are names."""
        records: dict[int, concurrent.futures.Future] = {}
        on_device, unfinished = collections.deque(), collections.deque()

        def hand_on() -> None:
            """The edge maps of the oldest batch go to the workers."""
            gathered, edges = on_device.popleft()
            for (place, _, (height, width)), edge_map in zip(gathered, np.asarray(edges)):
                edge_map = edge_map[:height, :width]
                records[place] = self._pool.submit(
                    tasks.record, edge_map, self._settings.threshold, self._settings.min_size
                )
                unfinished.append(records[place])
                if len(unfinished) > self._ahead:  # edge maps that pile up would fill the memory
                    unfinished.popleft().result()
                progress.update()

        for gathered in self._batches(names, read, progress):
            images = np.stack([photo for _, photo, _ in gathered])
            # Filled up by copies of the last one: another number of photos would be compiled anew.
            images = np.pad(images, ((0, self._batch_size - len(images)), (0, 0), (0, 0), (0, 0)), mode="edge")
            on_device.append((gathered, pidinet.edge_map(self._params, images / np.float32(255))))
            if len(on_device) > 1:  # one batch is computed while the one before it is handed on
                hand_on()
        while on_device:
            hand_on()
        return [records[place].result() if place in records else None for place in range(len(names))]

    def _batches(
        self, names: list[str], read: Iterator[np.ndarray | UnreadableImage], progress: tqdm
    ) -> Iterator[list[tuple[int, np.ndarray, tuple[int, int]]]]:
        """Photos of equal shape, filled up by pidinet.padded, each with its place among the names and its own size."""
        by_shape = collections.defaultdict(list)
        for place, name in enumerate(names):
            photo = next(read)
            if isinstance(photo, UnreadableImage):
                _log.warning("Skipped %s, which cannot be read as an image: %s.", name, photo.reason)
                progress.update()
                continue
            padded = pidinet.padded(photo)
            gathered = by_shape[padded.shape]
            gathered.append((place, padded, photo.shape[:2]))
            if len(gathered) == self._batch_size:
                yield by_shape.pop(padded.shape)
        yield from by_shape.values()
