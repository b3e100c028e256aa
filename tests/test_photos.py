"""Photos read and saved again: every mode and format, colour profiles, EXIF, given pixels."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin
from skimage import data

from inpaint_jax.data.images import UnreadableImage, read_image
from inpaint_jax.inference.photos import UnsavablePhoto, read_photo, save_photo, writable_format

PHOTO = Image.fromarray(data.astronaut()[:90, 180:300])  # 120 x 90
ALPHA = Image.fromarray(np.tile(np.linspace(0, 255, 120).round().astype(np.uint8), (90, 1)))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]
CMYK_PROFILE = SRGB[:16] + b"CMYK" + SRGB[20:]

LOSSLESS = {"PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "PPM": ".ppm", "JPEG2000": ".jp2"}


def grey16():
    return Image.fromarray(np.asarray(PHOTO.convert("L")).astype(np.uint16) * 257 + np.arange(120, dtype=np.uint16))


def palette(transparent=None):
    image = PHOTO.quantize(64)
    if transparent is not None:
        image.info["transparency"] = transparent
    return image


def with_alpha(mode):
    image = PHOTO.convert(mode)
    image.putalpha(ALPHA)
    return image


IMAGES = {
    "1": PHOTO.convert("1"),
    "L": PHOTO.convert("L"),
    "LA": with_alpha("L"),
    "P": palette(),
    "P+transparency": palette(3),
    "RGB": PHOTO,
    "RGBA": with_alpha("RGB"),
    "CMYK": PHOTO.convert("CMYK"),
    "I;16": grey16(),
}


def write(path, image, **options):
    image.save(path, **options)
    return path


def painted(photo):
    """The photo with noise in a rectangle, and that rectangle."""
    hole = np.zeros(photo.pixels.shape[:2], bool)
    hole[20:50, 30:80] = True
    noise = np.random.default_rng(0).integers(0, 256, photo.pixels.shape, dtype=np.uint8)
    return np.where(hole[..., None], noise, photo.pixels), hole


@pytest.mark.parametrize(
    ("kind", "extension", "mode", "notes"),
    [
        ("1", ".png", "L", []),
        ("L", ".png", "L", []),
        ("L", ".tif", "L", []),
        ("L", ".bmp", "L", []),
        ("L", ".webp", "RGB", []),  # WebP knows no grey
        ("LA", ".png", "LA", []),
        ("P", ".png", "RGB", ["palette became RGB"]),
        ("P+transparency", ".png", "RGBA", ["palette became RGB"]),
        ("RGB", ".png", "RGB", []),
        ("RGB", ".tif", "RGB", []),
        ("RGB", ".webp", "RGB", []),
        ("RGB", ".bmp", "RGB", []),
        ("RGB", ".ppm", "RGB", []),
        ("RGB", ".jp2", "RGB", []),
        ("RGBA", ".png", "RGBA", []),
        ("RGBA", ".tif", "RGBA", []),
        ("RGBA", ".webp", "RGBA", []),
        ("CMYK", ".tif", "RGB", ["CMYK became RGB"]),
        ("I;16", ".png", "I;16", []),
        ("I;16", ".tif", "I;16", []),
    ],
)
def test_given_pixels_are_bit_identical_in_every_mode(kind, extension, mode, notes, tmp_path):
    path = write(tmp_path / f"in{extension}", IMAGES[kind], **({"lossless": True} if extension == ".webp" else {}))
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, read_image(path))
    pixels, hole = painted(photo)
    assert save_photo(tmp_path / f"out{extension}", pixels, photo) == notes

    with Image.open(tmp_path / f"out{extension}") as saved, Image.open(path) as original:
        assert (saved.format, saved.mode, saved.size) == (original.format, mode, original.size)
        if mode == original.mode or mode in ("RGB", "RGBA"):
            before, after = (
                np.asarray(image if mode == "I;16" else image.convert(mode)) for image in (original, saved)
            )
            np.testing.assert_array_equal(after[~hole], before[~hole])
    after = read_image(tmp_path / f"out{extension}")
    np.testing.assert_array_equal(after[~hole], photo.pixels[~hole])
    if photo.is_grey:
        luminance = np.asarray(Image.fromarray(pixels).convert("L"))
        np.testing.assert_array_equal(after[..., 0][hole], luminance[hole])
    else:
        np.testing.assert_array_equal(after[hole], pixels[hole])
    again = read_photo(tmp_path / f"out{extension}")
    np.testing.assert_array_equal(again.alpha, photo.alpha)


@pytest.mark.parametrize("height", [1, 3])
def test_a_photo_of_a_pixel(height, tmp_path):
    photo = read_photo(write(tmp_path / "in.png", PHOTO.crop((0, 0, 1, height))))
    assert photo.pixels.shape == (height, 1, 3)
    save_photo(tmp_path / "out.png", photo.pixels, photo)
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), photo.pixels)


def test_alpha_is_read_wherever_it_is(tmp_path):
    for kind, extension in (("LA", "png"), ("RGBA", "png"), ("RGBA", "tif"), ("RGBA", "webp")):
        photo = read_photo(write(tmp_path / f"in.{extension}", IMAGES[kind], **{"lossless": True, "exact": True}))
        np.testing.assert_array_equal(photo.alpha, ALPHA)
    transparent = np.asarray(IMAGES["P"]) == 3
    photo = read_photo(write(tmp_path / "in.png", IMAGES["P"], transparency=3))
    np.testing.assert_array_equal(photo.alpha, np.where(transparent, 0, 255))
    assert read_photo(write(tmp_path / "in.png", PHOTO)).alpha is None


def test_webp_keeps_what_lies_under_full_transparency(tmp_path):
    photo = read_photo(write(tmp_path / "in.png", IMAGES["RGBA"]))
    save_photo(tmp_path / "out.webp", photo.pixels, photo)
    np.testing.assert_array_equal(read_photo(tmp_path / "out.webp").pixels, photo.pixels)


# JPEG.


@pytest.mark.parametrize(("quality", "subsampling"), [(60, 2), (85, 1), (95, 0)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_keeps_its_tables_and_loses_next_to_nothing(mode, quality, subsampling, tmp_path):
    path = write(tmp_path / "in.jpg", PHOTO.convert(mode), quality=quality, subsampling=subsampling)
    photo = read_photo(path)
    pixels, hole = painted(photo)
    notes = save_photo(tmp_path / "out.jpg", pixels, photo)
    assert notes == ["JPEG loses a little everywhere; PNG keeps given pixels exactly"]
    with Image.open(path) as before, Image.open(tmp_path / "out.jpg") as after:
        assert after.mode == mode
        assert after.quantization == before.quantization
        assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before)
    far = ~hole
    far[4:66, 14:96] = False  # whole blocks of 16 pixels share a hole
    difference = np.abs(read_image(tmp_path / "out.jpg").astype(int) - photo.pixels)
    assert difference[far].mean() < 0.3


def test_another_format_becomes_a_good_jpeg(tmp_path):
    photo = read_photo(write(tmp_path / "in.png", IMAGES["RGBA"]))
    notes = save_photo(tmp_path / "out.JPEG", photo.pixels, photo)
    assert "no alpha channel in JPEG" in notes
    assert np.abs(read_image(tmp_path / "out.JPEG").astype(int) - photo.pixels).mean() < 2.5


def test_cmyk_jpeg_becomes_rgb_without_its_profile(tmp_path):
    photo = read_photo(write(tmp_path / "in.jpg", IMAGES["CMYK"], quality=95, icc_profile=CMYK_PROFILE))
    assert (photo.mode, photo.icc_profile) == ("CMYK", CMYK_PROFILE)
    notes = save_photo(tmp_path / "out.jpg", photo.pixels, photo)
    assert "CMYK became RGB" in notes
    assert "the colour profile of the CMYK image does not fit RGB and was left out" in notes
    with Image.open(tmp_path / "out.jpg") as saved:
        assert saved.mode == "RGB"
        assert "icc_profile" not in saved.info
    assert np.abs(read_image(tmp_path / "out.jpg").astype(int) - photo.pixels).mean() < 2


# What stands beside the pixels.


@pytest.mark.parametrize("target", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("source", [".jpg", ".png", ".webp", ".tif"])
def test_profile_exif_and_resolution_go_along_and_orientation_does_not(source, target, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    exif.get_ifd(0x8769)[0x829A] = 0.5  # exposure time
    exif.get_ifd(0x8769)[0x927C] = b"maker's note with a preview"
    exif.get_ifd(0x8825)[1] = "N"  # GPS
    path = tmp_path / f"in{source}"
    # As bytes: TIFF drops the inner directories of an Exif object.
    turned = PHOTO.transpose(Image.Transpose.ROTATE_90)
    write(path, turned, exif=exif.tobytes(), icc_profile=SRGB, dpi=(300, 300))
    photo = read_photo(path)
    assert photo.pixels.shape == (90, 120, 3)
    assert np.abs(photo.pixels.astype(int) - np.asarray(PHOTO)).mean() < 12  # upright, or far off
    save_photo(tmp_path / f"out{target}", photo.pixels, photo)

    with Image.open(tmp_path / f"out{target}") as saved:
        assert saved.size == (120, 90)
        assert saved.info["icc_profile"] == SRGB
        if target != ".webp" and source != ".webp":
            assert saved.info["dpi"] == pytest.approx((300, 300), abs=0.01)
        tags = saved.getexif()
        assert 0x0112 not in tags
        assert tags[0x010F] == "Camera"
        assert dict(tags.get_ifd(0x8769)) == {0x829A: 0.5}
        assert dict(tags.get_ifd(0x8825)) == {1: "N"}
    difference = np.abs(read_image(tmp_path / f"out{target}").astype(int) - photo.pixels)
    assert difference.max() == 0 or target == ".jpg"


def test_a_thumbnail_of_the_photo_as_it_was_is_left_out(tmp_path):
    photo = read_photo(write(tmp_path / "in.jpg", PHOTO, exif=exif_with_thumbnail()))
    assert Image.open(tmp_path / "in.jpg").getexif().get_ifd(ExifTags.IFD.IFD1)  # it is there
    save_photo(tmp_path / "out.jpg", photo.pixels, photo)
    tags = Image.open(tmp_path / "out.jpg").getexif()
    assert tags[0x010F] == "C"
    assert not tags.get_ifd(ExifTags.IFD.IFD1)
    assert THUMBNAIL not in (tmp_path / "out.jpg").read_bytes()


THUMBNAIL = b"\xff\xd8 the photo as it was \xff\xd9"


def exif_with_thumbnail():
    """Two directories by hand: the maker "C", and a thumbnail."""

    def directory(*entries, following=0):
        packed = b"".join(
            tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little") + value
            for tag, kind, count, value in entries
        )
        return len(entries).to_bytes(2, "little") + packed + following.to_bytes(4, "little")

    first = directory((0x010F, 2, 2, b"C\0\0\0"), following=8 + 18)
    where, length = (8 + 18 + 30).to_bytes(4, "little"), len(THUMBNAIL).to_bytes(4, "little")
    second = directory((0x0201, 4, 1, where), (0x0202, 4, 1, length))
    return b"Exif\0\0II*\0" + (8).to_bytes(4, "little") + first + second + THUMBNAIL


def test_a_compressed_tiff_stays_compressed(tmp_path):
    photo = read_photo(write(tmp_path / "in.tif", PHOTO, compression="tiff_lzw", software="Scanner"))
    save_photo(tmp_path / "out.tif", photo.pixels, photo)
    with Image.open(tmp_path / "out.tif") as saved:
        assert saved.info["compression"] == "tiff_lzw"
        assert saved.getexif()[305] == "Scanner"

    # Pillow cannot write EXIF's inner directories into a compressed TIFF: they matter more than its size.
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x829A] = 0.5
    compressed = dataclasses.replace(photo, exif=exif.tobytes())
    save_photo(tmp_path / "out.tif", photo.pixels, compressed)
    with Image.open(tmp_path / "out.tif") as saved:
        assert dict(saved.getexif().get_ifd(0x8769)) == {0x829A: 0.5}


@pytest.mark.parametrize(
    ("kind", "extension", "profile", "kept"),
    [
        ("L", ".png", GREY_PROFILE, True),
        ("L", ".webp", GREY_PROFILE, False),  # becomes RGB
        ("I;16", ".png", GREY_PROFILE, True),
        ("P", ".png", SRGB, True),
        ("CMYK", ".png", CMYK_PROFILE, False),
    ],
)
def test_a_profile_goes_along_where_it_fits(kind, extension, profile, kept, tmp_path):
    photo = read_photo(write(tmp_path / "in.tif", IMAGES[kind], icc_profile=profile))
    notes = save_photo(tmp_path / f"out{extension}", photo.pixels, photo)
    with Image.open(tmp_path / f"out{extension}") as saved:
        assert (saved.info.get("icc_profile") == profile) is kept
    assert any("colour profile" in note for note in notes) is not kept


def test_garbled_exif_is_left_out(tmp_path):
    photo = read_photo(write(tmp_path / "in.png", PHOTO, exif=b"Exif\0\0garbage"))
    assert photo.exif is None
    save_photo(tmp_path / "out.png", photo.pixels, photo)


def test_exif_too_long_for_jpeg_is_left_out(tmp_path):
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000
    photo = read_photo(write(tmp_path / "in.png", PHOTO, exif=exif))
    assert "the EXIF data is too long for JPEG and was left out" in save_photo(tmp_path / "a.jpg", photo.pixels, photo)
    assert not any("EXIF" in note for note in save_photo(tmp_path / "a.png", photo.pixels, photo))


# 16 bits, and what cannot be kept.


def test_16_bits_survive_where_the_format_has_them(tmp_path):
    photo = read_photo(write(tmp_path / "in.png", grey16()))
    pixels, hole = painted(photo)
    assert save_photo(tmp_path / "out.jpg", pixels, photo)[0] == "16 bits became 8"
    assert save_photo(tmp_path / "out.tif", pixels, photo) == []
    saved = np.asarray(Image.open(tmp_path / "out.tif"))
    np.testing.assert_array_equal(saved[~hole], np.asarray(grey16())[~hole])
    np.testing.assert_array_equal(saved[hole], 257 * np.asarray(Image.fromarray(pixels).convert("L"))[hole].astype(int))


def test_16_bit_colour_is_said_to_become_8_bits(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "in.png"), np.asarray(PHOTO).astype(np.uint16)[..., ::-1] * 257)
    photo = read_photo(tmp_path / "in.png")
    np.testing.assert_array_equal(photo.pixels, np.asarray(PHOTO))
    assert save_photo(tmp_path / "out.png", photo.pixels, photo) == ["16 bits became 8"]


def test_what_only_opencv_reads_can_be_saved_as_something_else(tmp_path):
    import cv2

    cv2.imwrite(str(tmp_path / "in.pam"), np.asarray(PHOTO)[..., ::-1])
    photo = read_photo(tmp_path / "in.pam")
    save_photo(tmp_path / "out.png", photo.pixels, photo)
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), np.asarray(PHOTO))
    with pytest.raises(UnsavablePhoto, match=r"end it in .png"):
        save_photo(tmp_path / "out", photo.pixels, photo)


def test_without_an_extension_the_format_stays(tmp_path):
    photo = read_photo(write(tmp_path / "in.webp", PHOTO))
    save_photo(tmp_path / "out", photo.pixels, photo)
    assert Image.open(tmp_path / "out").format == "WEBP"


def test_what_cannot_be_saved_gets_a_sentence_and_leaves_no_file(tmp_path):
    photo = read_photo(write(tmp_path / "in.png", PHOTO))
    with pytest.raises(UnsavablePhoto, match=r"out.xyz names no image format that can be written; end it in .png"):
        save_photo(tmp_path / "out.xyz", photo.pixels, photo)
    wide = read_photo(write(tmp_path / "in.png", PHOTO.resize((17_000, 1))))
    with pytest.raises(UnsavablePhoto, match=r"out.webp cannot be written as WEBP .*; save it as PNG"):
        save_photo(tmp_path / "out.webp", wide.pixels, wide)
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
    with pytest.raises(ValueError, match="pixels are"):
        save_photo(tmp_path / "out.png", photo.pixels[1:], photo)


def test_unreadable_photos_are_named(tmp_path):
    buffer = io.BytesIO()
    PHOTO.save(buffer, "JPEG")
    (tmp_path / "short.jpg").write_bytes(buffer.getvalue()[:800])
    with pytest.raises(UnreadableImage, match=r"short.jpg cannot be read as an image: .*truncated"):
        read_photo(tmp_path / "short.jpg")


def test_writable_formats():
    assert [writable_format(f"a{extension.upper()}") for extension in LOSSLESS.values()] == list(LOSSLESS)
    assert writable_format("a.psd") is None
    assert writable_format("a") is None


def test_further_frames_are_missed(tmp_path):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 20, 30)]
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    photo = read_photo(tmp_path / "pages.tif")
    assert (photo.pixels == 10).all()
    assert "only the first of 3 frames or pages was kept" in save_photo(tmp_path / "one.tif", photo.pixels, photo)
