"""Which image is tested with which mask, and the mask-ratio bins. Imports no jax: worker processes import it again."""

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np

from inpaint_jax.data.masks import FolderMasks, FreeFormMasks, Mask, MaskSource, free_form_mask_of_ratio, open_masks
from inpaint_jax.data.sketches import Sketches
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.errors import UserError

BINS = tuple((low / 10, (low + 1) / 10) for low in range(6))
"""The paper's, as (low, high]."""

_log = logging.getLogger("inpaint_jax")

Pairing = Literal["every_bin", "once"]


@dataclasses.dataclass(frozen=True)
class Bin:
    """A range of mask ratios and its share of the work; the two sources have the same order.

    Attributes:
        label: "(0.0, 0.1]", or OUTSIDE.
        images: its images, with the numbers 0 .. N - 1.
        masks: `draw(rng, i)` gives the mask of image i, whatever rng.
    """

    label: str
    images: "ChosenImages"
    masks: MaskSource


OUTSIDE = "outside"
"""Label of masks that fall into no bin: they count in the row "all" alone."""


def fingerprint(bins: Sequence[Bin]) -> str:
    """Tells apart pairs of other image or mask files: a checksum over their names, not their content."""
    digest = hashlib.sha256()
    for part in bins:
        digest.update(part.label.encode())
        for index in range(len(part.images)):
            mask = part.masks.files.files.name(part.masks.numbers[index]) if isinstance(part.masks, ChosenMasks) else ""
            digest.update(f"\0{part.images.name(index)}\0{mask}".encode())
    return digest.hexdigest()[:16]


def bin_label(ratio: float) -> str:
    """The bin of a mask ratio.

    Args:
        ratio: missing pixels as a fraction of all, 0 .. 1.
    """
    return next((label(low, high) for low, high in BINS if low < ratio <= high), OUTSIDE)


def label(low: float, high: float) -> str:
    """How a bin is written in tables."""
    return f"({low:.1f}, {high:.1f}]"


@dataclasses.dataclass(frozen=True)
class ChosenImages:
    """Some images of a source, in an order of their own.

    Attributes:
        source: all images.
        numbers: which of them, by their number there.
    """

    source: ImageSource
    numbers: tuple[int, ...] = dataclasses.field(repr=False)

    def __len__(self) -> int:
        """How many."""
        return len(self.numbers)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [H, W, 3]; raises UnreadableImage."""
        return self.source[self.numbers[index]]

    def name(self, index: int) -> str:
        """As the source calls it."""
        return self.source.name(self.numbers[index])


@dataclasses.dataclass(frozen=True)
class ChosenSketches:
    """The sketches of `ChosenImages`.

    Attributes:
        sketches: of all images.
        numbers: as of the images.
    """

    sketches: Sketches
    numbers: tuple[int, ...] = dataclasses.field(repr=False)

    def __getitem__(self, index: int) -> np.ndarray:
        """bool [h, w], of the size of the image after the resize; raises MissingSketch."""
        return self.sketches[self.numbers[index]]


@dataclasses.dataclass(frozen=True)
class ChosenMasks:
    """Files of a folder of masks, one for each image.

    Attributes:
        files: the folder.
        numbers: of the file for image 0, 1, ...
    """

    files: FolderMasks
    numbers: tuple[int, ...] = dataclasses.field(repr=False)

    @property
    def size(self) -> int:
        """Side of the masks."""
        return self.files.size

    def draw(self, rng: np.random.Generator, index: int) -> Mask:
        """Reads the mask of image `index`; the rows that fill up a last batch start over."""
        return self.files.draw(rng, self.numbers[index % len(self.numbers)])


@dataclasses.dataclass(frozen=True)
class DrawnMasks:
    """Masks drawn from a seed, one for each image.

    Attributes:
        size: side of the masks.
        seed: with the number of the image, all that the mask depends on.
        numbers: of the images.
        low: of the ratio; None draws training masks of any ratio.
        high: of the ratio.
    """

    size: int
    seed: int
    numbers: tuple[int, ...] = dataclasses.field(repr=False)
    low: float | None = None
    high: float | None = None

    def draw(self, rng: np.random.Generator, index: int) -> Mask:
        """Draws the mask of image `index`; rng makes no difference. As with files, places start over at the end."""
        number = self.numbers[index % len(self.numbers)]
        if self.low is None:
            return FreeFormMasks(self.size).draw(np.random.default_rng([self.seed, number]))
        rng = np.random.default_rng([self.seed, number, round(100 * self.low)])
        mask = free_form_mask_of_ratio(rng, self.size, self.size, self.low, self.high)
        return Mask(mask, np.zeros(2, np.int32))  # no discriminator looks at a crop here


def pair(
    source: ImageSource,
    masks: str,
    *,
    size: int,
    seed: int,
    pairing: Pairing = "every_bin",
    limit: int | None = None,
    progress: Callable[[Iterable], Iterable] = lambda items: items,
) -> list[Bin]:
    """Gives every image its masks.

    "every_bin" tests each image once in each bin, so that bins compare on the same images: the i-th image gets the
    i-th of the bin's masks, in a seeded order, starting over after the last. "once" gives each image one mask, in a
    seeded order over all masks, and sorts the pairs into bins. The ratio of a mask is measured at `size`.

    Args:
        source: the images.
        masks: "folder:PATH" as in `open_masks`; "generated", strokes that hit the ratios of the bins; or "freeform",
            training masks, whose ratios come as they come ("once" only).
        size: side of images and masks.
        seed: of the masks drawn or of their order.
        pairing: "every_bin" or "once".
        limit: take only the first `limit` images.
        progress: wraps the loop over mask files that measures their ratios, as tqdm does.

    Returns:
        the bins that have pairs, by rising ratio.

    Raises:
        UserError: an unknown kind of masks, or no mask falls into any bin.
        UnreadableMask: a mask file cannot be read.
    """
    if pairing not in ("every_bin", "once"):
        raise ValueError(f'pairing is {pairing!r}; use "every_bin" or "once".')
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}.")
    images = tuple(range(len(source) if limit is None else min(limit, len(source))))
    if masks == "generated":
        bins = _generated(source, images, size, seed, pairing)
    elif masks == "freeform":
        if pairing == "every_bin":
            raise UserError(
                'freeform masks have any ratio; take pairing "once", or masks "generated" to fill all bins.'
            )
        drawn = DrawnMasks(size, seed, images)
        ratios = [drawn.draw(None, i).mask.mean() for i in progress(images)]
        bins = _sorted_into_bins(
            source, images, ratios, lambda chosen: DrawnMasks(size, seed, tuple(images[i] for i in chosen))
        )
    elif not masks.startswith("folder:"):
        raise UserError(f"Masks {masks!r} are unknown; write generated, freeform or folder:PATH.")
    else:
        bins = _from_folder(source, images, open_masks(masks, size), seed, pairing, progress)
    if {part.label for part in bins} <= {OUTSIDE}:
        raise UserError(
            f"No mask of {masks} has a hole of at most 0.6 of the image; are black and white exchanged "
            "(folder:PATH?missing=black)?"
        )
    return bins


def _generated(source: ImageSource, images: tuple[int, ...], size: int, seed: int, pairing: Pairing) -> list[Bin]:
    bins = []
    for place, (low, high) in enumerate(BINS):
        chosen = images if pairing == "every_bin" else images[place :: len(BINS)]
        if chosen:
            drawn = DrawnMasks(size, seed, chosen, low, high)
            bins.append(Bin(label(low, high), ChosenImages(source, chosen), drawn))
    return bins


def _from_folder(
    source: ImageSource,
    images: tuple[int, ...],
    files: FolderMasks,
    seed: int,
    pairing: Pairing,
    progress: Callable[[Iterable], Iterable],
) -> list[Bin]:
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(files.files)).tolist()
    if pairing == "once":
        numbers = [order[i % len(order)] for i in range(len(images))]
        measured = {number: files.draw(rng, number).mask.mean() for number in progress(sorted(set(numbers)))}
        ratios = [measured[number] for number in numbers]
        return _sorted_into_bins(
            source, images, ratios, lambda chosen: ChosenMasks(files, tuple(numbers[i] for i in chosen))
        )
    by_bin = {name: [] for name in [label(*limits) for limits in BINS] + [OUTSIDE]}
    measured = {number: files.draw(rng, number).mask.mean() for number in progress(range(len(files.files)))}
    for number in order:
        by_bin[bin_label(measured[number])].append(number)
    if outside := by_bin.pop(OUTSIDE):
        _log.warning("%d of %d masks have a ratio outside of all bins, and are left out.", len(outside), len(order))
    if empty := [name for name, numbers in by_bin.items() if not numbers]:
        _log.warning("No mask falls into %s; is their polarity right (folder:PATH?missing=black)?", ", ".join(empty))
    return [
        Bin(
            name,
            ChosenImages(source, images),
            ChosenMasks(files, tuple(itertools.islice(itertools.cycle(numbers), len(images)))),
        )
        for name, numbers in by_bin.items()
        if numbers
    ]


def _sorted_into_bins(
    source: ImageSource,
    images: tuple[int, ...],
    ratios: Sequence[float],
    masks_of: Callable[[list[int]], MaskSource],
) -> list[Bin]:
    """Sorts pairs into bins; `masks_of` gives the masks of chosen places in `images`."""
    labels = [bin_label(ratio) for ratio in ratios]
    bins = []
    for name in [label(*limits) for limits in BINS] + [OUTSIDE]:
        if chosen := [i for i, found in enumerate(labels) if found == name]:
            bins.append(Bin(name, ChosenImages(source, tuple(images[i] for i in chosen)), masks_of(chosen)))
    return bins
