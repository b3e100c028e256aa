"""What filling photos as `inpaint-jax fill` does is worth: pictures, distance to the truth, sharpness and seconds.

    python benchmarks/retouch.py --data=folder:PHOTOS --masks=folder:MASKS --output=DIR
        [--model=scenes] [--limit=8] [--size=256] [--side=512] [--methods=telea,patchmatch]

Each photo gets one mask of a ratio from 0.1 to 0.4. With a `--side` below `--size`, photos are filled at a reduced
size, and "enlarged only" is the whole photo at that size, without texture. DIR gets table.md, retouch.json and
sheet.png. Sharpness is the mean distance of the filled pixels from their smooth surroundings, as a share of the
truth's.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from hardware import describe, describe_devices, host_memory_peak
from tqdm import tqdm

from inpaint_jax import classical, metrics
from inpaint_jax.data.images import resize_and_crop
from inpaint_jax.data.masks import open_masks
from inpaint_jax.data.sources import open_source
from inpaint_jax.inference import texture
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.inference.retouching import retouch, touched
from inpaint_jax.visualize import image_sheet
from inpaint_jax.visualize.sheets import network_input

RATIOS = (0.1, 0.4)


def main() -> None:
    """Fills, and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True, help="as in config.data.test")
    parser.add_argument("--masks", required=True, help="folder:PATH")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="scenes", help="a name, workdir or exported file")
    parser.add_argument("--limit", type=int, default=8, help="photos, taken evenly from all")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--side", type=int, default=512, help="the longest that the generator works at")
    parser.add_argument("--methods", default="telea,patchmatch", help="classical ones, to compare with")
    arguments = parser.parse_args()
    inpainter = Inpainter.load(arguments.model)
    methods = {
        name: lambda photo, hole, name=name: classical.complete(name, photo, hole)
        for name in arguments.methods.split(",")
    }
    methods |= models(inpainter, arguments.size, arguments.side)
    photos, holes = pairs(arguments)
    filled, seconds = {}, {}
    for name, method in methods.items():
        for photo, hole in zip(photos, holes):  # compiles; which programs are needed depends on the hole
            method(photo, hole)
        started = time.perf_counter()
        progress = tqdm(zip(photos, holes), desc=name, total=len(photos), disable=None, leave=False)
        filled[name] = np.stack([method(photo, hole) for photo, hole in progress])
        seconds[name] = (time.perf_counter() - started) / len(photos)
    rows = {name: scores(images, photos, holes) | {"seconds": seconds[name]} for name, images in filled.items()}
    table = to_markdown(rows)
    print(table)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "table.md").write_text(table)
    settings = {key: str(value) for key, value in vars(arguments).items() if key != "output"}
    result = {**describe(("jax", "numpy")), **describe_devices(), **settings, "rows": rows}
    result["peak_gib"] = host_memory_peak()
    (arguments.output / "retouch.json").write_text(json.dumps(result, indent=2) + "\n")
    sheet = image_sheet({"input": network_input(photos, holes, np.uint8([128, 120, 110])), **filled, "truth": photos})
    cv2.imwrite(str(arguments.output / "sheet.png"), sheet[..., ::-1])


def models(inpainter: Inpainter, size: int, side: int) -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """The model in the ways to be compared: name -> function of photo and hole."""

    def reduced(photo: np.ndarray, hole: np.ndarray) -> np.ndarray:
        small = cv2.resize(photo, (side, side), interpolation=cv2.INTER_AREA)
        made = inpainter(small, touched(hole, (side, side)), wide=True)
        return texture.to_full_size(made, photo, hole, None)

    found = {"one pass": inpainter} if side >= size else {"enlarged only": reduced}
    return found | {"retouch": lambda photo, hole: retouch(inpainter, photo, hole, side=side).pixels}


def pairs(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Photos uint8 [N, S, S, 3] and holes bool [N, S, S]."""
    source, masks = open_source(arguments.data), open_masks(arguments.masks, arguments.size)
    rng = np.random.default_rng(0)
    photos, holes = [], []
    for k in range(arguments.limit):
        index = len(source) * (2 * k + 1) // (2 * arguments.limit)
        photos.append(resize_and_crop(source[index], arguments.size))
        while not RATIOS[0] < (hole := masks.draw(rng).mask > 0).mean() <= RATIOS[1]:
            pass
        holes.append(hole)
    return np.stack(photos), np.stack(holes)


def scores(images: np.ndarray, photos: np.ndarray, holes: np.ndarray) -> dict[str, float]:
    """Means over the photos."""
    made, truth = (x.astype(np.float32) / 255 for x in (images, photos))
    sharp = [_sharpness(a, hole) / _sharpness(b, hole) for a, b, hole in zip(made, truth, holes)]
    return {
        "psnr": float(np.mean(metrics.psnr(made, truth))),
        "hole_psnr": float(np.mean(metrics.hole_psnr(made, truth, holes))),
        "ssim": float(np.mean(metrics.ssim(made, truth))),
        "sharpness": float(np.mean(sharp)),
    }


def _sharpness(image: np.ndarray, hole: np.ndarray) -> float:
    return float(np.abs(image - cv2.GaussianBlur(image, (0, 0), 2))[hole].mean())


def to_markdown(rows: dict[str, dict[str, float]]) -> str:
    """The table of docs/models.md."""
    lines = ["| | PSNR (dB) | in the hole | SSIM | sharpness | s a photo |", "|---|--:|--:|--:|--:|--:|"]
    for name, row in rows.items():
        quality = f"{row['psnr']:.2f} | {row['hole_psnr']:.2f} | {row['ssim']:.4f} | {row['sharpness']:.2f}"
        lines.append(f"| {name} | {quality} | {row['seconds']:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
