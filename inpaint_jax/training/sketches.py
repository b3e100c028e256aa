"""The sketches that a run is guided by: opened where a folder is given, made in the workdir otherwise."""

import dataclasses
import logging
from pathlib import Path

from inpaint_jax.data.images import Resize
from inpaint_jax.data.sketches import SketchStore, UnusableSketches
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.sketching.run import Settings, make_sketches

_log = logging.getLogger("inpaint_jax")


@dataclasses.dataclass(frozen=True)
class Sketched:
    """Photos that need sketches.

    Attributes:
        role: "train" or "validation": the folder's name in the workdir.
        field: of the config, that names a folder of their sketches.
        data: the photos, as in `data.sources.open_source`.
        source: the same, opened.
        size: image_size of the training.
        resize: data.resize of the training.
    """

    role: str
    field: str
    data: str
    source: ImageSource
    size: int
    resize: Resize

    def open(self, folder: str | Path) -> SketchStore:
        """Opens a folder of their sketches.

        Raises:
            FileNotFoundError: there is none.
            UnusableSketches: it is unfinished or damaged, or of other photos, another size or resize.
        """
        store = SketchStore(Path(folder).expanduser())
        store.check(self.source, size=self.size, resize=self.resize)
        return store

    def open_or_make(self, workdir: Path, weights: str | None, workers: int) -> SketchStore:
        """Opens their sketches in a workdir, or makes them, or what a stopped run has left to make.

        Args:
            workdir: of the run.
            weights: file of PiDiNet's; None for the cache or a download. Finished sketches need none.
            workers: processes.

        Raises:
            sketching.run.SketchingError: they cannot be made.
            UnusableSketches: the workdir holds those of other photos.
        """
        folder = workdir / "sketches" / self.role
        try:
            SketchStore(folder)
        except (FileNotFoundError, UnusableSketches):
            _log.info(
                "First the sketches of %d photos (data.%s) are made, into %s; config.data.%s can name a folder.",
                len(self.source),
                self.role,
                folder,
                self.field,
            )
            make_sketches(folder, Settings(self.data, self.size, self.resize, weights=weights, workers=workers))
        return self.open(folder)
