"""What the workers of the sketching do: read photos, thin lines. Imports no jax, because they import it again."""

import dataclasses
from pathlib import Path

import numpy as np

from inpaint_jax.data.images import Resize, UnreadableImage, resize_only
from inpaint_jax.data.sketches import sketch_from_edges
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.data.workers import prepare_worker
from inpaint_jax.sketching.store import write_sketch


@dataclasses.dataclass(frozen=True)
class ResizedPhotos:
    """Photos after the resize of the training, before its crop."""

    source: ImageSource
    size: int
    resize: Resize

    def read(self, number: int) -> np.ndarray | UnreadableImage:
        """Photo as uint8 [h, w, 3]; or the error, which stops nothing."""
        try:
            return resize_only(self.source[number], self.size, self.resize)
        except UnreadableImage as error:
            return error


# Of a worker process: the list of a large data set's names is long, and each worker gets it once, not with every photo.
_photos: ResizedPhotos


def start_worker(photos: ResizedPhotos) -> None:
    """Prepares a worker process for `read`."""
    global _photos
    prepare_worker()
    _photos = photos


def read(number: int) -> np.ndarray | UnreadableImage:
    """`ResizedPhotos.read` in a worker process that was started with the photos."""
    return _photos.read(number)


def draw(path: Path, edge_map: np.ndarray, threshold: float, min_size: float) -> None:
    """Turns an edge map, float [H, W] in [0, 1], into the PNG of its sketch; see `data.sketches`."""
    write_sketch(path, sketch_from_edges(edge_map, threshold, min_size, scaled=True))
