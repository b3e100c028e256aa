"""The sketches that a training is guided by: opened where folders are given, made in the workdir otherwise."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inpaint_jax.data.images import Resize
from inpaint_jax.data.sketches import UnusableSketches
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.errors import UserError
from inpaint_jax.sketching.make import Settings, make_sketches, prepare
from inpaint_jax.sketching.store import COMMAND, SketchStore, UnfinishedSketches, differences

_log = logging.getLogger("inpaint_jax")


@dataclasses.dataclass(frozen=True)
class SketchedPhotos:
    """Photos that need sketches.

    Attributes:
        role: "train" or "validation": the folder's name in the workdir.
        field: of the config, that names a folder of their sketches.
        data: the photos, as in `data.sources.open_source`.
        source: the same, opened.
        size: image_size of the training.
        resize: data.resize of the training.
        limit: only the first `limit` photos are used; None for all.
    """

    role: str
    field: str
    data: str
    source: ImageSource
    size: int
    resize: Resize
    limit: int | None = None

    def folder(self, workdir: Path) -> Path:
        """Where their sketches are made in a workdir."""
        return workdir / "sketches" / self.role

    def open(self, folder: str | Path) -> SketchStore:
        """Opens a folder of their sketches.

        Raises:
            UnfinishedSketches: some are still to be made, or all.
            UnusableSketches: they are damaged, of other photos, another size or resize.
        """
        store = SketchStore.open(folder)
        store.check(self.source, size=self.size, resize=self.resize, limit=self.limit)
        return store


@dataclasses.dataclass(frozen=True)
class SketchPlan:
    """The sketches of a run.

    Attributes:
        found: role -> those that are there.
        to_make: what is to be made in the workdir once it is claimed: the photos, and how.
    """

    found: Mapping[str, SketchStore]
    to_make: Sequence[tuple[SketchedPhotos, Settings]]

    def make(self, workdir: Path) -> dict[str, SketchStore]:
        """Makes what is missing, or what a stopped run has left to make; gives role -> sketches, of all photos.

        Raises:
            UserError: they cannot be made, or are not what the training needs.
        """
        stores = dict(self.found)
        for photos, settings in self.to_make:
            folder = photos.folder(workdir)
            _log.info(
                "First the sketches of data.%s are made, into %s; config.data.%s can name a folder.",
                photos.role,
                folder,
                photos.field,
            )
            make_sketches(folder, settings)
            stores[photos.role] = photos.open(folder)
        return stores


def plan_sketches(
    photos: Sequence[SketchedPhotos],
    folders: Mapping[str, str | None],
    workdir: Path,
    *,
    weights: str | None,
    workers: int,
    may_make: bool = True,
) -> SketchPlan:
    """Finds the sketches of a run, and all that it takes to make those that are missing; writes nothing.

    Args:
        photos: that need sketches.
        folders: role -> folder of their sketches that the config names, or None.
        workdir: of the run, where sketches may have been made before.
        weights: file of PiDiNet's; None for the cache or a download. Finished sketches need none.
        workers: processes that make sketches.
        may_make: whether missing ones can be made.

    Raises:
        UnusableSketches: sketches are damaged, of other photos or settings, or those of the roles differ in settings.
        UserError: missing ones cannot be made, for lack of the network's weights for example, or may not.
    """
    found, to_make, settings = {}, [], {}
    for each in photos:
        who, named = f"in data.{each.role}", folders[each.role]
        try:
            found[each.role] = each.open(named or each.folder(workdir))
            settings[who] = _own(found[each.role].settings)
            continue
        except UnfinishedSketches:
            if named:
                raise
        if not may_make:
            raise UserError(
                f"Several hosts do not make sketches; make those of data.{each.role} by {COMMAND}, and name their "
                f"folder as config.data.{each.field}."
            )
        how = Settings(each.data, each.size, each.resize, weights=weights, workers=workers, limit=each.limit)
        to_make.append((each, how))
        settings[who] = _own(prepare(how)[2])
    if differing := differences(settings):
        raise UnusableSketches(
            f"Training and validation photos have sketches of different settings ({'; '.join(differing)}); make both "
            f"alike by {COMMAND}, and name their folders as config.data.sketches and config.data.validation_sketches."
        )
    return SketchPlan(found, to_make)


def fingerprint(stores: Mapping[str, SketchStore]) -> dict[str, dict[str, Any]]:
    """What a run keeps of its sketches, as JSON can hold it: their settings, and a digest of these and the photos."""
    return {f"{role}_sketches": {**_own(store.settings), "digest": store.digest} for role, store in stores.items()}


def check_same_settings(before: Mapping[str, Any], now: Mapping[str, Any], workdir: Path) -> None:
    """Makes sure that a run goes on with sketches made like those that it began with.

    Args:
        before: saved `fingerprint`, perhaps among others, perhaps without.
        now: likewise.
        workdir: of the run.

    Raises:
        UnusableSketches: a setting differs; names all that do. Another digest is no other setting.
    """
    roles = [name for name in now if name.endswith("_sketches") and name in before]
    pairs = {name: {"there": _own(before[name]), "now": _own(now[name])} for name in roles}
    if differing := [f"{name}: {text}" for name, pair in pairs.items() for text in differences(pair)]:
        raise UnusableSketches(
            f"{workdir} was trained with sketches of other settings ({'; '.join(differing)}); name folders of sketches "
            "made like those, or give another --workdir."
        )


def _own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the config of a run fixes, what says only where the photos lie, and the digest."""
    return {name: value for name, value in settings.items() if name not in ("data", "size", "resize", "digest")}
