"""What the workers of the sketching do: read photos, thin lines. Imports no jax, because they import it again."""

import dataclasses

import numpy as np

from inpaint_jax.data import sketches
from inpaint_jax.data.images import Resize, UnreadableImage, resize_only
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.data.workers import prepare_worker


@dataclasses.dataclass(frozen=True)
class ResizedPhotos:
    """Photos after the resize of the training, before its crop."""

    source: ImageSource
    size: int
    resize: Resize

    def read(self, number: int) -> np.ndarray | UnreadableImage:
        """Reads a photo.

        Args:
            number: of the photo.

        Returns:
            uint8 [h, w, 3], or the error, which stops nothing.
        """
        try:
            return resize_only(self.source[number], self.size, self.resize)
        except UnreadableImage as error:
            return error


# Of a worker process: the list of a large data set's names is long, and each worker gets it once, not with every photo.
_photos: ResizedPhotos | None = None


def start_worker(photos: ResizedPhotos) -> None:
    """Prepares a worker process for `read`."""
    global _photos
    prepare_worker()
    _photos = photos


def read(number: int) -> np.ndarray | UnreadableImage:
    """`ResizedPhotos.read` in a worker process that was started with the photos."""
    return _photos.read(number)


def record(edge_map: np.ndarray, threshold: float, min_size: float) -> sketches.Record:
    """Turns an edge map, float [H, W] in [0, 1], into the record of its sketch; see data.sketches."""
    return sketches.pack(sketches.sketch_from_edges(edge_map, threshold, min_size, scaled=True))
