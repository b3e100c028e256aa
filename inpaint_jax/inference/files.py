"""Photos on the disk in, completed photos on the disk out: what inpaint-jax fill does."""

import collections
import dataclasses
import logging
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import jax
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from inpaint_jax import classical
from inpaint_jax.data.masks import read_mask
from inpaint_jax.data.sources import IMAGE_EXTENSIONS, open_folder
from inpaint_jax.errors import UserError
from inpaint_jax.files import write_file
from inpaint_jax.inference.growing import Growth, grow
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.inference.photos import Photo, read_photo, save_photo, writable_format
from inpaint_jax.inference.retouching import retouch

logger = logging.getLogger("inpaint_jax")

_TRANSPARENT_BELOW = 128

# A line of one pixel's width that is smoothed and lies between two rows has half of its strength in each; 128 tears it.
_LINE_FROM = 64


@dataclasses.dataclass(frozen=True)
class HoleRules:
    """How a photo's hole, and the lines in it, are found, and how it is filled.

    Attributes:
        invert: black (or opaque) = missing, instead of white (or transparent).
        resize: bring a mask or sketch of another size to that of its photo, a mask by taking nearest pixels, a
            sketch so that no line gets lost; an error otherwise.
        invert_sketch: black = line, instead of white. Of no account for a sketch with transparent parts: there, what is
            drawn is a line, whatever its colour.
        plain: one pass of the generator over the whole photo, as in the paper, in place of `retouch`.
        method: of `classical`, to fill by in place of the model, which is not loaded then.
        grow: by how much the hole is grown.
    """

    invert: bool = False
    resize: bool = False
    invert_sketch: bool = False
    plain: bool = False
    method: str | None = None
    grow: Growth = 0


@dataclasses.dataclass(frozen=True)
class Summary:
    """What became of the photos: the files that were written, and photo -> sentence for those that failed."""

    written: list[Path]
    failed: dict[Path, str]


def inpaint_files(
    checkpoint: str | Path,
    image: str | Path,
    output: str | Path,
    mask: str | Path | None = None,
    sketch: str | Path | None = None,
    *,
    step: int | None = None,
    rules: HoleRules | None = None,
) -> Summary:
    """Inpaints a photo, or every photo of a folder; one that fails is logged and does not stop the others.

    Args:
        checkpoint: the workdir of a run, or an exported file.
        image: a photo, or a folder of photos (and folders).
        output: a file, or a folder (one that exists, or with a slash at its end) that gets the photo under its own
            name; always a folder if `image` is one.
        mask: a file, which serves for all photos; a folder, which holds a mask of the same name, whatever its
            extension, for every photo; or None to take the hole from the photos' own alpha channel.
        sketch: for a model that is guided by sketches: a file, or a folder, as with masks. White = line, or, in files
            with transparent parts, opaque = line; smoothed lines count from a quarter of their strength on.
        step: which checkpoint of a workdir; the best one by default.
        rules: how hole and lines are found.

    Returns:
        Summary.

    Raises:
        UserError: nothing can be done at all: no photo, no model, a sketch for a model that takes none or none
            for one that needs it, one path for both mask and sketch, or a photo would be overwritten.
    """
    rules = rules or HoleRules()
    masks, sketches = _Guides("mask", mask), _Guides("sketch", sketch)
    for kind, other in (("mask", masks.path), ("image", Path(image).expanduser())):
        if sketches.path and other and other.exists() and sketches.path.samefile(other):
            raise UserError(f"{sketches.path} is given as --{kind} and as --sketch; draw the sketch's lines apart.")
    tasks = _plan(Path(image).expanduser(), os.fspath(output), masks, sketches)
    if rules.method:
        classical.check(rules.method)
        if sketch is not None:
            raise UserError(f"The method {rules.method} takes no sketch; leave out --sketch.")
        inpainter = rules.method
    else:
        inpainter = _load(checkpoint, step, sketch is not None)

    written, failed, notes = [], {}, collections.Counter()
    with logging_redirect_tqdm():
        # disable=None: a bar only where standard error is a terminal.
        for photo, name, target in tqdm(tasks, unit="photo", disable=True if len(tasks) == 1 else None):
            try:
                guides = masks.path_for(name), sketches.path_for(name)
                notes.update(inpaint_file(inpainter, photo, guides[0], target, rules, guides[1]))
                written.append(target)
            except (UserError, OSError) as error:
                failed[photo] = str(error)
                logger.error("%s", error)
    for note, count in notes.items():
        logger.warning("%d of %d photos: %s.", count, len(tasks), note)
    where = written[0] if len(tasks) == 1 and written else output
    if failed:
        names = ", ".join(os.fspath(photo) for photo in list(failed)[:5]) + (", ..." if len(failed) > 5 else "")
        logger.error(
            "Inpainted %d of %d photos into %s; %d failed: %s", len(written), len(tasks), where, len(failed), names
        )
    else:
        logger.info("Inpainted %d of %d photos into %s.", len(written), len(tasks), where)
    return Summary(written, failed)


def _load(checkpoint: str | Path, step: int | None, sketched: bool) -> Inpainter:
    inpainter = Inpainter.load(checkpoint, step)
    if sketched and not inpainter.guided:
        raise UserError(f"The model {inpainter.name} was trained without sketches; leave out --sketch.")
    if not sketched and inpainter.needs_sketch:
        raise UserError(
            f"The model {inpainter.name} was never trained without a sketch; give one as --sketch, white on black."
        )
    logger.info("Model %s of step %d, from %s.", inpainter.name, inpainter.step, checkpoint)
    return inpainter


def inpaint_file(
    inpainter: Inpainter | str,
    photo: Path,
    mask: Path | None,
    output: Path,
    rules: HoleRules | None = None,
    sketch: Path | None = None,
) -> list[str]:
    """Inpaints one photo.

    An empty hole leaves the photo as it is, a full one is filled with a warning. A hole that came from the alpha
    channel leaves a photo without one: all of it is opaque then. An alpha channel beside a mask file stays as it is.

    Args:
        inpainter: the model, or the name of a classical method.
        photo: a file.
        mask: a file, or None for the photo's alpha channel.
        output: the file to write; its folder is made.
        rules: how hole and lines are found.
        sketch: a file, for a model that is guided by sketches; see `inpaint_files`. One without a line in the hole is
            taken with a warning.

    Returns:
        what the output's format cannot keep, see `save_photo`.

    Raises:
        UserError: no hole to be found, mask or sketch of another size than the photo, a sketch that is no
            lines but fills more than half of the photo or of the hole, or too large a photo for the memory.
        ValueError: the model takes no sketch and is given one, or needs one and is given none.
        UnreadableImage: photo, mask or sketch cannot be read.
        UnsavablePhoto: the output's format cannot hold it.
        OSError: the output cannot be written.
    """
    rules = rules or HoleRules()
    like = read_photo(photo)
    hole = _hole_of_alpha(like, photo) if mask is None else _hole_of_file(like, photo, mask, rules.resize)
    given = ~hole if rules.invert else hole
    hole = grow(given, rules.grow)
    if rules.grow and hole is given and hole.any():
        logger.warning("The hole of %s is not grown, because nothing would be left of the photo.", photo)
    lines = None if sketch is None else _lines_of_file(like, photo, sketch, rules, hole)
    output.parent.mkdir(parents=True, exist_ok=True)
    if not hole.any():
        logger.warning("The mask of %s is empty: it is saved as it is.", photo)
        if output.suffix.lower() == photo.suffix.lower():
            write_file(output, photo.read_bytes())
            return []
        return save_photo(output, like.pixels, like)
    if hole.all():
        logger.warning(
            "The mask of %s covers all of it, so nothing is given to continue from; if it is inverted, "
            "add --invert_mask.",
            photo,
        )
    if lines is not None and not (lines & hole).any():
        logger.warning("The sketch %s has no line in the hole of %s, which is filled as without one.", sketch, photo)
    try:
        if not rules.plain:
            completed = retouch(inpainter, like.pixels, hole, lines).pixels
        elif isinstance(inpainter, str):
            completed = classical.complete(inpainter, like.pixels, hole)
        else:
            sketches = None if lines is None else lines[None]
            completed = inpainter.predict(like.pixels[None], hole[None], sketches, margin=0).completed[0]
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"{photo}, {_size(hole)}, is too large for the memory of this device; make the photo smaller."
        ) from error
    return save_photo(output, completed, dataclasses.replace(like, alpha=None) if mask is None else like)


def _hole_of_alpha(photo: Photo, name: Path) -> np.ndarray:
    if photo.alpha is None:
        raise UserError(
            f"{name} has no alpha channel to take the hole from; give a --mask, or erase the hole in an image editor "
            "and save the photo as PNG."
        )
    return photo.alpha < _TRANSPARENT_BELOW


def _hole_of_file(photo: Photo, name: Path, mask: Path, resize: bool) -> np.ndarray:
    hole, shape = read_mask(mask), photo.pixels.shape[:2]
    if hole.shape == shape:
        return hole
    if resize:
        return cv2.resize(hole.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    raise _other_size("mask", mask, hole, photo, name)


def _lines_of_file(photo: Photo, name: Path, sketch: Path, rules: HoleRules, hole: np.ndarray) -> np.ndarray:
    """bool [H, W], True = line."""
    drawing = read_photo(sketch)
    ink = {"white": cv2.cvtColor(drawing.pixels, cv2.COLOR_RGB2GRAY)}
    ink["black"] = 255 - ink["white"]
    colour, other = ("black", "white") if rules.invert_sketch else ("white", "black")
    if drawing.alpha is not None and (drawing.alpha < _LINE_FROM).any():
        colour = other = "opaque"  # what colour lies below transparent parts means nothing
        ink["opaque"] = drawing.alpha
    lines = _of_size_of(photo, name, sketch, ink[colour] >= _LINE_FROM, rules)
    if not _is_too_much(lines, hole):
        return lines
    sentence = f"The sketch {sketch} is {colour} in more than half of the photo or of its hole"
    if colour != other:
        inverse = _of_size_of(photo, name, sketch, ink[other] >= _LINE_FROM, rules)
        if (inverse & hole).any() and not _is_too_much(inverse, hole):
            cure = "leave out" if rules.invert_sketch else "add"
            raise UserError(f"{sentence}; is it inverted: {cure} --invert_sketch?")
    raise UserError(f"{sentence}; draw thin lines, white on black or on a transparent ground.")


def _is_too_much(lines: np.ndarray, hole: np.ndarray) -> bool:
    """Whether these are no lines, but paper, or a mask."""
    # Eroded, thin lines vanish: one along a scratch, or in a tiny hole, may well cover all of it.
    square = np.ones((3, 3), np.uint8)
    inside, filled = (cv2.erode(area.astype(np.uint8), square).astype(bool) for area in (hole, lines))
    return bool(lines.mean() > 0.5 or (inside.any() and filled[inside].mean() > 0.5))


def _of_size_of(photo: Photo, name: Path, sketch: Path, lines: np.ndarray, rules: HoleRules) -> np.ndarray:
    """Brings lines, bool [h, w], to the size of the photo, if that is allowed."""
    shape = photo.pixels.shape[:2]
    if lines.shape == shape:
        return lines
    if rules.resize:
        # Where it shrinks, any part of a line stays one: nearest pixels would tear thin lines.
        grows = lines.shape[0] <= shape[0] and lines.shape[1] <= shape[1]
        way = cv2.INTER_NEAREST_EXACT if grows else cv2.INTER_AREA
        return cv2.resize(lines.astype(np.float32), shape[::-1], interpolation=way) > 0
    raise _other_size("sketch", sketch, lines, photo, name)


def _other_size(kind: str, file: Path, pixels: np.ndarray, photo: Photo, name: Path) -> UserError:
    cure = f"give a {kind} of the photo's size, or --resize_mask"
    if pixels.shape == photo.pixels.shape[1::-1]:
        cure = "one of them is turned by its EXIF orientation, it seems, so save both upright"
    return UserError(f"The {kind} {file} is {_size(pixels)}, but {name} is {_size(photo.pixels)}; {cure}.")


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]} pixels"


class _Guides:
    """The files of a kind ("mask" or "sketch") by the name of their photo: none, one for all, or those of a folder."""

    def __init__(self, kind: str, given: str | Path | None):
        path = None if given is None else Path(given).expanduser()
        self.kind = kind
        self.path = path
        self.files: list[Path] = []
        self._by_name: dict[str, list[Path]] | None = None
        if path is None:
            return
        if not path.is_dir():
            if not path.is_file():
                raise UserError(f"There is no {kind} {path}; correct --{kind}.")
            self.files = [path]
            return
        self._by_name = collections.defaultdict(list)
        for name, file in _files_of(path, f"--{kind}"):
            self._by_name[os.path.splitext(name)[0]].append(file)
            self.files.append(file)

    def path_for(self, name: str) -> Path | None:
        """The file of the photo of that name, a path below the folder of photos."""
        if self._by_name is None:
            return self.path
        stem = os.path.splitext(name)[0]
        found = self._by_name.get(stem, [])
        if len(found) == 1:
            return found[0]
        if found:
            plural = "masks" if self.kind == "mask" else "sketches"
            raise UserError(f"{name} has several {plural}, {', '.join(map(str, found))}; leave one of them.")
        raise UserError(f"{name} has no {self.kind} in {self.path}; put {stem}.png there.")


def _plan(image: Path, output: str, *guides: _Guides) -> list[tuple[Path, str, Path]]:
    """Photo, its name below the folder, and where its result goes; no result may replace what was given."""
    target = Path(output).expanduser()
    if image.is_dir():
        if target.is_file():
            raise UserError(f"{target} is a file; a folder of photos needs a folder for --output.")
        here, others = image.resolve(), [path.resolve() for path in (target, *(g.path for g in guides)) if path]
        if here in others:
            raise UserError(f"Photos, masks, sketches and results need a folder each, not {image} for two of them.")
        # Masks, sketches and earlier results may lie among the photos.
        inside = [path for path in others if path.is_relative_to(here)]
        tasks = [
            (file, name, target / name)
            for name, file in _files_of(image, "--image")
            if not any(file.resolve().is_relative_to(path) for path in inside)
        ]
    elif image.is_file():
        if target.is_dir() or output.endswith(os.sep):
            target = target / image.name
        if target.suffix and writable_format(target) is None:
            raise UserError(f"{target} has no image format's extension; end it in .png, .jpg, .webp or .tif.")
        tasks = [(image, image.name, target)]
    else:
        raise UserError(f"There is no photo and no folder {image}; correct --image.")
    if not tasks:
        raise UserError(f"There are no photos in {image}; correct --image.")
    given = _identities([*(photo for photo, _, _ in tasks), *(file for guide in guides for file in guide.files)])
    for _, _, target in tasks:
        if target.exists() and _identities([target]) <= given:
            raise UserError(f"{target} is one of the files given and would be overwritten; give another --output.")
    return tasks


def _files_of(folder: Path, flag: str) -> list[tuple[str, Path]]:
    try:
        return [(name, folder / name) for name in open_folder(os.fspath(folder)).names]
    except ValueError as error:
        extensions = ", ".join(sorted(IMAGE_EXTENSIONS))
        raise UserError(f"{folder} has no image files ({extensions}); correct {flag}.") from error


def _identities(files: Iterable[Path]) -> set[tuple[int, int]]:
    """What the file system calls them, so that links and other spellings are seen through."""
    stats = [file.stat() for file in files]
    return {(stat.st_dev, stat.st_ino) for stat in stats}
