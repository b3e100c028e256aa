"""Sheets: pictures side by side, pixel by pixel."""

from collections.abc import Iterable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN = 4
_HEADING = 22


def image_sheet(columns: Mapping[str, np.ndarray], *, scale: int = 1) -> np.ndarray:
    """Puts pictures side by side, one row per sample, with a heading over every column.

    Args:
        columns: heading -> [N, H, W, 3] or [N, H, W], all of the same size; uint8, float in [0, 1], or bool (True is
            white).
        scale: Side, in pixels of the sheet, of one pixel of a picture.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: The columns differ in number or size.
    """
    shapes = {name: np.shape(images) for name, images in columns.items()}
    if len({shape[:3] for shape in shapes.values()}) != 1:
        raise ValueError(f"All columns of a sheet must have one shape, not {shapes}.")
    count, height, width = (side * factor for side, factor in zip(next(iter(shapes.values())), (1, scale, scale)))
    sheet = Image.new(
        "RGB", (len(columns) * (width + _MARGIN) + _MARGIN, _HEADING + count * (height + _MARGIN)), "white"
    )
    draw, font = ImageDraw.Draw(sheet), _heading_font(columns, width)
    for column, (name, images) in enumerate(columns.items()):
        left = _MARGIN + column * (width + _MARGIN)
        draw.text((left + width / 2, _HEADING / 2), name, fill="black", font=font, anchor="mm")
        for row, image in enumerate(np.asarray(images)):
            picture = Image.fromarray(_to_bytes(image)).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(picture, (left, _HEADING + row * (height + _MARGIN)))
    return np.asarray(sheet)


def network_input(
    images: np.ndarray, masks: np.ndarray, colour: np.ndarray, sketches: np.ndarray | None = None
) -> np.ndarray:
    """The input of a generator as pictures: holes in one colour, with the lines of the sketches in white.

    Args:
        images: [N, H, W, 3], uint8, or float in [0, 1].
        masks: bool [N, H, W], True = missing.
        colour: [3], colour of the holes, of the images' type.
        sketches: bool [N, H, W], True = line.

    Returns:
        Pictures of the images' shape and type.
    """
    images = np.where(masks[..., None], colour, images)
    if sketches is None:
        return images
    white = images.dtype.type(255 if images.dtype == np.uint8 else 1)
    return np.where((masks & sketches)[..., None], white, images)


def _heading_font(headings: Iterable[str], width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The largest in which all headings fit over their columns; 8 px can be read, if only just."""
    for size in range(14, 8, -1):
        font = ImageFont.load_default(size=size)
        if max(font.getlength(heading) for heading in headings) <= width:
            return font
    return ImageFont.load_default(size=8)


def _to_bytes(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
