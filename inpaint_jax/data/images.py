"""Reading any image file as upright 8-bit RGB, and bringing it to a square."""

import contextlib
import io
import os
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from inpaint_jax.errors import UserError

Resize = Literal["shortest", "stretch"]
Crop = Literal["random", "center"]


class UnreadableImage(UserError):
    """An image that cannot be decoded; `name` says which and `reason` why."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # both as args, so that the exception survives pickling between processes
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        """One sentence."""
        return f"{self.name} cannot be read as an image: {self.reason}."


class DecodedImage(NamedTuple):
    """An image file in memory.

    pixels: uint8 [H, W, 3], upright RGB. image: as Pillow sees it, loaded and upright, in its own mode and with its
    metadata; None if OpenCV decoded it. bits: 8 or 16 per channel in the file.
    """

    pixels: np.ndarray
    image: Image.Image | None
    bits: int


def read_image(file: str | os.PathLike | bytes, *, name: str | None = None) -> np.ndarray:
    """Decodes an image file to upright RGB.

    Grey, palette, 1-bit, CMYK and 16-bit images are converted (16 bits are scaled to 8, not clipped), an alpha channel
    is dropped, the EXIF orientation is applied, and of several frames the first is taken. Pillow decodes; OpenCV steps
    in for what Pillow does not know.

    Args:
      file: a path, or the bytes of an encoded image.
      name: what to call the image in an error; the path unless given.

    Returns:
      uint8 [H, W, 3].

    Raises:
      UnreadableImage: the file is missing, truncated, or no image.
    """
    return decode_image(file, name=name).pixels


def decode_image(file: str | os.PathLike | bytes, *, name: str | None = None) -> DecodedImage:
    """Decodes an image file as `read_image` does, and hands back what else is in it; same arguments and errors."""
    name = name or ("image bytes" if isinstance(file, bytes) else os.fspath(file))
    try:
        data = file if isinstance(file, bytes) else Path(file).read_bytes()
        if not data:
            raise ValueError("the file is empty")
        return _decode_with_pillow(data)
    except UnidentifiedImageError:
        return _decode_with_opencv(data, name)
    except Exception as error:  # broken files make Pillow's plugins raise nearly anything
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImage(name, reason.rstrip(". ")) from error


def _decode_with_pillow(data: bytes) -> DecodedImage:
    with Image.open(io.BytesIO(data)) as image:
        bits = 16 if ";16" in str([tile.args for tile in image.tile]) else 8  # in the file: "RGB;16B" loads as RGB
        image.load()
        with contextlib.suppress(Exception):  # garbled metadata says nothing about the pixels
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip
            return DecodedImage(cv2.cvtColor(to_8_bits(np.asarray(image)), cv2.COLOR_GRAY2RGB), image, 16)
        if image.mode == "F":
            raise ValueError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
        # RGBA resolves a palette's transparency, which RGB alone would warn about.
        rgb = image.convert("RGBA") if "transparency" in image.info else image
        return DecodedImage(np.array(rgb.convert("RGB")), image, bits)


def _decode_with_opencv(data: bytes, name: str) -> DecodedImage:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise UnreadableImage(name, error.err) from error
    if image is None:
        raise UnreadableImage(name, "its content is no known image format")
    if image.dtype.kind == "f":
        raise UnreadableImage(name, "floating-point pixels have no agreed range; save it with 8 or 16 bits")
    return DecodedImage(cv2.cvtColor(to_8_bits(image), cv2.COLOR_BGR2RGB), None, 8 * image.dtype.itemsize)


def to_8_bits(image: np.ndarray) -> np.ndarray:
    """Scales 16-bit values to 8 bits with rounding (65535 = 255 * 257); leaves 8-bit values alone."""
    if image.dtype == np.uint8:
        return image
    return ((np.clip(image, 0, 65535).astype(np.uint32) + 128) // 257).astype(np.uint8)


def resize_and_crop(
    image: np.ndarray,
    size: int,
    *,
    resize: Resize = "shortest",
    crop: Crop = "center",
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Brings a photo to size x size.

    The rule: `resize="shortest"` scales both sides by the same factor until the shortest one is `size`, then cuts a
    square out of the longer one, in the middle (`crop="center"`) or anywhere (`crop="random"`). `resize="stretch"`
    scales each side to `size` on its own, as the paper does; nothing is left to crop. Scaling averages over areas
    where the photo shrinks (INTER_AREA), and is bicubic where a side grows.

    Args:
      image: uint8 [H, W, 3].
      size: side of the result.
      resize: "shortest" or "stretch".
      crop: "random" or "center".
      rng: source of randomness for `crop="random"`; two integers are drawn, whatever the shape.

    Returns:
      uint8 [size, size, 3].

    Raises:
      ValueError: an unknown rule, or a random crop without rng.
    """
    image = resize_only(image, size, resize)
    return cut_square(image, size, crop_corner(image.shape[:2], size, crop, rng))


def crop_corner(
    shape: tuple[int, int], size: int, crop: Crop = "center", rng: np.random.Generator | None = None
) -> tuple[int, int]:
    """Where `resize_and_crop` cuts: top and left of a square in an image of that shape, [h, w], after its resize.

    Args:
      shape: h and w, at least `size`.
      size: side of the square.
      crop: "random" or "center".
      rng: as for `resize_and_crop`.

    Raises:
      ValueError: an unknown rule, or a random crop without rng.
    """
    spare = np.array(shape) - size
    if crop == "center":
        top, left = spare // 2
    elif crop == "random":
        if rng is None:
            raise ValueError('crop is "random" but rng is None; pass a numpy Generator.')
        top, left = rng.integers(spare + 1)
    else:
        raise ValueError(f'crop is {crop!r}; use "random" or "center".')
    return int(top), int(left)


def cut_square(image: np.ndarray, size: int, corner: tuple[int, int]) -> np.ndarray:
    """[h, w] or [h, w, 3] -> [size, size] or [size, size, 3], a copy, from the corner (top, left) on."""
    top, left = corner
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def resize_only(image: np.ndarray, size: int, resize: Resize = "shortest") -> np.ndarray:
    """The first half of `resize_and_crop`, for what is to be cropped later: same rule, no crop.

    Args:
      image: uint8 [H, W, 3].
      size: of the shortest side, or of both with "stretch".
      resize: "shortest" or "stretch".

    Returns:
      uint8 [h, w, 3], h and w at least `size`.

    Raises:
      ValueError: an unknown rule.
    """
    height, width = image.shape[:2]
    if resize == "stretch":
        target = (size, size)
    elif resize == "shortest":
        scale = size / min(height, width)
        target = (max(size, round(height * scale)), max(size, round(width * scale)))
    else:
        raise ValueError(f'resize is {resize!r}; use "shortest" or "stretch".')

    if target != (height, width):
        shrinks = target[0] <= height and target[1] <= width
        image = cv2.resize(image, target[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return image
