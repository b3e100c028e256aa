"""From photos to sketches: edge maps in batches on the device; reading and morphology in worker processes meanwhile."""

import collections
import concurrent.futures
import dataclasses
import hashlib
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from inpaint_jax.data.images import Resize, UnreadableImage
from inpaint_jax.data.sketches import MIN_SIZE, THRESHOLD, sketch_from_edges
from inpaint_jax.data.sources import ImageSource, open_source
from inpaint_jax.errors import UserError
from inpaint_jax.features import pidinet
from inpaint_jax.sketching import tasks
from inpaint_jax.sketching.store import COMMAND, SketchStore

_log = logging.getLogger("inpaint_jax")


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
        limit: take only the first photos.
    """

    data: str
    size: int = 256
    resize: Resize = "shortest"
    threshold: float = THRESHOLD
    min_size: float = MIN_SIZE
    weights: str | Path | None = None
    batch_size: int | None = None
    workers: int = 2
    limit: int | None = None


def make_sketches(output: str | Path, settings: Settings) -> SketchStore:
    """Makes the sketches of all photos, or what is missing of them; tries again photos that could not be read.

    Args:
        output: a folder, new or of an earlier run with the same settings; one run at a time.
        settings: see there. Batch size, weights' place and workers may change between runs.

    Returns:
        the finished store.

    Raises:
        UserError: the settings cannot be met, no photo can be read, or the sketches cannot be computed or written.
        UnusableSketches: the folder holds other sketches.
    """
    source, params, depends_on = prepare(settings)
    try:
        store = SketchStore.create(output, source, depends_on, settings.limit)
        todo = list(store.to_make())
        if len(todo) < len(store):
            _log.info("%d of %d sketches are there.", len(store) - len(todo), len(store))
        unreadable = _make(store, source, todo, params, settings) if todo else []
        if len(unreadable) == len(store):
            raise UserError(f"Not one of the {len(store)} photos of {settings.data} can be read; check its path.")
        store.finish(unreadable)
    except BrokenProcessPool as error:
        raise UserError(
            "A worker process died, most likely for lack of memory; the same command with fewer workers "
            "(--workers, or --config.data.workers of a training) goes on."
        ) from error
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error}); the same command goes on.") from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"The device has too little memory; {COMMAND} with a smaller --batch_size and --output={output} goes on."
        ) from error
    _log.info("Made %d sketches into %s.", len(todo) - len(unreadable), store.folder)
    return SketchStore.open(output)


def prepare(settings: Settings) -> tuple[ImageSource, pidinet.Params, dict[str, Any]]:
    """Finds the photos, the network's parameters (downloaded if need be), and all that the sketches depend on.

    Raises:
        UserError: the settings cannot be met.
    """
    if settings.resize not in ("shortest", "stretch"):
        raise UserError(f'resize is {settings.resize!r}; use "shortest" or "stretch".')
    if not 0 <= settings.threshold < 1:
        raise UserError(f"The threshold must be at least 0 and below 1, not {settings.threshold:g}.")
    least = {"size": pidinet.SMALLEST, "min_size": 0, "workers": 0, "batch_size": 1, "limit": 1}
    for name, bound in least.items():
        if (value := getattr(settings, name)) is not None and value < bound:
            raise UserError(f"The {name} must be at least {bound}, not {value:g}.")
    source = open_source(settings.data)
    weights = pidinet.PIDINET.fetch() if settings.weights is None else Path(settings.weights).expanduser()
    params = pidinet.load(weights)
    checksum = hashlib.sha256(weights.read_bytes()).hexdigest()
    lines = {"threshold": float(settings.threshold), "min_size": float(settings.min_size)}
    of_photos = {name: getattr(settings, name) for name in ("data", "size", "resize")}
    return source, params, {**of_photos, **lines, "weights": f"sha256:{checksum}"}


def _make(
    store: SketchStore, source: ImageSource, todo: list[int], params: pidinet.Params, settings: Settings
) -> list[int]:
    """Makes the sketches of some photos; gives the numbers of those that cannot be read."""
    batch_size = settings.batch_size or (1 if jax.default_backend() == "cpu" else 16)
    # Photos read ahead, and edge maps that wait to be thinned: some for each worker, and a batch being gathered.
    ahead = 4 * max(1, settings.workers) + 2 * batch_size
    resized = tasks.ResizedPhotos(source, settings.size, settings.resize)
    unreadable = []

    def photos(read: Iterable[np.ndarray | UnreadableImage]) -> Iterator[tuple[int, np.ndarray]]:
        for number, photo in zip(todo, read):
            if isinstance(photo, UnreadableImage):
                _log.warning("Skipped %s, which cannot be read as an image: %s.", source.name(number), photo.reason)
                unreadable.append(number)
            else:
                yield number, photo

    # disable=None: a bar only where standard error is a terminal.
    bar = tqdm(total=len(store), initial=len(store) - len(todo), unit="photo", disable=None)
    pool, read = _start(resized, settings.workers)
    try:
        with logging_redirect_tqdm(), bar:
            found = photos(_in_order(pool, read, ((number,) for number in todo), ahead))
            drawing = (
                (store.path(number), edge_map, settings.threshold, settings.min_size)
                for number, edge_map in _edge_maps(jax.device_put(params), found, batch_size)
            )
            for _ in _in_order(pool, tasks.draw, drawing, ahead):
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
    return unreadable


def _start(resized: tasks.ResizedPhotos, workers: int) -> tuple[concurrent.futures.Executor, Callable]:
    """The workers, and the function by which they read photos."""
    if workers:
        # Fresh processes: a fork of one that runs jax may hang.
        spawn = multiprocessing.get_context("spawn")
        pool = concurrent.futures.ProcessPoolExecutor(
            workers, spawn, initializer=tasks.start_worker, initargs=(resized,)
        )
        return pool, tasks.read
    # scikit-image loads its parts at their first use, which two threads at once must not be.
    sketch_from_edges(np.zeros((2, 2), np.float32))
    return concurrent.futures.ThreadPoolExecutor(2), resized.read


def _in_order(
    pool: concurrent.futures.Executor, function: Callable, arguments: Iterable[tuple], ahead: int
) -> Iterator[Any]:
    """Results in the order of the arguments, so many of them computed ahead: more would fill the memory."""
    waiting = collections.deque()
    for each in arguments:
        waiting.append(pool.submit(function, *each))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _edge_maps(
    params: pidinet.Params, photos: Iterable[tuple[int, np.ndarray]], batch_size: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Number and edge map, float [h, w], of each photo. One batch is computed while that before it is handed on."""
    computing = []
    for batch in _batches(photos, batch_size):
        images = np.stack([pidinet.padded(photo) for _, photo in batch])
        # Filled up by copies of the last one: another number of photos would be compiled anew.
        images = np.pad(images, ((0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)), mode="edge")
        edges = pidinet.edge_map(params, images / np.float32(255))
        yield from computing
        computing = _cut(batch, edges)
    yield from computing


def _cut(batch: list[tuple[int, np.ndarray]], edges: jax.Array) -> Iterator[tuple[int, np.ndarray]]:
    """Waits for the device, and cuts each edge map to the size of its photo."""
    for (number, photo), edge_map in zip(batch, np.asarray(edges)):
        height, width = photo.shape[:2]
        yield number, edge_map[:height, :width]


def _batches(photos: Iterable[tuple[int, np.ndarray]], batch_size: int) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Numbers and photos that have one shape once they are padded for the network."""
    by_shape = collections.defaultdict(list)
    for number, photo in photos:
        shape = pidinet.padded(photo).shape
        by_shape[shape].append((number, photo))
        if len(by_shape[shape]) == batch_size:
            yield by_shape.pop(shape)
    yield from by_shape.values()
