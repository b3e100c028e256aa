"""Sketches: thin lines made of an edge map (§IV-F), and the folder that keeps those of a whole data set.

`python -m inpaint_jax.sketching` makes such a folder. It holds index.json, with the settings and a checksum over the
names of the photos, and files of `shard_size` sketches each. A sketch has the size of its photo after the resize and
before the crop, so that training crops and flips the two alike.

A file is a table and then records. The table is an int64 [n + 1, 4] array in numpy's .npy format; its rows are where a
record starts behind the table, its length, and the sketch's height and width. A record is the sketch's rows, 8 pixels a
byte (numpy.packbits), compressed by zlib; that of a photo that could not be read is empty. The last row is of the
photos' names, compressed JSON. So one sketch costs a read of the table (32 bytes a photo) and one of its
record, wherever it is.
"""

import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from inpaint_jax.data.images import cut_square
from inpaint_jax.data.photos import write_bytes
from inpaint_jax.data.sources import ImageSource

THRESHOLD = 0.65
"""The paper's, for Paris StreetView."""

MIN_SIZE = 100
"""The paper's, in pixels at 256 x 256."""

_REFERENCE_SIDE = 256
_INDEX = "index.json"
_FORMAT = 1
_COMMAND = "python -m inpaint_jax.sketching"


class UnusableSketches(ValueError):
    """A folder of sketches that is unfinished, damaged, or of other photos or settings; one sentence."""


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

    if scaled:
        min_size = min_size * (min(edge_map.shape) / _REFERENCE_SIDE) ** 2
    edges = edge_map > threshold
    # scikit-image drops what has at most max_size pixels; its older min_size is on the way out.
    edges = morphology.remove_small_objects(edges, max_size=max(0, math.ceil(min_size) - 1), connectivity=2)
    return morphology.skeletonize(edges)


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
            f"the resize {width} x {height}; make the sketches of this data once more by {_COMMAND}."
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


def pack(sketch: np.ndarray) -> tuple[bytes, int, int]:
    """The record of a sketch, bool [H, W], with its height and width."""
    return zlib.compress(np.packbits(sketch, axis=1).tobytes()), *sketch.shape


def claim(
    folder: str | os.PathLike, source: ImageSource, settings: Mapping[str, Any], shard_size: int
) -> dict[int, range]:
    """Makes the folder, or checks that the sketches in it are those that are wanted.

    Args:
      folder: of the sketches.
      source: the photos.
      settings: all else that the sketches depend on, as JSON can hold.
      shard_size: sketches in a file.

    Returns:
      The files that are still to be written by `write_shard`: number of the file -> numbers of its photos.

    Raises:
      UnusableSketches: the folder holds other sketches; names what differs.
    """
    folder = Path(folder)
    index = {
        "format": _FORMAT,
        "settings": json.loads(json.dumps(settings)),
        "count": len(source),
        "names": _checksum_of_names(source),
        "shard_size": shard_size,
    }
    if (folder / _INDEX).exists():
        found = _read_index(folder)
        if differing := _differences(found, index):
            raise UnusableSketches(
                f"{folder} holds sketches with other settings ({'; '.join(differing)}); give another --output, or "
                "delete it."
            )
    elif any(folder.glob("*.sketches")):
        raise UnusableSketches(f"{folder} holds sketches but no {_INDEX}; give another --output, or delete it.")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(folder / _INDEX, (json.dumps(index, indent=2) + "\n").encode())
    firsts = range(0, len(source), shard_size)
    shards = {number: range(first, min(first + shard_size, len(source))) for number, first in enumerate(firsts)}
    return {number: photos for number, photos in shards.items() if not _shard(folder, number).exists()}


def write_shard(
    folder: str | os.PathLike, number: int, names: Sequence[str], records: Sequence[tuple[bytes, int, int] | None]
) -> None:
    """Writes a file of sketches in one piece or not at all.

    Args:
      folder: claimed.
      number: of the file, one of those that `claim` gave.
      names: of its photos.
      records: from `pack`; None for a photo that could not be read.
    """
    rows = [record or (b"", 0, 0) for record in records]
    rows.append((zlib.compress(json.dumps(list(names)).encode()), 0, 0))
    lengths = [len(body) for body, _, _ in rows]
    starts = np.cumsum([0, *lengths[:-1]])
    table = [(start, len(body), height, width) for start, (body, height, width) in zip(starts, rows)]
    file = io.BytesIO()
    np.save(file, np.array(table, np.int64))
    file.writelines(body for body, _, _ in rows)
    write_bytes(_shard(Path(folder), number), file.getvalue())


class SketchStore:
    """Sketches of a data set by the number of the photo. Small to pickle; keeps no file open.

    Args:
      folder: as `python -m inpaint_jax.sketching --output` made it.

    Attributes:
      settings: data, size, resize, threshold, min_size, weights.

    Raises:
      FileNotFoundError: no such folder of sketches.
      UnusableSketches: it is unfinished or damaged.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        if not (self.folder / _INDEX).is_file():
            raise FileNotFoundError(f"There are no sketches in {self.folder}; make them by {_COMMAND}.")
        self._index = _read_index(self.folder)
        if self._index["format"] != _FORMAT:
            raise UnusableSketches(f"{self.folder} has format {self._index['format']!r}, not {_FORMAT}; update me.")
        self.settings: dict[str, Any] = self._index["settings"]
        self._shard_size: int = self._index["shard_size"]
        shards = -(-len(self) // self._shard_size)
        if missing := sum(not _shard(self.folder, number).exists() for number in range(shards)):
            raise UnusableSketches(
                f"{self.folder} is unfinished, {missing} of its {shards} files are missing; start the same {_COMMAND} "
                "again to go on."
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
        packed, height, width = self._read(shard, row)
        if not height:
            name = self._names(shard)[row]
            raise MissingSketch(f"{name} has no sketch in {self.folder}: it could not be read when they were made.")
        rows = np.frombuffer(packed, np.uint8).reshape(height, -1)
        return np.unpackbits(rows, axis=1, count=width).astype(bool)

    def check(self, source: ImageSource, *, size: int | None = None, resize: str | None = None) -> None:
        """Makes sure that the sketches are of these photos, by their number and names.

        Args:
          source: the photos; they may have moved elsewhere.
          size: to be compared with that of the sketches, if given.
          resize: the same.

        Raises:
          UnusableSketches: they are not; names the first difference.
        """
        cure = f"make sketches of this data by {_COMMAND}"
        for name, wanted in (("size", size), ("resize", resize)):
            if wanted is not None and self.settings[name] != wanted:
                raise UnusableSketches(
                    f"{self.folder} has sketches for {name} {self.settings[name]!r}, not {wanted!r}; {cure}."
                )
        if len(self) != len(source):
            raise UnusableSketches(
                f"{self.folder} has sketches of {len(self)} photos, but the data has {len(source)}; {cure}."
            )
        if self._index["names"] == _checksum_of_names(source):
            return
        for shard, first in enumerate(range(0, len(self), self._shard_size)):
            for index, there in enumerate(self._names(shard), first):
                if there != (here := source.name(index)):
                    raise UnusableSketches(
                        f"{self.folder} has sketches of other photos: number {index} is {there!r} there and {here!r} "
                        f"in the data; {cure}."
                    )
        raise UnusableSketches(f"The names in {self.folder} disagree with its {_INDEX}; delete it and {cure}.")

    def _read(self, shard: int, row: int) -> tuple[bytes, int, int]:
        path = _shard(self.folder, shard)
        try:
            with path.open("rb") as file:
                table = np.load(file, allow_pickle=False)
                start, length, height, width = table[row].tolist()
                file.seek(start, os.SEEK_CUR)
                body = file.read(length)
            return zlib.decompress(body) if body else b"", height, width
        except (OSError, ValueError, LookupError, EOFError, zlib.error) as error:
            raise UnusableSketches(
                f"{path} cannot be read ({type(error).__name__}: {error}); delete it and start the same {_COMMAND} "
                "again."
            ) from error

    def _names(self, shard: int) -> list[str]:
        return json.loads(self._read(shard, -1)[0])


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.sketches"


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        if not {"format", "settings", "count", "names", "shard_size"} <= index.keys():
            raise ValueError("entries are missing")
    except (ValueError, AttributeError) as error:
        raise UnusableSketches(f"{folder / _INDEX} is damaged ({error}); delete {folder} to start again.") from error
    return index


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what two indices differ, as "threshold: 0.65 there, 0.5 now"."""
    old, new = ({**index, **index["settings"], "settings": None} for index in (old, new))
    return [
        f"{name}: {old.get(name)!r} there, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _checksum_of_names(source: ImageSource) -> str:
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(source.name(index).encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()[:16]
