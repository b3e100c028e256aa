"""Packs photos of several folders into one small folder that travels: JPEGs whose shortest side is just above 256.

    python benchmarks/pack_photos.py --output=PACK [--folders=street,scenes,natural] [--mebibytes=42] [--side=272]
        [--quality=75] [--validation=40]

Each folder has the parts train/ and val/, which stay apart: PACK/train and PACK/val are read as `folder:PACK/train`
and `folder:PACK/val`. The photos of val/ are spread evenly over the sorted files. Those of train/ are drawn by chance
until the pack is full. All folders take turns, by their sizes, and files are numbered in that order, so that the first
photos of a part are of all kinds. PACK/pack.json says what is in it.

The defaults took 24 s and gave 42.0 MiB: 2,024 of the 3,456 photos for training (457 street, 1,333 scenes, 234 natural)
and 120 for validation. All 3,456 would be 67 MiB, or 75 MiB at quality 80 (estimated from 180 of them); a lower quality
would buy more photos at the price of blocks that a model learns. The terms of the photos stay what they were.
"""

import argparse
import io
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inpaint_jax.data.sources import open_source
from inpaint_jax.files import write_file

SHARED = Path(os.environ.get("INPAINT_JAX_SHARED", Path(__file__).parents[2] / "shared"))
FOLDERS = ",".join(str(SHARED / "data" / name) for name in ("street", "scenes", "natural"))


def main() -> None:
    """Writes the pack, and says what is in it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--folders", default=FOLDERS, help="with train/ and val/ in each; their names must differ")
    parser.add_argument("--mebibytes", type=float, default=42, help="that the files may have together")
    parser.add_argument("--side", type=int, default=272, help="shortest side; smaller photos stay as they are")
    parser.add_argument("--quality", type=int, default=75, help="of the JPEGs")
    parser.add_argument("--validation", type=int, default=40, help="photos of each folder's val/, at most")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} exists; remove it, or give another folder")
    folders = [Path(folder) for folder in arguments.folders.split(",")]
    if len({folder.name for folder in folders}) < len(folders):
        parser.error("two folders have the same name")
    contents = pack(
        folders,
        arguments.output,
        size=round(arguments.mebibytes * 2**20),
        side=arguments.side,
        quality=arguments.quality,
        validation=arguments.validation,
    )
    print(json.dumps(contents, indent=1))


def pack(
    folders: Sequence[Path], output: Path, *, size: int, side: int, quality: int, validation: int
) -> dict[str, Any]:
    """Writes the pack.

    Args:
        folders: with train/ and val/ in each.
        output: where to.
        size: bytes that its photos may have together.
        side: the shortest one of a photo.
        quality: of the JPEGs, 1 to 95.
        validation: photos of each folder's val/, at most.

    Returns:
        what pack.json holds: the settings, how many photos of each folder are in each part, and bytes in all.

    Raises:
        SystemExit: the photos of val/ alone are too large.
    """
    parts = {
        part: {folder.name: open_source(f"folder:{folder / part}") for folder in folders} for part in ("train", "val")
    }
    counts = {part: dict.fromkeys(sources, 0) for part, sources in parts.items()}
    total = 0
    held_out = {name: _spread(len(source), validation) for name, source in parts["val"].items()}
    shuffled = {
        name: random.Random(0).sample(range(n), n) for name, source in parts["train"].items() if (n := len(source))
    }
    chosen = [("val", *photo) for photo in _in_turn(held_out)] + [("train", *photo) for photo in _in_turn(shuffled)]
    for place, (part, folder, index) in enumerate(chosen):
        source = parts[part][folder]
        content = _encode(source[index], side, quality)
        if total + len(content) > size:
            if part == "val":
                raise SystemExit("The photos of val/ alone are too large; take fewer by --validation.")
            break
        name = Path(source.name(index)).stem
        write_file(output / part / f"{place:05d}_{folder}_{name}.jpg", content)
        counts[part][folder] += 1
        total += len(content)
    contents = {"side": side, "quality": quality, **counts, "mebibytes": round(total / 2**20, 2)}
    write_file(output / "pack.json", json.dumps(contents, indent=1) + "\n")
    return contents


def _spread(length: int, count: int) -> list[int]:
    """So many numbers below a length, evenly."""
    return [round(index) for index in np.linspace(0, length - 1, min(count, length)).tolist()]


def _in_turn(photos: dict[str, list[int]]) -> list[tuple[str, int]]:
    """All photos, mixed so that any beginning of the list has about the same share of each folder's."""
    places = [
        ((place + 0.5) / len(indices), folder, index)
        for folder, indices in photos.items()
        for place, index in enumerate(indices)
    ]
    return [(folder, index) for _, folder, index in sorted(places)]


def _encode(pixels: np.ndarray, side: int, quality: int) -> bytes:
    image = Image.fromarray(pixels)
    if (scale := side / min(image.size)) < 1:
        width, height = (max(side, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality, optimize=True)
    return content.getvalue()


if __name__ == "__main__":
    main()
