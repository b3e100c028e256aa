"""How much closer the edges inside the hole are to a sketch when the model is given it.

    python benchmarks/sketch_guidance.py --checkpoint=runs/street_sketch --data=folder:PHOTOS/val [--masks=freeform]
        [--weights=FILE] [--thresholds=0.65,0.4] [--tolerance=3] [--limit=N] [--size=N] [--json=FILE]
        [--sheet=FILE.png --rows=6]

Of every photo PiDiNet makes the true sketch. The model fills the photo's hole with it, and without. PiDiNet looks at
both results; what it sees inside the hole is compared with the sketch: precision is the share of these edges that lie
within the tolerance of a line, recall the share of the lines that have an edge so near. "photo" is the photo itself,
1 by definition at the sketch's own threshold; "mean colour" fills the hole with one. Also the PSNR inside the hole.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hardware import describe, describe_devices
from PIL import Image
from timing import Table
from tqdm import tqdm

from inpaint_jax.data.images import resize_and_crop
from inpaint_jax.data.masks import open_masks
from inpaint_jax.data.sketches import THRESHOLD, sketch_from_edges
from inpaint_jax.data.sources import ImageSource, open_source
from inpaint_jax.evaluation.guidance import Agreement, edge_agreement
from inpaint_jax.features import pidinet
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.visualize import image_sheet, network_input

RESULTS = ("with the sketch", "without it", "mean colour", "photo")
_BATCH = 8


class Sample(NamedTuple):
    """A photo, uint8 [S, S, 3], its hole and its sketch, bool [S, S]."""

    photo: np.ndarray
    hole: np.ndarray
    sketch: np.ndarray


def main() -> None:
    """Measures, prints the table, writes JSON and the sheet if asked."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="a model that is guided by sketches, but not always")
    parser.add_argument("--data", required=True, help="photos, as in config.data.validation")
    parser.add_argument("--masks", default="freeform", help="as in config.data.masks; one for each photo")
    parser.add_argument("--weights", help="file of PiDiNet's weights; otherwise from the cache or by download")
    parser.add_argument("--thresholds", default=f"{THRESHOLD},0.4", help="of the edges of the results")
    parser.add_argument("--tolerance", type=float, default=3.0, help="in pixels of the images that the model works on")
    parser.add_argument("--limit", type=int, help="only the first photos")
    parser.add_argument("--size", type=int, help="of the photos; by default that of the training")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--sheet", type=Path, help="also draw photo, input and both results to this file")
    parser.add_argument("--rows", type=int, default=6, help="of the sheet")
    arguments = parser.parse_args()
    inpainter = Inpainter.load(arguments.checkpoint)
    if not inpainter.guided or inpainter.needs_sketch:
        parser.error("give a model that was trained with sketches, and at times without them")
    size = arguments.size or inpainter.image_size
    thresholds = [float(text) for text in arguments.thresholds.split(",")]
    params = pidinet.load(arguments.weights)

    agreements = {(name, threshold): Agreement() for threshold in thresholds for name in RESULTS}
    errors: dict[str, list[float]] = {name: [] for name in RESULTS[:-1]}
    shown: list[tuple[np.ndarray, ...]] = []
    source = open_source(arguments.data)
    numbers = range(min(len(source), arguments.limit or len(source)))
    for first in tqdm(range(0, len(numbers), _BATCH), unit="batch", disable=None):
        batch = list(samples(source, arguments.masks, inpainter, size, params, numbers[first : first + _BATCH]))
        photos, holes, sketches = (np.stack(parts) for parts in zip(*batch))
        results = {
            "with the sketch": inpainter(photos, holes, sketches),
            "without it": inpainter(photos, holes),
            "mean colour": np.stack([fill_with_mean(photo, hole) for photo, hole in zip(photos, holes)]),
            "photo": photos,
        }
        for name, images in results.items():
            maps = edge_maps(params, images)
            for image, edges, sample in zip(images, maps, batch):
                for threshold in thresholds:
                    found = sketch_from_edges(edges, threshold, scaled=True)
                    agreements[name, threshold] += edge_agreement(
                        found, sample.sketch, sample.hole, arguments.tolerance
                    )
                if name in errors:
                    errors[name].append(hole_psnr(image, sample.photo, sample.hole))
        inputs = network_input(photos, holes, np.array([124, 116, 104], np.uint8), sketches)
        shown += list(zip(photos, inputs, results["without it"], results["with the sketch"]))[
            : max(0, arguments.rows - len(shown))
        ]

    rows = []
    table = Table({"threshold": 9, "result": 16, "precision": 9, "recall": 9, "F1": 6, "hole PSNR": 9})
    for (name, threshold), agreement in agreements.items():
        row = {
            "threshold": threshold,
            "result": name,
            **{figure: round(getattr(agreement, figure), 4) for figure in ("precision", "recall", "f1")},
            "edge_pixels": agreement.found,
            "line_pixels": agreement.drawn,
            "hole_psnr": round(float(np.mean(errors[name])), 3) if name in errors else None,
        }
        rows.append(row)
        psnr = f"{row['hole_psnr']:.2f} dB" if name in errors else ""
        table.row(f"{threshold:g}", name, *(f"{row[f]:.3f}" for f in ("precision", "recall", "f1")), psnr)
    if arguments.json:
        about = {"photos": len(numbers), "size": size, "tolerance": arguments.tolerance}
        about |= {"step": inpainter.step, "masks": arguments.masks.partition(":")[0]}
        facts = {**describe_devices(), **describe(("jax", "jaxlib", "flax", "numpy")), **about}
        arguments.json.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n")
    if arguments.sheet:
        headings = ("photo", "hole and lines", "without lines", "with lines")
        columns = (np.stack(images) for images in zip(*shown[: arguments.rows]))
        Image.fromarray(image_sheet(dict(zip(headings, columns)))).save(arguments.sheet)


def samples(
    source: ImageSource, masks: str, inpainter: Inpainter, size: int, params: pidinet.Params, numbers: range
) -> Iterator[Sample]:
    """Photos cut to size, each with a mask that its number fixes, and the sketch that PiDiNet makes of it."""
    resize = inpainter.config.data.resize
    drawn = open_masks(masks, size)
    photos = [resize_and_crop(source[number], size, resize=resize) for number in numbers]
    for number, photo, edges in zip(numbers, photos, edge_maps(params, np.stack(photos))):
        hole = drawn.draw(np.random.default_rng([0, number]), number).mask
        yield Sample(photo, hole, sketch_from_edges(edges, scaled=True))


def edge_maps(params: pidinet.Params, images: np.ndarray) -> np.ndarray:
    """uint8 [B, H, W, 3] -> float32 [B, H, W]."""
    return np.asarray(pidinet.edge_map(params, images.astype(np.float32) / 255))


def fill_with_mean(photo: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The photo with the mean colour of its known pixels in the hole."""
    return np.where(hole[..., None], np.rint(photo[~hole].mean(axis=0)).astype(np.uint8), photo)


def hole_psnr(image: np.ndarray, photo: np.ndarray, hole: np.ndarray) -> float:
    """PSNR of the hole alone, in dB."""
    error = (image[hole].astype(np.float64) - photo[hole]) / 255
    return float(-10 * np.log10(np.mean(error**2)))


if __name__ == "__main__":
    main()
