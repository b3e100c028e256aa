"""The sketches that a run is guided by: opened where folders are given, made in the workdir otherwise."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inpaint_jax.data.images import Resize
from inpaint_jax.data.sketches import COMMAND, SketchStore, UnfinishedSketches, UnusableSketches
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.sketching.make import Settings, SketchingError, describe, make_sketches

_log = logging.getLogger("inpaint_jax")

SKETCH_ERRORS = (UnusableSketches, SketchingError)
"""What can be wrong with sketches, at the start or in the midst of a run; each says in one sentence what to do."""

# Settings that the config of a run fixes, or that say only where the photos lie.
_OF_THE_CONFIG = ("data", "size", "resize")


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
        needed: whether each has to have a sketch, see `SketchStore.check_missing`.
    """

    role: str
    field: str
    data: str
    source: ImageSource
    size: int
    resize: Resize
    limit: int | None = None
    needed: bool = False

    def open(self, folder: str | Path) -> SketchStore:
        """Opens a folder of their sketches that the config names.

        Raises:
            FileNotFoundError: there is none.
            UnfinishedSketches: some are still to be made.
            UnusableSketches: they are damaged, of other photos, another size or resize, or some are missing.
        """
        return self._open(Path(folder).expanduser())

    def open_own(self, workdir: Path) -> SketchStore:
        """Opens those in the workdir; raises the same, with other advice."""
        return self._open(self.folder(workdir), cure="delete it, and it is made anew")

    def folder(self, workdir: Path) -> Path:
        """Where their sketches are made in a workdir."""
        return workdir / "sketches" / self.role

    def _open(self, folder: Path, **cure: str) -> SketchStore:
        store = SketchStore(folder)
        store.check(self.source, size=self.size, resize=self.resize, limit=self.limit, **cure)
        store.check_missing(self.source, limit=self.limit, needed=self.needed)
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
        """Makes what is missing, or what a stopped run has left to make.

        Args:
            workdir: of the run.

        Returns:
            role -> sketches, of all photos.

        Raises:
            SketchingError: they cannot be made.
            UnusableSketches: not one photo could be read, or some could not that need a sketch.
        """
        stores = dict(self.found)
        for photos, settings in self.to_make:
            folder = photos.folder(workdir)
            _log.info(
                "First the sketches of %d photos (data.%s) are made, into %s; config.data.%s can name a folder.",
                min(len(photos.source), photos.limit or len(photos.source)),
                photos.role,
                folder,
                photos.field,
            )
            make_sketches(folder, settings)
            stores[photos.role] = photos.open_own(workdir)
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
        FileNotFoundError: a folder that is named is none.
        UnusableSketches: sketches are damaged, of other photos or settings, or those of the roles differ in settings.
        SketchingError: missing ones cannot be made, for lack of the network's weights for example.
        ValueError: missing ones may not be made.
    """
    found, to_make, settings = {}, [], {}
    for each in photos:
        try:
            named = folders[each.role]
            found[each.role] = each.open(named) if named else each.open_own(workdir)
            settings[each.role] = found[each.role].settings
            continue
        except (FileNotFoundError, UnfinishedSketches):
            if named:
                raise
        if not may_make:
            raise ValueError(
                f"Several hosts do not make sketches; make those of data.{each.role} by {COMMAND}, and name their "
                f"folder as config.data.{each.field}."
            )
        how = Settings(
            each.data,
            each.size,
            each.resize,
            weights=weights,
            workers=workers,
            limit=each.limit,
            maker="train.py",
        )
        to_make.append((each, how))
        settings[each.role] = describe(how)
    if differing := _differences({f"in data.{role}": values for role, values in settings.items()}):
        raise UnusableSketches(
            f"Training and validation photos have sketches of different settings ({'; '.join(differing)}); make both "
            f"alike by {COMMAND}, and name their folders as config.data.sketches and config.data.validation_sketches."
        )
    return SketchPlan(found, to_make)


def fingerprint(stores: Mapping[str, SketchStore], limits: Mapping[str, int | None]) -> dict[str, dict[str, Any]]:
    """What a run keeps of its sketches, as JSON can hold it: role -> settings, and a digest of those that are used.

    Args:
        stores: role -> sketches.
        limits: role -> how many of the first are used; None, or no entry, for all.
    """
    return {
        f"{role}_sketches": _own_settings(store.settings) | {"digest": store.digest(limits.get(role))}
        for role, store in stores.items()
    }


def check_same_settings(before: Mapping[str, Any], now: Mapping[str, Any], workdir: Path) -> None:
    """Makes sure that a run goes on with sketches made like those that it began with.

    Args:
        before: saved `fingerprint`, perhaps among others, perhaps without.
        now: likewise.
        workdir: of the run.

    Raises:
        UnusableSketches: a setting differs; names all that do.
    """
    differing = []
    for name, settings in now.items():
        if isinstance(settings, Mapping) and name in before:
            old = dict(before[name]) | {"digest": settings["digest"]}  # of other content is no other setting
            differing += [f"{name}: {text}" for text in _differences({"there": old, "now": settings})]
    if differing:
        raise UnusableSketches(
            f"{workdir} was trained with sketches of other settings ({'; '.join(differing)}); name folders of sketches "
            "made like those, or give another --workdir."
        )


def _own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _OF_THE_CONFIG}


def _differences(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """In what settings differ by those who have them, as "threshold: 0.65 there, 0.5 now"."""
    own = {who: _own_settings(values) for who, values in settings.items()}
    names = sorted(set().union(*own.values()))
    return [
        f"{name}: " + ", ".join(f"{values.get(name)!r} {who}" for who, values in own.items())
        for name in names
        if len({repr(values.get(name)) for values in own.values()}) > 1
    ]
