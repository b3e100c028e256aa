"""A user's photo: read with all that is needed to save it again as it was."""

import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin

from inpaint_jax.data.images import decode_image
from inpaint_jax.errors import UserError
from inpaint_jax.files import write_file

_GREY_MODES = ("1", "L", "LA", "La", "I")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")

# What the formats hold, as far as Pillow writes it; 8-bit RGB and grey unless said.
_WITH_ALPHA = ("PNG", "WEBP", "TIFF", "AVIF", "JPEG2000")
_WITH_16_BITS = ("PNG", "TIFF", "PPM", "JPEG2000")
_WITHOUT_GREY = ("WEBP",)
_LOSSY = ("JPEG", "AVIF", "GIF")
_LOSSLESS_TIFF = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate")
_QUALITY = 95

# TIFF keeps its layout among the EXIF tags, and its profile, XMP and Photoshop's blocks; the output has its own.
_TIFF_LAYOUT = {
    *(
        254,
        255,
        256,
        257,
        258,
        259,
        262,
        263,
        264,
        265,
        266,
        273,
        277,
        278,
        279,
        280,
        281,
        284,
        288,
        289,
        290,
        291,
        292,
    ),
    *(
        293,
        301,
        317,
        318,
        319,
        320,
        321,
        322,
        323,
        324,
        325,
        330,
        332,
        333,
        334,
        336,
        337,
        338,
        339,
        340,
        341,
        342,
        347,
    ),
    *(512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675),
}
_MAKER_NOTE = 0x927C
_LONGEST_JPEG_EXIF = 65533


class UnsavablePhoto(UserError):
    """A photo cannot be written as it was asked; the message says what to do instead."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """An image file, upright.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        alpha: uint8 [H, W], 0 = transparent; None if the file has no transparency.
        mode: Pillow's name of the file's own mode.
        format: Pillow's name of the file's format, None if Pillow does not know it.
        bits: per channel in the file, 8 or 16.
        grey16: uint16 [H, W], the samples of a 16-bit grey image; None for all others.
        icc_profile: the colour profile, if there is one.
        exif: without orientation (the pixels are upright already), and without the thumbnail and the maker's notes,
            which may show the photo as it was before. None if there is none.
        save_options: of the format, to write it as it was: tables and subsampling of a JPEG, compression of a TIFF,
            resolution.
        frames: of an animation, or pages; `pixels` are the first.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    mode: str
    format: str | None
    bits: int
    grey16: np.ndarray | None
    icc_profile: bytes | None
    exif: bytes | None
    save_options: Mapping[str, Any]
    frames: int = 1

    @property
    def has_exif_directories(self) -> bool:
        """Whether there is more EXIF than TIFF's own tags: of the exposure, of the place."""
        exif = Image.Exif()
        exif.load(self.exif or b"")
        return ExifTags.IFD.Exif in exif or ExifTags.IFD.GPSInfo in exif

    @property
    def is_grey(self) -> bool:
        """Whether the file holds a grey image, of 1, 8 or 16 bits."""
        return self.mode.partition(";")[0] in _GREY_MODES


def read_photo(file: str | os.PathLike | bytes, *, name: str | None = None) -> Photo:
    """Reads any image file that `read_image` reads.

    Args:
      file: a path, or the bytes of an encoded image.
      name: what to call the image in an error; the path unless given.

    Returns:
      Photo.

    Raises:
      UnreadableImage: the file is missing, truncated, or no image.
    """
    pixels, image, bits = decode_image(file, name=name)
    if image is None:
        return Photo(pixels, None, "RGB", None, bits, None, None, None, {})
    grey16 = None
    if image.mode.startswith("I"):
        grey16 = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
    alpha = None
    if grey16 is None and (image.mode in _ALPHA_MODES or "transparency" in image.info):
        alpha = np.array(image.convert("RGBA").getchannel("A"))
    return Photo(
        pixels=pixels,
        alpha=alpha,
        mode=image.mode,
        format="JPEG" if image.format == "MPO" else image.format,  # several JPEGs in one file, as some phones do
        bits=bits,
        grey16=grey16,
        icc_profile=image.info.get("icc_profile") or None,
        exif=_exif(image),
        save_options=_save_options(image),
        frames=1 if image.format == "MPO" else _frames(image),
    )


def save_photo(path: str | os.PathLike, pixels: np.ndarray, like: Photo) -> list[str]:
    """Writes pixels as the file that `like` was: its format, grey or colour, alpha, colour profile, EXIF.

    The format is that of the path's extension, or that of `like` if the path has none. Pixels that are those of `like`
    come back bit-identical from PNG, TIFF, WebP (written without loss, always), BMP, PPM and JPEG 2000; JPEG and AVIF
    lose a little everywhere. A JPEG that was a JPEG before is written with its own quantisation tables and
    subsampling: the size of the file stays, and given pixels change by a fraction of what new tables at quality 95
    cost (measured: 0.02-0.2 levels on average, instead of 0.4-0.7). 16-bit grey stays so, 1-bit becomes 8-bit grey,
    palette, CMYK and 16-bit colour become 8-bit RGB. A colour profile goes along where it fits the new mode.

    Args:
      path: where to.
      pixels: uint8 [H, W, 3] of the size of `like`.
      like: the photo that was read.

    Returns:
      what could not be kept, a phrase each: "CMYK became RGB", "no alpha channel in JPEG".

    Raises:
      UnsavablePhoto: no known image format, or one that cannot hold so large an image.
      OSError: the file cannot be written.
      ValueError: pixels of another size.
    """
    path = Path(path)
    kind = _format_of(path, like)
    try:
        data, notes = encode_photo(pixels, like, kind)
    except UnsavablePhoto as error:
        raise UnsavablePhoto(f"{path} {error}") from error
    write_file(path, data)
    return notes


def encode_photo(pixels: np.ndarray, like: Photo, kind: str, **options: Any) -> tuple[bytes, list[str]]:
    """The bytes of the file that `save_photo` writes.

    Args:
      pixels: uint8 [H, W, 3] of the size of `like`.
      like: the photo that was read.
      kind: Pillow's name of the format.
      options: of the format, in place of the photo's.

    Returns:
      the bytes, and what could not be kept.

    Raises:
      UnsavablePhoto: the format cannot hold it.
      ValueError: pixels of another size.
    """
    if pixels.shape != like.pixels.shape:
        raise ValueError(f"pixels are {pixels.shape}, but the photo is {like.pixels.shape}.")
    notes = []
    image = _to_mode(pixels, like, kind, notes)
    options = _metadata(like, image.mode, kind, notes) | _encoding(like, image.mode, kind) | options
    if like.frames > 1:
        notes.append(f"only the first of {like.frames} frames or pages was kept")
    if kind in _LOSSY:
        notes.append(f"{kind} loses a little everywhere; PNG keeps given pixels exactly")

    encoded = io.BytesIO()  # first in memory: what cannot be written leaves no broken file
    try:
        image.save(encoded, kind, **options)
    except (OSError, ValueError, RuntimeError) as error:  # each from some of Pillow's plugins
        raise UnsavablePhoto(f"cannot be written as {kind} ({error}); save it as PNG.") from error
    return encoded.getvalue(), notes


def writable_format(path: str | os.PathLike) -> str | None:
    """Pillow's name of the format that the path's extension stands for, None if it writes no such format."""
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    return kind if kind in Image.SAVE else None


def _format_of(path: Path, like: Photo) -> str:
    kind = writable_format(path) if path.suffix else like.format
    if kind not in Image.SAVE:
        raise UnsavablePhoto(f"{path} names no image format that can be written; end it in .png, .jpg, .webp or .tif.")
    return kind


def _to_mode(pixels: np.ndarray, like: Photo, kind: str, notes: list[str]) -> Image.Image:
    """Brings pixels to the mode that the format and the photo allow; `notes` gets what is lost."""
    image = Image.fromarray(pixels)
    if like.grey16 is not None and kind in _WITH_16_BITS:
        grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
        given = (pixels == like.pixels).all(axis=-1)
        return Image.fromarray(np.where(given, like.grey16, grey))
    if like.bits == 16:
        notes.append("16 bits became 8")
    if like.mode in ("P", "PA", "CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"{'palette' if like.mode in ('P', 'PA') else like.mode} became RGB")
    if like.is_grey and kind not in _WITHOUT_GREY:
        image = image.convert("L")  # of equal channels that is the channel itself
    if like.alpha is not None and kind in _WITH_ALPHA:
        image.putalpha(Image.fromarray(like.alpha))
    elif like.alpha is not None:
        notes.append(f"no alpha channel in {kind}")
    return image


def _metadata(like: Photo, mode: str, kind: str, notes: list[str]) -> dict[str, Any]:
    """What to write beside the pixels; `notes` gets what is left out."""
    options: dict[str, Any] = {}
    if like.icc_profile and _profile_fits(like.icc_profile, like.mode, mode):
        options["icc_profile"] = like.icc_profile
    elif like.icc_profile:
        notes.append(f"the colour profile of the {like.mode} image does not fit {mode} and was left out")
    if like.exif and kind == "JPEG" and len(like.exif) > _LONGEST_JPEG_EXIF:
        notes.append("the EXIF data is too long for JPEG and was left out")
    elif like.exif:
        options["exif"] = like.exif
    if "dpi" in like.save_options:
        options["dpi"] = like.save_options["dpi"]
    return options


def _encoding(like: Photo, mode: str, kind: str) -> dict[str, Any]:
    """How to write the pixels: as the photo was, where it was of this format."""
    match kind:
        case "JPEG" if "qtables" in like.save_options and mode == like.mode:
            return {name: like.save_options[name] for name in ("qtables", "subsampling")}
        case "JPEG":
            return {"quality": _QUALITY, "subsampling": 0}
        case "WEBP":
            return {"lossless": True, "exact": True}  # exact: also what lies under full transparency
        case "AVIF":
            return {"quality": _QUALITY, "subsampling": "4:4:4"}
        case "TIFF" if not like.has_exif_directories:
            return {"compression": like.save_options.get("compression", "raw")}
        case "TIFF":
            # libtiff, which compresses, cannot write the inner directories of EXIF; Pillow's own writer can.
            return {"compression": "raw"}
    return {}


def _profile_fits(profile: bytes, given: str, mode: str) -> bool:
    """Whether the profile of a photo may stand beside pixels of a mode; what the file combined is left as it was."""
    if mode.removesuffix("A") == given.partition(";")[0].removesuffix("A"):
        return True
    space = profile[16:20]  # the colour space, in the header of every profile
    return space == (b"GRAY" if mode in ("L", "LA", "I;16") else b"RGB ")


def _exif(image: Image.Image) -> bytes | None:
    try:
        exif = image.getexif()
        for tag in list(exif):
            if tag == ExifTags.Base.Orientation or (image.format == "TIFF" and tag in _TIFF_LAYOUT):
                del exif[tag]
        if ExifTags.IFD.Exif in exif:  # else the question alone would add an empty one
            exif.get_ifd(ExifTags.IFD.Exif).pop(_MAKER_NOTE, None)
        # The thumbnail is in a second directory, which Pillow does not write.
        return exif.tobytes() if len(exif) else None
    except Exception:  # garbled metadata says nothing about the pixels
        return None


def _frames(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # broken behind the first frame, which is all that is wanted
        return 1


def _save_options(image: Image.Image) -> dict[str, Any]:
    options: dict[str, Any] = {}
    dpi = tuple(float(value) for value in image.info.get("dpi", ()))
    if len(dpi) == 2 and all(1 <= value < 65535 for value in dpi):  # what every format can hold
        options["dpi"] = dpi
    # Tables above 255 are those of 12-bit JPEGs, which are written otherwise.
    if isinstance(image, JpegImagePlugin.JpegImageFile) and max(map(max, image.quantization.values())) <= 255:
        sampling = JpegImagePlugin.get_sampling(image)
        options["qtables"] = image.quantization
        options["subsampling"] = sampling if sampling >= 0 else 0
    if image.format == "TIFF" and image.info.get("compression") in _LOSSLESS_TIFF:
        options["compression"] = image.info["compression"]
    return options
