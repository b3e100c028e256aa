"""Which image is tested with which mask, and the mask-ratio bins. Imports no jax: worker processes import it again."""

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np

from inpaint_jax.data.masks import (
    BINS,
    FolderMasks,
    FreeFormMasks,
    Mask,
    NumberedMasks,
    free_form_mask_of_ratio,
    open_folder_masks,
)
from inpaint_jax.data.sketches import Sketches
from inpaint_jax.data.sources import ImageSource
from inpaint_jax.errors import UserError

_log = logging.getLogger("inpaint_jax")

Pairing = Literal["every_bin", "once"]


@dataclasses.dataclass(frozen=True)
class Bin:
    """A range of mask ratios and its pairs; both sources have the same order.

    Attributes:
        label: "(0.0, 0.1]", or OUTSIDE.
        images: Its images, with the numbers 0 .. N - 1.
        masks: `draw(rng, i)` gives the mask of image i, whatever rng is.
    """

    label: str
    images: "ChosenImages"
    masks: NumberedMasks


OUTSIDE = "outside"
"""Label of masks that fall into no bin: they count only in the row "all"."""


def fingerprint(bins: Sequence[Bin]) -> str:
    """A checksum of the names of image and mask files, not of their content, to tell pairs apart."""
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
        ratio: Share of missing pixels, 0 .. 1.
    """
    return next((label(low, high) for low, high in BINS if low < ratio <= high), OUTSIDE)


def label(low: float, high: float) -> str:
    """The label of a bin in tables."""
    return f"({low:.1f}, {high:.1f}]"


@dataclasses.dataclass(frozen=True)
class ChosenImages:
    """Some images of a source, in any order.

    Attributes:
        source: All images.
        numbers: Numbers of the chosen images in `source`.
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
        """The name that the source gives it."""
        return self.source.name(self.numbers[index])


@dataclasses.dataclass(frozen=True)
class ChosenSketches:
    """The sketches of `ChosenImages`.

    Attributes:
        sketches: Sketches of all images.
        numbers: Numbers of the chosen images.
    """

    sketches: Sketches
    numbers: tuple[int, ...] = dataclasses.field(repr=False)

    def __getitem__(self, index: int) -> np.ndarray:
        """bool [h, w], at the size of the resized image; raises MissingSketch."""
        return self.sketches[self.numbers[index]]


@dataclasses.dataclass(frozen=True)
class ChosenMasks:
    """Files of a folder of masks, one for each image.

    Attributes:
        files: The folder.
        numbers: Number of the file for image 0, 1, ...
    """

    files: FolderMasks
    numbers: tuple[int, ...] = dataclasses.field(repr=False)

    @property
    def size(self) -> int:
        """Side of the masks."""
        return self.files.size

    def draw(self, rng: np.random.Generator, index: int) -> Mask:
        """Reads the mask of image `index`; the rows that fill up a last batch start over at the first."""
        return self.files.draw(rng, self.numbers[index % len(self.numbers)])


@dataclasses.dataclass(frozen=True)
class DrawnMasks:
    """Masks drawn from a seed, one for each image.

    Attributes:
        size: Side of the masks.
        seed: Together with the number of the image, it determines the mask.
        numbers: Numbers of the images.
        limits: Ends of the mask ratio, (low, high]; None draws training masks of any ratio.
    """

    size: int
    seed: int
    numbers: tuple[int, ...] = dataclasses.field(repr=False)
    limits: tuple[float, float] | None = None

    def draw(self, rng: np.random.Generator | None, index: int) -> Mask:
        """Draws the mask of image `index`, whatever rng is. As with files, numbers start over at the end."""
        number = self.numbers[index % len(self.numbers)]
        if self.limits is None:
            return FreeFormMasks(self.size).draw(np.random.default_rng([self.seed, number]))
        rng = np.random.default_rng([self.seed, number, round(100 * self.limits[0])])
        mask = free_form_mask_of_ratio(rng, self.size, self.size, *self.limits)
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

    "every_bin" tests each image once in each bin, so that all bins hold the same images: the i-th image gets the i-th
    of the bin's masks, in a seeded order, starting over after the last. "once" gives each image one mask, in a
    seeded order over all masks, and sorts the pairs into bins. The ratio of a mask is measured at `size`.

    Args:
        source: The images.
        masks: "folder:PATH" as in `open_folder_masks`; "generated", strokes that hit the ratios of the bins; or
            "freeform", training masks of any ratio ("once" only).
        size: Side of images and masks.
        seed: Seed of the masks drawn, or of their order.
        pairing: "every_bin" or "once".
        limit: Take only the first `limit` images.
        progress: Wraps the loop that measures the ratios of masks, as tqdm does.

    Returns:
        The bins that have pairs, by rising ratio.

    Raises:
        UserError: The kind of masks is unknown, or no mask falls into any bin.
        UnreadableMask: A mask file cannot be read.
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
        bins = _from_folder(source, images, open_folder_masks(masks, size), seed, pairing, progress)
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
            drawn = DrawnMasks(size, seed, chosen, (low, high))
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
        _log.warning("%d of %d masks have a ratio outside of all bins and are left out.", len(outside), len(order))
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
    masks_of: Callable[[list[int]], NumberedMasks],
) -> list[Bin]:
    """Sorts pairs into bins; `masks_of` returns the masks for chosen positions in `images`."""
    labels = [bin_label(ratio) for ratio in ratios]
    bins = []
    for name in [label(*limits) for limits in BINS] + [OUTSIDE]:
        if chosen := [i for i, found in enumerate(labels) if found == name]:
            bins.append(Bin(name, ChosenImages(source, tuple(images[i] for i in chosen)), masks_of(chosen)))
    return bins
