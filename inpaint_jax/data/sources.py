"""Photos by number, wherever they come from: `folder:PATH`, `tfds:NAME:SPLIT`, `skimage:train`."""

import dataclasses
import functools
import itertools
import logging
import math
import os
from pathlib import Path
from typing import Protocol

import numpy as np

from inpaint_jax.data.images import UnreadableImage, read_image
from inpaint_jax.data.tfds_copies import CONVERTIBLE, READABLE, Copy, find_copy, formats
from inpaint_jax.errors import MissingFile, UserError

logger = logging.getLogger("inpaint_jax")

IMAGE_EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".avif"),
    *(".tif", ".tiff", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm"),
}


class ImageSource(Protocol):
    """A numbered set of photos. Small to pickle, since every worker process gets a copy."""

    def __len__(self) -> int:
        """Number of photos."""
        ...

    def __getitem__(self, index: int) -> np.ndarray:
        """Photo as uint8 [H, W, 3], upright RGB; raises UnreadableImage."""
        ...

    def name(self, index: int) -> str:
        """What to call the photo in messages and tables."""
        ...


def open_source(spec: str) -> ImageSource:
    """Opens the photos that a config names.

    `folder:PATH` has all images below PATH; `folder:PATH?list=FILE` only those that FILE names, one path relative to
    PATH per line (blank lines and # comments aside). `tfds:NAME[/CONFIG]:SPLIT`, with `?data_dir=PATH` for another
    place than TFDS's own, has the images of a prepared TFDS data set. `skimage:train` and `skimage:validation` have
    tiles of the photos that ship with scikit-image.

    Raises:
      UserError: an unknown scheme, option or split; or a folder without images.
      MissingFile: a folder, a list file, or a file that a list names is not there.
    """
    scheme, where, options = split_spec(spec)
    match scheme:
        case "folder":
            return open_folder(where, options.get("list"))
        case "tfds":
            return open_tfds(where, options.get("data_dir"))
        case _:
            return open_skimage(where)


def split_spec(spec: str) -> tuple[str, str, dict[str, str]]:
    """Splits SCHEME:WHERE?NAME=VALUE&NAME=VALUE into its scheme, its middle and its options.

    Raises:
      UserError: an unknown scheme or option.
    """
    scheme, _, rest = spec.partition(":")
    where, mark, options_text = rest.rpartition("?")
    if not mark:
        where, options_text = rest, ""
    pairs = (pair.partition("=") for pair in options_text.split("&") if pair)
    options = {name: value for name, _, value in pairs}

    known = {"folder": {"list"}, "tfds": {"data_dir"}, "skimage": set()}
    if scheme not in known:
        raise UserError(f"Data {spec!r} has no known scheme; write folder:PATH, tfds:NAME:SPLIT or skimage:train.")
    if unknown := options.keys() - known[scheme]:
        allowed = ", ".join(known[scheme]) or "none"
        raise UserError(f"Data {spec!r} has the unknown option {min(unknown)!r}; {scheme}: knows {allowed}.")
    return scheme, where, options


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Image files: `names` are posix paths relative to `root`."""

    root: str
    names: tuple[str, ...] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        """Number of files."""
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        """Decodes a file; see read_image."""
        return read_image(os.path.join(self.root, self.names[index]))

    def name(self, index: int) -> str:
        """The file's path below the root."""
        return self.names[index]


def open_folder(path: str, list_file: str | None = None) -> FolderSource:
    """Lists a folder's images, sorted by relative path so that the order is the same on every file system.

    Hidden files and folders are passed over; other files without an image's extension too, with a warning.

    Args:
      path: the folder.
      list_file: a text file that names the images to take, in its order.

    Raises:
      UserError: no images.
      MissingFile: no such folder or list, or a listed file is missing.
    """
    if not path:
        raise UserError("Data 'folder:' names no folder; write folder:PATH.")
    root = Path(path).expanduser()
    if not root.is_dir():
        raise MissingFile(f"There is no folder {path!r}; correct the path after folder:.")
    names = _walk(root) if list_file is None else _read_list(root, Path(list_file).expanduser())
    if not names:
        where = f"Folder {path!r} has no image files" if list_file is None else f"List {list_file!r} names no files"
        raise UserError(f"{where}; put images there or correct the path.")
    return FolderSource(os.fspath(root), tuple(names))


def _walk(root: Path) -> list[str]:
    names, others = [], []
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            if not name.startswith("."):
                path = Path(folder, name)
                (names if path.suffix.lower() in IMAGE_EXTENSIONS else others).append(path.relative_to(root).as_posix())
    if others:
        shown = ", ".join(sorted(others)[:5]) + (", ..." if len(others) > 5 else "")
        logger.warning("Ignored %d files in %s that are no images by their extension: %s", len(others), root, shown)
    return sorted(names)


def _read_list(root: Path, file: Path) -> list[str]:
    if not file.is_file():
        raise MissingFile(f"There is no list file {os.fspath(file)!r}; correct the path after ?list=.")
    lines = (line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines())
    names = [line for line in lines if line and not line.startswith("#")]
    if missing := [name for name in names if not (root / name).is_file()]:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise MissingFile(f"{len(missing)} files of the list {file} are not in {root}; correct it: {shown}")
    return names


class TfdsSource:
    """Images of a TFDS data set, by random access and without TensorFlow; see open_tfds."""

    def __init__(self, copy: Copy, split: str):
        self._copy = copy
        self.split = split
        self._length = len(self._records)

    @functools.cached_property
    def _records(self):
        import tensorflow_datasets as tfds

        builder = self._copy.builder()
        found = formats(builder)
        if READABLE not in found:
            raise _unreadable(self._copy, builder.data_dir, found)
        # A format that was added to a copy is known to a builder made of its files, not to that of the data set.
        files = tfds.builder_from_directory(builder.data_dir)
        try:
            # Encoded images come as they are: read_image brings every kind of them to RGB.
            return files.as_data_source(
                self.split,  # pyright: ignore[reportCallIssue] (nothing is left of the signature by a decorator)
                decoders={"image": tfds.decode.SkipDecoding()},
                file_format=READABLE,
            )
        except ValueError as error:
            splits = {name: split.num_examples for name, split in files.info.splits.items()}
            if (name := self.split.partition("[")[0]) in splits:
                told = f"no {self.split!r}; {name} has {splits[name]:,} photos"
            else:
                told = f"no split {self.split!r}; it has {', '.join(sorted(splits))}"
            raise UserError(f"{self._copy.dataset} has {told}.") from error

    def __getstate__(self) -> dict:
        """Leaves the open files behind; a worker opens its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_records"}

    def __len__(self) -> int:
        """Number of images in the split."""
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:
        """Decodes an image; see read_image."""
        return read_image(self._records[int(index)]["image"], name=self.name(index))

    def name(self, index: int) -> str:
        """Data set, split and number."""
        return f"{self._copy.dataset}:{self.split}#{index}"


def open_tfds(where: str, data_dir: str | None = None) -> TfdsSource:
    """Opens a prepared TFDS data set in the array_record format; nothing is downloaded.

    Args:
      where: NAME[/CONFIG]:SPLIT, where SPLIT may be sliced, as in places365_small:train[:90%].
      data_dir: where it was prepared, if not in TFDS's default folder.

    Raises:
      UserError: no such data set or split, or no images in it.
      MissingFile: not prepared, or in another format; the message has the command that mends it.
    """
    copy, split = find_copy(where, data_dir)
    if not split:
        raise UserError(f"Data 'tfds:{where}' lacks a split; write tfds:NAME:SPLIT.")
    return TfdsSource(copy, split)


def _unreadable(copy: Copy, folder: str, found: set[str]) -> MissingFile:
    if not found:
        return MissingFile(f"{copy.dataset} is not prepared in {folder}; prepare it by: {copy.command}.")
    how = "convert it, without a download," if CONVERTIBLE in found else "delete that folder and prepare it again"
    kinds = " and ".join(sorted(found))
    return MissingFile(
        f"{copy.dataset} is prepared in {folder} as {kinds}, and {READABLE} is needed; {how} by: {copy.command}."
    )


# Whole photos are held out: tiles of one photo, or the two views of motorcycle_*, never meet in both splits.
SKIMAGE_PHOTOS = {
    "train": (
        *("astronaut.png", "chelsea.png", "motorcycle_left.png", "rocket.jpg", "ihc.png", "coins.png"),
        *("brick.png", "grass.png", "gravel.png"),
    ),
    "validation": ("coffee.png", "camera.png"),
}
# Nine photos are few: each is shown at three scales.
TILE_SIDES = {"train": (128, 181, 256), "validation": (256,)}
TILE_STRIDE = {"train": 3 / 8, "validation": 3 / 4}  # in sides


@functools.cache
def _skimage_photo(file: str) -> np.ndarray:
    import skimage

    return read_image(Path(skimage.__file__).parent / "data" / file)


@dataclasses.dataclass(frozen=True)
class SkimageSource:
    """Square, overlapping tiles of scikit-image's photos: (file, top, left, side) each. Photos are decoded once."""

    tiles: tuple[tuple[str, int, int, int], ...]

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.tiles)

    def __getitem__(self, index: int) -> np.ndarray:
        """Tile as uint8 [side, side, 3]."""
        file, top, left, side = self.tiles[index]
        return _skimage_photo(file)[top : top + side, left : left + side]

    def name(self, index: int) -> str:
        """Photo, top, left and side."""
        file, top, left, side = self.tiles[index]
        return f"{file}@{top},{left},{side}"


def open_skimage(split: str) -> SkimageSource:
    """Cuts the photos inside the installed scikit-image into tiles; nothing is downloaded.

    Tiles are spread evenly over each photo and ordered so that photos take turns.

    Args:
      split: "train" or "validation".

    Raises:
      UserError: another split, or a scikit-image that ships without the photos.
    """
    if split not in SKIMAGE_PHOTOS:
        raise UserError(f"Data 'skimage:{split}' is unknown; write skimage:train or skimage:validation.")
    try:
        photos = [(file, _skimage_photo(file).shape) for file in SKIMAGE_PHOTOS[split]]
    except UnreadableImage as error:
        raise UserError(f"Reinstall scikit-image from PyPI, as this one lacks a photo: {error}") from error
    per_photo = [
        [
            (file, top, left, side)
            for side in TILE_SIDES[split]
            for top in _offsets(height, side, TILE_STRIDE[split])
            for left in _offsets(width, side, TILE_STRIDE[split])
        ]
        for file, (height, width, _) in photos
    ]
    turns = itertools.zip_longest(*per_photo)
    return SkimageSource(tuple(tile for turn in turns for tile in turn if tile))


def _offsets(length: int, side: int, stride: float) -> list[int]:
    """Starts of tiles from edge to edge, evenly spread and at most `stride` apart."""
    count = math.ceil((length - side) / (stride * side)) + 1
    return np.linspace(0, length - side, count).round().astype(int).tolist()
