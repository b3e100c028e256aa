"""All methods of an evaluation as one function of a batch."""

import concurrent.futures
import multiprocessing
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from inpaint_jax import classical
from inpaint_jax.data.workers import prepare_worker
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.inference.retouching import retouch
from inpaint_jax.nets.fill import tension_spline

# The fill that models start from, as a method of its own: a model that is better has learned something.
SPLINE = "tension_spline"
NAMES = (*classical.METHODS, SPLINE)


def check(method: str) -> None:
    """Checks the name of a method that is not a model.

    Raises:
        UserError: `method` is not in `NAMES`, or the library that it needs is not installed.
    """
    if method != SPLINE:
        classical.check(method, NAMES)


class Methods:
    """Runs classical methods in processes, and models on the devices meanwhile. Close it, or use a `with`.

    Args:
        classical_names: Names of the methods to run beside the models, from `NAMES`.
        models: name -> Inpainter.
        workers: processes for the classical methods; 0 runs them in this one.
        as_photos: whether models fill as users' photos are filled, see `inference.retouching`, without sketches.

    Attributes:
        names: Names of all methods, in the order of tables: models last.
    """

    def __init__(
        self, classical_names: Sequence[str], models: Mapping[str, Inpainter], workers: int, *, as_photos: bool = False
    ):
        self._as_photos = as_photos
        self._classical = tuple(name for name in classical_names if name != SPLINE)
        self._models = dict(models)
        self.names = (*classical_names, *self._models)
        self._pool = None
        if workers and self._classical:
            # Fresh processes: a fork of one that runs jax may hang.
            self._pool = concurrent.futures.ProcessPoolExecutor(
                workers, multiprocessing.get_context("spawn"), initializer=prepare_worker
            )

    def __call__(
        self, images: np.ndarray, masks: np.ndarray, sketches: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Fills the holes of a batch by every method.

        Args:
            images: uint8 [B, H, W, 3].
            masks: bool [B, H, W], True = missing.
            sketches: bool [B, H, W], True = line, for models that are guided by sketches; others get none.

        Returns:
            method -> completed uint8 [B, H, W, 3], the known pixels as given.
        """
        tasks = [(name, image, mask) for name in self._classical for image, mask in zip(images, masks)]
        futures = [self._pool.submit(classical.complete, *task) for task in tasks] if self._pool else None
        by_model = {name: self._complete(model, images, masks, sketches) for name, model in self._models.items()}
        if SPLINE in self.names:
            by_model[SPLINE] = np.asarray(_spline(images, masks))
        done = [f.result() for f in futures] if futures else [classical.complete(*task) for task in tasks]
        count = len(images)
        by_classical = {name: np.stack(done[i * count : (i + 1) * count]) for i, name in enumerate(self._classical)}
        return by_classical | by_model

    def _complete(
        self, model: Inpainter, images: np.ndarray, masks: np.ndarray, sketches: np.ndarray | None
    ) -> np.ndarray:
        if self._as_photos:
            return np.stack([retouch(model, image, mask).pixels for image, mask in zip(images, masks)])
        return model.predict(images, masks, sketches if model.guided else None, margin=0).completed

    def close(self) -> None:
        """Ends the processes."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "Methods":
        return self

    def __exit__(self, *_) -> None:
        self.close()


@jax.jit
def _spline(images: jax.Array, masks: jax.Array) -> jax.Array:
    return jnp.round(255 * tension_spline(images.astype(jnp.float32) / 255, masks)).astype(jnp.uint8)
