"""The sketches of a whole data set: a folder of 1-bit PNGs, which any program opens, and an index.json.

    index.json           settings, number of photos, a digest of their names, the numbers of those that cannot be read
    0000/0000000.png     the sketch of photo 0, white = line, as large as the photo after the resize, before the crop
    0001/0001000.png     a folder for each thousand of them

Every PNG is written in one piece or not at all, so a killed run goes on with those that are not there. A PNG has
checksums of its own, which are looked at whenever it is read.

Measured on 65 photos of street scenes, 256 x 341 pixels, on one shared CPU core: 1,774 bytes a sketch, 2.5 ms to encode
and write one (10 ms to thin its lines), 0.65 ms to read and check one (13 ms to read its photo). For 1.8 million photos
that is 3.2 GB, or 7.4 GB in blocks of 4 KiB, and 20 minutes of one core for each epoch. A packed format of our own took
1,535 bytes, 1.0 and 0.27 ms; zip files of a thousand PNGs would take 12 ms to open for every sketch. To open a
store, which looks for every file, takes 2 s of computing for 1.8 million (0.05 s for 50,000).
"""

import dataclasses
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inpaint_jax.data.sketches import MissingSketch, UnusableSketches
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.files import write_file

COMMAND = "inpaint-jax sketch"
"""What makes a store."""

_FORMAT = 3
_INDEX = "index.json"
_IN_A_FOLDER = 1000
_CURE = "name another folder, or delete this one and make its sketches anew"

_log = logging.getLogger("inpaint_jax")


class UnfinishedSketches(UnusableSketches):
    """A store that lacks some of its sketches, or all; whoever made it can go on."""


def write_sketch(path: str | Path, sketch: np.ndarray) -> None:
    """Writes a sketch, bool [H, W], as a 1-bit PNG."""
    write_file(path, lambda file: Image.fromarray(sketch).save(file, "PNG"))


@dataclasses.dataclass(frozen=True)
class SketchStore:
    """The sketches of a data set, by the number of the photo. Small to pickle; keeps no file open.

    Attributes:
        folder: where they are.
        settings: data, size, resize, threshold, min_size, weights.
        count: number of photos, those that could not be read included.
        names: digest of their names.
        unreadable: numbers of the photos that have no sketch, because they could not be read.
    """

    folder: Path
    settings: Mapping[str, Any]
    count: int
    names: str
    unreadable: frozenset[int] = frozenset()

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "SketchStore":
        """Opens a finished store.

        Raises:
            UnfinishedSketches: some sketches are not there, or the folder is not.
            UnusableSketches: the index is damaged or of another format.
        """
        folder = Path(folder).expanduser()
        if not (folder / _INDEX).is_file():
            raise UnfinishedSketches(f"There are no sketches in {folder}; make them by {COMMAND}.")
        store = cls._read(folder)
        if missing := sum(number not in store.unreadable for number in store.to_make()):
            raise UnfinishedSketches(
                f"{folder} is unfinished, {missing} of its {len(store)} sketches are missing; start the command that "
                "makes them again to go on."
            )
        return store

    @classmethod
    def create(
        cls, folder: str | os.PathLike, source: ImageSource, settings: Mapping[str, Any], limit: int | None = None
    ) -> "SketchStore":
        """Starts a store, or goes on with one of the same photos and settings; one process at a time.

        Args:
            folder: new, empty, or of an earlier run.
            source: the photos.
            settings: all else that the sketches depend on, as JSON can hold it.
            limit: of the first `limit` photos only.

        Raises:
            UnusableSketches: the folder holds other sketches; names what differs.
        """
        folder = Path(folder).expanduser()
        count = len(source) if limit is None else min(limit, len(source))
        fresh = cls(folder, json.loads(json.dumps(settings)), count, _digest(map(source.name, range(count))))
        if (folder / _INDEX).exists():
            found = cls._read(folder)
            if differing := differences({"there": found._describe(), "now": fresh._describe()}):
                raise UnusableSketches(
                    f"{folder} holds sketches of other photos or settings ({'; '.join(differing)}); {_CURE}."
                )
            return found
        if next(folder.glob("[0-9]*/*.png"), None):
            raise UnusableSketches(f"{folder} holds PNGs in numbered folders but no {_INDEX}; {_CURE}.")
        fresh._write()
        return fresh

    def __len__(self) -> int:
        """Number of photos, those that could not be read included."""
        return self.count

    def __getitem__(self, index: int) -> np.ndarray:
        """Sketch as bool [h, w], True = line, of the size of the photo after the resize.

        Raises:
            MissingSketch: the photo could not be read when the sketches were made.
            UnusableSketches: the file is damaged, or gone.
        """
        path = self.path(index)
        if index in self.unreadable and not path.exists():
            raise MissingSketch(f"Photo number {index} has no sketch in {self.folder}: it could not be read.")
        try:
            content = path.read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                image.verify()  # the checksums, which Pillow passes over when it decodes
            with Image.open(io.BytesIO(content)) as image:
                return np.asarray(image.convert("L")) > 127
        except (OSError, SyntaxError, ValueError) as error:  # SyntaxError is Pillow's for a wrong checksum
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged"
            raise UnusableSketches(
                f"{path} cannot be read ({reason}); delete it and start the command that makes the sketches again."
            ) from error

    def path(self, index: int) -> Path:
        """Where the sketch of a photo is, or will be."""
        return self.folder / f"{index // _IN_A_FOLDER:04d}" / _name(index)

    def to_make(self) -> Iterator[int]:
        """Numbers of the photos whose sketch is not there, those that could not be read included."""
        for first in range(0, self.count, _IN_A_FOLDER):
            folder = self.path(first).parent
            there = set(os.listdir(folder)) if folder.is_dir() else set()
            numbers = range(first, min(first + _IN_A_FOLDER, self.count))
            yield from (number for number in numbers if _name(number) not in there)

    def finish(self, unreadable: Iterable[int]) -> None:
        """Notes which photos could not be read, once all others have a sketch."""
        dataclasses.replace(self, unreadable=frozenset(unreadable))._write()

    @property
    def digest(self) -> str:
        """Tells apart sketches by settings and photos; where they and their photos lie plays no part."""
        return _digest([json.dumps([self._describe() | {"data": None}, sorted(self.unreadable)], sort_keys=True)])

    def check(self, source: ImageSource, *, size: int, resize: str, limit: int | None = None) -> None:
        """Makes sure that the sketches are of these photos, wherever these are now; warns of photos that have none.

        Args:
            source: the photos.
            size: image_size that the sketches are to be made for.
            resize: likewise.
            limit: only the first `limit` photos are used.

        Raises:
            UnusableSketches: they are not; names what differs.
        """
        wanted = {"size": size, "resize": resize}
        faults = [
            f"for {name} {self.settings[name]!r}, not {value!r}"
            for name, value in wanted.items()
            if self.settings[name] != value
        ]
        used = len(source) if limit is None else min(limit, len(source))
        if not used <= len(self) <= len(source):
            faults.append(f"of {len(self)} photos, but the data has {len(source)}")
        elif self.names != _digest(map(source.name, range(len(self)))):
            faults.append("of photos with other names")
        if faults:
            raise UnusableSketches(f"{self.folder} has sketches {' and '.join(faults)}; {_CURE}.")
        if without := sorted(number for number in self.unreadable if number < used):
            _log.warning(
                "%d of %d photos could not be read when the sketches in %s were made, %s for example; if they can be "
                "read now, they go without lines.",
                len(without),
                used,
                self.folder,
                source.name(without[0]),
            )

    @classmethod
    def _read(cls, folder: Path) -> "SketchStore":
        path = folder / _INDEX
        try:
            index = json.loads(path.read_text(encoding="utf-8"))
            if (found := index.pop("format")) != _FORMAT:
                raise ValueError(f"it is of format {found!r}, not {_FORMAT}")
            return cls(folder, **index | {"unreadable": frozenset(index["unreadable"])})
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise UnusableSketches(f"{path} cannot be read ({error}); delete {folder} to start again.") from error

    def _write(self) -> None:
        index = {"format": _FORMAT, **vars(self), "unreadable": sorted(self.unreadable)}
        del index["folder"]
        write_file(self.folder / _INDEX, json.dumps(index, indent=2) + "\n")

    def _describe(self) -> dict[str, Any]:
        return {**self.settings, "count": self.count, "names": self.names}


def differences(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """In what settings differ by those who have them, as "threshold: 0.65 there, 0.5 now"."""
    return [
        f"{name}: " + ", ".join(f"{values.get(name)!r} {who}" for who, values in settings.items())
        for name in sorted(set().union(*settings.values()))
        if len({repr(values.get(name)) for values in settings.values()}) > 1
    ]


def _name(index: int) -> str:
    return f"{index:07d}.png"


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()[:16]
