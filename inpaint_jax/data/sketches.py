"""Sketches: thin lines made of an edge map (§IV-F), and the folder that keeps those of a whole data set.

`python -m inpaint_jax.sketching` makes such a folder. It holds index.json, with the settings, a checksum over the
names of the photos and one over itself, and files of `shard_size` sketches each. A sketch has the size of its photo
after the resize and before the crop, so that training crops and flips the two alike.

A file is a checksum, a table and then records. The table is a little-endian int64 [n + 1, 5] array; its rows are where
a record starts behind the table, its length, the sketch's height and width, and the checksum of the record's content. A
record is the sketch's rows, 8 pixels a byte (numpy.packbits), compressed by zlib; that of a photo that could not be
read is empty, with -1 for height and width. The last row is of the photos' names, compressed JSON. The first 4 bytes
are the table's checksum; all of these are CRC-32. Those of records are of what was compressed, so that the same lines
have the same checksum whichever zlib compressed them. So one sketch costs a read of the table (40 bytes a photo) and
one of its record, wherever it is, and damage anywhere is found where it would be read.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import cv2
import numpy as np

from inpaint_jax.data.images import UnreadableImage, cut_square
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.errors import UserError
from inpaint_jax.files import write_file

THRESHOLD = 0.65
"""The paper's, for Paris StreetView."""

MIN_SIZE = 100
"""The paper's, in pixels at 256 x 256."""

COMMAND = "python -m inpaint_jax.sketching"
"""What makes folders of sketches."""

_REFERENCE_SIDE = 256
_INDEX = "index.json"
_FORMAT = 2
_COLUMNS = 5
_CHECKSUM_BYTES = 4

Record = tuple[bytes, int, int, int]
"""What a file holds of a sketch: see `pack`."""

_NO_SKETCH: Record = (b"", -1, -1, 0)

_log = logging.getLogger("inpaint_jax")


class UnusableSketches(UserError):
    """A folder of sketches that is unfinished, damaged, or of other photos or settings; one sentence."""


class UnfinishedSketches(UnusableSketches):
    """A folder of sketches that lacks some of its files; whoever made it can go on."""


class MissingSketch(LookupError):
    """There is no sketch of this photo, because the photo could not be read."""


def sketch_from_edges(
    edge_map: np.ndarray, threshold: float = THRESHOLD, min_size: float = MIN_SIZE, *, scaled: bool = False
) -> np.ndarray:
    """Makes thin lines of an edge map: threshold, area opening, skeleton (§IV-F).

    Args:
      edge_map: float [H, W] in [0, 1], see features.pidinet.
      threshold: what lies above is an edge.
      min_size: components (8-connected) of fewer pixels are dropped.
      scaled: `min_size` is meant for a shortest side of 256, and is scaled by the area of the square over the actual
        one; otherwise it is the number of pixels whatever the size of the map.

    Returns:
      bool [H, W], True = line, one pixel wide.

    Raises:
      ValueError: the map is not [H, W], or holds NaN.
      TypeError: the map is of integers or bool, so most likely not in [0, 1].
    """
    if edge_map.ndim != 2:
        raise ValueError(f"Give an edge map as [H, W], not {edge_map.shape}.")
    if edge_map.dtype.kind != "f":
        raise TypeError(f"Give an edge map as floats in [0, 1], not {edge_map.dtype}.")
    if np.isnan(edge_map).any():
        raise ValueError("The edge map holds NaN.")
    from skimage import morphology  # takes half a second; who only reads sketches does without

    return morphology.skeletonize(large_components(edge_map, threshold, min_size, scaled=scaled))


def large_components(
    edge_map: np.ndarray, threshold: float = THRESHOLD, min_size: float = MIN_SIZE, *, scaled: bool = False
) -> np.ndarray:
    """The step before the skeleton of `sketch_from_edges`: threshold and area opening; same arguments.

    Returns:
      bool [H, W], True = edge.
    """
    from skimage import morphology

    if scaled:
        min_size = min_size * (min(edge_map.shape) / _REFERENCE_SIDE) ** 2
    # scikit-image drops what has at most max_size pixels; its older min_size is on the way out.
    max_size = max(0, math.ceil(min_size) - 1)
    return morphology.remove_small_objects(edge_map > threshold, max_size=max_size, connectivity=2)


# ------------------------------------------------------------------------------------------------- those of samples


class Sketches(Protocol):
    """Where the pipeline gets sketches from: a `SketchStore`, or some of one in another order."""

    def __getitem__(self, index: int) -> np.ndarray:
        """Sketch of photo `index`, bool [h, w], of the photo's size after the resize; raises MissingSketch."""


def sketch_square(
    sketches: Sketches, index: int, shape: tuple[int, int], size: int, corner: tuple[int, int]
) -> np.ndarray:
    """The part of a sketch that belongs to a square cut out of its photo.

    Args:
      sketches: of all photos.
      index: number of the photo.
      shape: of the photo after the resize, [h, w].
      size: side of the square.
      corner: its top and left.

    Returns:
      bool [size, size], True = line. No line at all where a photo can be read that could not be when the sketches
      were made: one such photo should not stop a training.

    Raises:
      UnusableSketches: the sketch is of another size than its photo, or its file is damaged.
    """
    try:
        sketch = sketches[index]
    except MissingSketch:
        return np.zeros((size, size), bool)
    if sketch.shape != tuple(shape):
        height, width = shape
        raise UnusableSketches(
            f"The sketch of photo number {index} is {sketch.shape[1]} x {sketch.shape[0]} pixels, but the photo after "
            f"the resize {width} x {height}: the photos have changed since, so delete their sketches and make them "
            "anew."
        )
    return cut_square(sketch, size, corner)


def drop_lines(sketch: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Leaves out all lines, or some, of a share of the sketches, so that a model learns to do with few and none.

    Half of the share has no line left. In the other half each connected line (8-connectivity) stays with a
    probability of 1/2, as if a user had drawn some of them.

    Args:
      sketch: bool [H, W].
      rng: source of randomness; how much is drawn depends on the sketch.
      share: of the sketches that lose lines, 0 .. 1.

    Returns:
      bool [H, W].
    """
    chance = rng.random()
    if chance >= share:
        return sketch
    if chance < share / 2:
        return np.zeros_like(sketch)
    count, labels = cv2.connectedComponents(sketch.astype(np.uint8), connectivity=8)
    stays = rng.random(count) < 0.5
    return sketch & stays[labels]


# ------------------------------------------------------------------------------------------------- folders of them


def pack(sketch: np.ndarray) -> Record:
    """The record of a sketch, bool [H, W]: its compressed rows, height, width, and the checksum of the rows."""
    rows = np.packbits(sketch, axis=1).tobytes()
    return zlib.compress(rows), *sketch.shape, zlib.crc32(rows)


def claim(
    folder: str | os.PathLike,
    source: ImageSource,
    settings: Mapping[str, Any],
    shard_size: int,
    *,
    limit: int | None = None,
    maker: str = COMMAND,
) -> dict[int, range]:
    """Makes the folder, or checks that the sketches in it are those that are wanted.

    Args:
      folder: of the sketches.
      source: the photos.
      settings: all else that the sketches depend on, as JSON can hold.
      shard_size: sketches in a file.
      limit: of the first `limit` photos only.
      maker: the command that makes them, to be named where it has to be started again.

    Returns:
      The files that are still to be written by `write_shard`: number of the file -> numbers of its photos.

    Raises:
      UnusableSketches: the folder holds other sketches; names what differs.
    """
    folder = Path(folder)
    count = len(source) if limit is None else min(limit, len(source))
    index = {
        "format": _FORMAT,
        "settings": json.loads(json.dumps(settings)),
        "count": count,
        "names": _checksum_of_names(map(source.name, range(count))),
        "shard_size": shard_size,
    }
    if (folder / _INDEX).exists():
        found = _read_index(folder)
        if differing := _differences({name: found[name] for name in index}, index):
            raise UnusableSketches(
                f"{folder} holds sketches with other settings ({'; '.join(differing)}); delete it, or make these in "
                "another folder."
            )
    elif any(folder.glob("*.sketches")):
        raise UnusableSketches(
            f"{folder} holds sketches but no {_INDEX}; delete it, or make sketches in another folder."
        )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        index["maker"] = maker
        index["checksum"] = _checksum_of_index(index)
        write_file(folder / _INDEX, (json.dumps(index, indent=2) + "\n").encode())
    firsts = range(0, count, shard_size)
    shards = {number: range(first, min(first + shard_size, count)) for number, first in enumerate(firsts)}
    return {number: photos for number, photos in shards.items() if not _shard(folder, number).exists()}


def write_shard(folder: str | os.PathLike, number: int, names: Sequence[str], records: Sequence[Record | None]) -> None:
    """Writes a file of sketches in one piece or not at all.

    Args:
      folder: claimed.
      number: of the file, one of those that `claim` gave.
      names: of its photos.
      records: from `pack`; None for a photo that could not be read.
    """
    rows = [record or _NO_SKETCH for record in records]
    listed = json.dumps(list(names)).encode()
    rows.append((zlib.compress(listed), 0, 0, zlib.crc32(listed)))
    starts = np.cumsum([0, *(len(body) for body, *_ in rows[:-1])])
    table = np.array([(start, len(body), *rest) for start, (body, *rest) in zip(starts, rows)], "<i8").tobytes()
    checksum = zlib.crc32(table).to_bytes(_CHECKSUM_BYTES, "little")
    write_file(_shard(Path(folder), number), b"".join([checksum, table, *(body for body, *_ in rows)]))


class SketchStore:
    """Sketches of a data set by the number of the photo. Small to pickle; keeps no file open.

    Args:
      folder: as `python -m inpaint_jax.sketching --output` made it.

    Attributes:
      folder: as given.
      settings: data, size, resize, threshold, min_size, weights.
      maker: the command that made it.

    Raises:
      FileNotFoundError: no such folder of sketches.
      UnfinishedSketches: some of its files are missing.
      UnusableSketches: its index is damaged or of another format.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        if not (self.folder / _INDEX).is_file():
            raise FileNotFoundError(f"There are no sketches in {self.folder}; make them by {COMMAND}.")
        self._index = _read_index(self.folder)
        self.settings: dict[str, Any] = self._index["settings"]
        self.maker: str = self._index["maker"]
        self._shard_size: int = self._index["shard_size"]
        if missing := sum(not _shard(self.folder, number).exists() for number in self._shards()):
            raise UnfinishedSketches(
                f"{self.folder} is unfinished, {missing} of its {len(self._shards())} files are missing; start the "
                f"same {self.maker} again to go on."
            )

    def __len__(self) -> int:
        """Number of photos, those that could not be read included."""
        return self._index["count"]

    def __getitem__(self, index: int) -> np.ndarray:
        """Sketch as bool [h, w], True = line, of the size of the photo after the resize.

        Raises:
          IndexError: no photo has this number.
          MissingSketch: the photo could not be read when the sketches were made.
          UnusableSketches: the file is damaged.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.folder} has sketches of {len(self)} photos; there is no number {index}.")
        shard, row = divmod(int(index), self._shard_size)
        with self._reading(shard) as (file, table):
            height, width = table[row, 2:4].tolist()
            if (height, width) != _NO_SKETCH[1:3]:
                rows = np.frombuffer(_record(file, table, row), np.uint8).reshape(height, -1)
                return np.unpackbits(rows, axis=1, count=width).astype(bool)
        name = self._names(shard)[row]
        raise MissingSketch(f"{name} has no sketch in {self.folder}: it could not be read when they were made.")

    def missing(self, limit: int | None = None) -> list[int]:
        """Numbers of the photos that have no sketch, because they could not be read when the sketches were made.

        Args:
          limit: among the first `limit` photos only. Reads the tables of these alone.

        Raises:
          UnusableSketches: a table is damaged.
        """
        count = len(self) if limit is None else min(limit, len(self))
        found = []
        for first in range(0, count, self._shard_size):
            with self._reading(first // self._shard_size) as (_, table):
                found += (first + np.flatnonzero(table[:-1, 2] == _NO_SKETCH[1])).tolist()
        return [number for number in found if number < count]

    def digest(self, limit: int | None = None) -> str:
        """Tells apart sketches by their settings, names and lines; where they and their photos lie plays no part.

        Args:
          limit: of the first `limit` photos only: the same whether there are more or not.

        Raises:
          UnusableSketches: a table, or the names in a file, are damaged.
        """
        count = len(self) if limit is None else min(limit, len(self))
        settings = {name: value for name, value in self.settings.items() if name != "data"}
        digest = hashlib.sha256(json.dumps([settings, self._checksum_of_first_names(count)], sort_keys=True).encode())
        for first in range(0, count, self._shard_size):
            with self._reading(first // self._shard_size) as (_, table):
                digest.update(table[:-1][: count - first, 2:].tobytes())  # sizes and checksums
        return digest.hexdigest()[:16]

    def check(
        self,
        source: ImageSource,
        *,
        size: int | None = None,
        resize: str | None = None,
        limit: int | None = None,
        cure: str = f"make sketches of this data by {COMMAND}",
    ) -> None:
        """Makes sure that the sketches are of these photos, by their number and names.

        Args:
          source: the photos; they may have moved elsewhere.
          size: to be compared with that of the sketches, if given.
          resize: the same.
          limit: sketches of the first `limit` photos are enough.
          cure: what to do if they are not, the end of the error's sentence.

        Raises:
          UnusableSketches: they are not; names the first difference.
        """
        for name, wanted in (("size", size), ("resize", resize)):
            if wanted is not None and self.settings[name] != wanted:
                raise UnusableSketches(
                    f"{self.folder} has sketches for {name} {self.settings[name]!r}, not {wanted!r}; {cure}."
                )
        needed = len(source) if limit is None else min(limit, len(source))
        if not needed <= len(self) <= len(source):
            raise UnusableSketches(
                f"{self.folder} has sketches of {len(self)} photos, but the data has {len(source)}; {cure}."
            )
        if self._index["names"] == _checksum_of_names(map(source.name, range(len(self)))):
            return
        for shard, first in enumerate(range(0, len(self), self._shard_size)):
            for index, there in enumerate(self._names(shard), first):
                if there != (here := source.name(index)):
                    raise UnusableSketches(
                        f"{self.folder} has sketches of other photos: number {index} is {there!r} there and {here!r} "
                        f"in the data; {cure}."
                    )
        raise UnusableSketches(f"The names in {self.folder} disagree with its {_INDEX}; {cure}.")

    def check_missing(self, source: ImageSource, *, limit: int | None = None, needed: bool = False) -> None:
        """Says in one warning how many photos have no sketch, or refuses that.

        Args:
          source: the photos, checked.
          limit: only the first `limit` are used.
          needed: by a model that was never trained without sketches. Photos that cannot be read now either are no
            hindrance: they are passed over.

        Raises:
          UnusableSketches: no photo has a sketch; or one has none that needs it; or a file is damaged.
        """
        count = len(self) if limit is None else min(limit, len(self))
        missing = self.missing(limit)
        cure = f"delete it and start the same {self.maker} again"
        if not missing:
            return
        if len(missing) == count:
            raise UnusableSketches(
                f"{self.folder} has no sketch of any of the {count} photos, which could not be read when they were to "
                f"be made; {cure}."
            )
        unguided = next((number for number in missing if _is_readable(source, number)), None) if needed else None
        if unguided is not None:
            raise UnusableSketches(
                f"{self.folder} has no sketch of {len(missing)} of {count} photos, {source.name(unguided)} for "
                "example, and a model that is trained with sketches alone (config.data.sketch_dropout 0) needs one of "
                f"each; {cure}."
            )
        _log.warning(
            "%d of %d photos have no sketch in %s, because they could not be read when it was made, %s for example; "
            "%s.",
            len(missing),
            count,
            self.folder,
            source.name(missing[0]),
            "none of them can be read now" if needed else "those that can be read now go without lines",
        )

    def _shards(self) -> range:
        """Numbers of the files."""
        return range(-(-len(self) // self._shard_size))

    @contextlib.contextmanager
    def _reading(self, shard: int) -> Iterator[tuple[BinaryIO, np.ndarray]]:
        """A file and its table, int64 [n + 1, 5], whole; what is wrong with them is said in one sentence."""
        path = _shard(self.folder, shard)
        rows = min(self._shard_size, len(self) - shard * self._shard_size) + 1
        try:
            with path.open("rb") as file:
                checksum, table = file.read(_CHECKSUM_BYTES), file.read(rows * _COLUMNS * 8)
                if zlib.crc32(table).to_bytes(_CHECKSUM_BYTES, "little") != checksum:
                    raise ValueError("its table is damaged")
                table = np.frombuffer(table, "<i8").reshape(rows, _COLUMNS)
                if os.fstat(file.fileno()).st_size != _CHECKSUM_BYTES + table.nbytes + table[-1, :2].sum():
                    raise ValueError("it is cut off")
                yield file, table
        except (OSError, ValueError) as error:
            raise UnusableSketches(
                f"{path} cannot be read ({error}); delete it and start the same {self.maker} again."
            ) from error

    def _names(self, shard: int) -> list[str]:
        with self._reading(shard) as (file, table):
            return json.loads(_record(file, table, -1))

    def _checksum_of_first_names(self, count: int) -> str:
        if count == len(self):
            return self._index["names"]
        shards = range(-(-count // self._shard_size))
        return _checksum_of_names(itertools.islice((name for shard in shards for name in self._names(shard)), count))


def _record(file: BinaryIO, table: np.ndarray, row: int) -> bytes:
    """A record, decompressed; raises ValueError if it is damaged."""
    start, length, _, _, checksum = table[row].tolist()
    file.seek(_CHECKSUM_BYTES + table.nbytes + start)
    try:
        content = zlib.decompress(file.read(length))
    except zlib.error as error:
        raise ValueError("a record in it is damaged") from error
    if zlib.crc32(content) != checksum:
        raise ValueError("a record in it is damaged")
    return content


def _is_readable(source: ImageSource, number: int) -> bool:
    try:
        source[number]
    except UnreadableImage:
        return False
    return True


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.sketches"


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / _INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] == _FORMAT and index["checksum"] != _checksum_of_index(index):
            raise ValueError("its checksum is another")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnusableSketches(f"{path} is damaged ({error}); delete {folder} to start again.") from error
    if index["format"] != _FORMAT:
        raise UnusableSketches(
            f"{folder} holds sketches of format {index['format']!r}, not {_FORMAT}; delete it and make them anew."
        )
    return index


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two indices differ, as "threshold: 0.65 there, 0.5 now"."""
    old, new = ({**index, **index["settings"], "settings": None} for index in (old, new))
    return [
        f"{name}: {old.get(name)!r} there, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _checksum_of_names(names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()[:16]


def _checksum_of_index(index: Mapping[str, Any]) -> str:
    """Over all of it but the checksum itself."""
    rest = {name: value for name, value in index.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]
