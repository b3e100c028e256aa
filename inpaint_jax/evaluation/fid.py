"""Fréchet inception distance between completed images and the truth, from streaming statistics.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017: both
sets of images are described by the mean and covariance of their Inception features, and these are compared. The truth
is the whole data set for every bin, so its statistics are computed once, and kept in the cache folder.
"""

import hashlib
import logging
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from inpaint_jax.data.images import Resize
from inpaint_jax.data.masks import FreeFormMasks
from inpaint_jax.data.pipeline import evaluation_batches
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.evaluation import output
from inpaint_jax.features import inception
from inpaint_jax.files import cache_folder
from inpaint_jax.metrics import GaussianStatistics, frechet_distance

FEATURES = 2048

_log = logging.getLogger("inpaint_jax")


class FeatureExtractor:
    """Computes Inception's pool3 features of images, on all local devices if the batch divides over them.

    Args:
        params: Parameters of `features.inception`.
    """

    def __init__(self, params: Any):
        devices = np.array(jax.local_devices())
        mesh = jax.sharding.Mesh(devices, ("data",))
        self._split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        self._everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        self._params = jax.device_put(params, self._everywhere)
        self.checksum = checksum(params)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 [B, H, W, 3] -> float32 [B, 2048]."""
        divides = len(images) % self._split.mesh.size == 0
        images = jax.device_put(images, self._split if divides else self._everywhere)
        return np.asarray(_pool3(self._params, images))


@jax.jit
def _pool3(params: Any, images: jax.Array) -> jax.Array:
    return inception.pool3(params, images.astype(np.float32) / 255)


def checksum(tree: Any) -> str:
    """SHA-256 of the names and values of a tree of arrays, to tell parameters apart."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()


def truth_statistics(
    extract: FeatureExtractor,
    source: ImageSource,
    *,
    size: int,
    resize: Resize,
    batch_size: int,
    workers: int = 0,
    progress: Callable[[Iterable, str], Iterable] = lambda items, what: items,
) -> GaussianStatistics:
    """Statistics of the true images, from the cache if the same images were seen before at this size.

    Args:
        extract: Computes the features.
        source: The images.
        size: Side that they are resized to.
        resize: "shortest" or "stretch".
        batch_size: images at a time.
        workers: processes that read images.
        progress: Wraps the loops, with a description, as tqdm does.

    Returns:
        Mean and covariance of the features of all readable images.
    """

    def images(what: str) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        batches = evaluation_batches(
            source, FreeFormMasks(size), size=size, batch_size=batch_size, seed=0, resize=resize, workers=workers
        )
        try:
            for batch in progress(batches, what):
                yield batch["image"], batch["weight"] > 0
        finally:
            batches.close()

    digest = hashlib.sha256(extract.checksum.encode())
    for batch, valid in images("checking the truth's cache"):
        digest.update(np.ascontiguousarray(batch[valid]).data)
    path = cache_folder() / "truth_statistics" / f"{len(source)}x{size}px-{digest.hexdigest()[:32]}.npz"
    try:
        with np.load(path, allow_pickle=False) as saved:
            return GaussianStatistics.from_arrays(dict(saved))
    except (OSError, ValueError, zipfile.BadZipFile) as error:  # there is none yet, or it is damaged
        if path.exists():
            _log.warning("The cached statistics %s cannot be read (%s) and are computed again.", path, error)
    statistics = GaussianStatistics(FEATURES)
    for batch, valid in images("Inception features of the truth"):
        statistics.update(extract(batch)[valid])
    try:
        output.write_arrays(path, statistics.to_arrays())
    except OSError as error:  # for example a read-only cache that others filled
        _log.warning("The statistics of the truth cannot be cached: %s", error)
    return statistics


def distance(completed: GaussianStatistics, truth: GaussianStatistics) -> dict[str, Any]:
    """The FID of completed images, with a note that a reader must know.

    Returns:
        {"fid": number or None, "fid_note": text or None}.
    """
    few = min(completed.count, truth.count)
    if few < 2:
        return {"fid": None, "fid_note": f"a covariance needs at least 2 images, and a bin has {few}."}
    fid = frechet_distance(truth.mean, truth.covariance, completed.mean, completed.covariance)
    note = None
    if few <= FEATURES:
        note = (
            f"{few} images do not determine a covariance of {FEATURES} features: the figures are biased upwards, "
            "and compare only with those of as many images."
        )
    return {"fid": fid, "fid_note": note}
