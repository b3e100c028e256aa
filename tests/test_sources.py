"""Images of every odd kind, and the three kinds of sources, on real photos."""

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import tensorflow_datasets as tfds
from PIL import Image

from inpaint_jax.data.images import UnreadableImage, read_image, resize_and_crop
from inpaint_jax.data.sources import IMAGE_EXTENSIONS, SKIMAGE_PHOTOS, open_source

PHOTO = skimage.data.chelsea()[:200, 40:340]  # 200 x 300, so that a wrong rotation shows in the shape
GREY = np.array(Image.fromarray(PHOTO).convert("L"))
PALETTE = Image.fromarray(PHOTO).quantize(64)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def encode(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(np.ascontiguousarray(image))
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_16_bits(image: np.ndarray, extension: str) -> bytes:
    """OpenCV writes 16-bit colour, which Pillow does not; 257 maps 255 to 65535."""
    bgr = image[..., ::-1] if image.ndim == 3 else image
    return cv2.imencode(extension, bgr * np.uint16(257))[1].tobytes()


def with_alpha() -> Image.Image:
    image = Image.fromarray(PHOTO).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def grey_with_alpha() -> Image.Image:
    image = Image.fromarray(GREY).convert("LA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


ONE_BIT = Image.fromarray(PHOTO).convert("1")
CMYK = Image.fromarray(PHOTO).convert("CMYK")

ODD_FILES = {  # encoded file, truth, greatest difference
    "rgb_png": (encode(PHOTO, "PNG"), PHOTO, 0),
    "rgb_webp": (encode(PHOTO, "WEBP", lossless=True), PHOTO, 0),
    "grey_png": (encode(GREY, "PNG"), rgb(GREY), 0),
    "grey_jpeg": (encode(GREY, "JPEG", quality=98), rgb(GREY), 8),
    "grey_alpha_png": (encode(grey_with_alpha(), "PNG"), rgb(GREY), 0),
    "palette_png": (encode(PALETTE, "PNG"), np.array(PALETTE.convert("RGB")), 0),
    "palette_transparent_png": (
        encode(PALETTE, "PNG", transparency=bytes([0, 90] * 32)),
        np.array(PALETTE.convert("RGB")),
        0,
    ),
    "palette_gif": (encode(PALETTE, "GIF", transparency=3), np.array(PALETTE.convert("RGB")), 0),
    "alpha_png": (encode(with_alpha(), "PNG"), PHOTO, 0),
    "cmyk_jpeg": (encode(CMYK, "JPEG", quality=98, subsampling=0), PHOTO, 12),
    "cmyk_tiff": (encode(CMYK, "TIFF"), PHOTO, 0),
    "one_bit_png": (encode(ONE_BIT, "PNG"), np.array(ONE_BIT.convert("RGB")), 0),
    "grey16_png": (encode_16_bits(GREY, ".png"), rgb(GREY), 0),
    "grey16_tiff": (encode_16_bits(GREY, ".tif"), rgb(GREY), 0),
    "grey16_pgm": (encode_16_bits(GREY, ".pgm"), rgb(GREY), 0),
    "rgb16_png": (encode_16_bits(PHOTO, ".png"), PHOTO, 0),
    "rgb16_tiff": (encode_16_bits(PHOTO, ".tif"), PHOTO, 0),
    "pam_that_only_opencv_reads": (cv2.imencode(".pam", PHOTO[..., ::-1])[1].tobytes(), PHOTO, 0),
    "garbled_exif": (encode(PHOTO, "PNG", exif=b"Exif\0\0garbage"), PHOTO, 0),
}


@pytest.mark.parametrize("kind", ODD_FILES)
@pytest.mark.filterwarnings("error")
def test_odd_files_come_out_as_rgb(kind, tmp_path):
    data, truth, tolerance = ODD_FILES[kind]
    path = tmp_path / "photo"
    path.write_bytes(data)
    for image in (read_image(data), read_image(path), read_image(str(path))):
        assert image.dtype == np.uint8
        assert image.shape == truth.shape
        assert np.abs(image.astype(int) - truth).max() <= tolerance


def test_16_bits_are_scaled_not_clipped():
    dark = np.linspace(0, 65535, 200 * 300).round().astype(np.uint16).reshape(200, 300)
    image = read_image(cv2.imencode(".png", dark)[1].tobytes())
    np.testing.assert_array_equal(image[..., 0], np.floor(dark / 257 + 0.5).astype(np.uint8))


# What a camera stores for each EXIF orientation, so that the viewer's turn brings the photo back.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(STORED[orientation](PHOTO), kind, exif=exif, **options)
    np.testing.assert_array_equal(read_image(data), PHOTO)


def test_exif_orientation_of_a_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = read_image(encode(np.rot90(PHOTO), "JPEG", exif=exif, quality=98, subsampling=0))
    assert image.shape == PHOTO.shape
    assert np.abs(image.astype(int) - PHOTO).mean() < 1


JPEG, PNG = encode(PHOTO, "JPEG"), encode(PHOTO, "PNG")
BROKEN = {
    "truncated_jpeg": (JPEG[: len(JPEG) // 2], "truncated"),
    "truncated_png": (PNG[: len(PNG) // 2], "truncated"),
    "truncated_header": (JPEG[:20], "no known image format"),
    "text": (b"<html>404 Not Found</html>", "no known image format"),
    "empty": (b"", "empty"),
    "float": (encode(GREY.astype(np.float32), "TIFF"), "floating-point"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_unreadable_files_are_named_with_a_reason(kind, tmp_path):
    data, reason = BROKEN[kind]
    path = tmp_path / "holiday.jpg"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        read_image(path)
    assert caught.value.name == str(path)
    assert str(path) in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))  # workers send it to the main process
    assert (again.name, again.reason) == (caught.value.name, caught.value.reason)


def test_a_missing_file_is_unreadable(tmp_path):
    with pytest.raises(UnreadableImage, match="No such file"):
        read_image(tmp_path / "gone.jpg")


# Resize and crop.


@pytest.mark.parametrize(("size", "interpolation"), [(128, cv2.INTER_AREA), (256, cv2.INTER_CUBIC)])
def test_shortest_side_is_resized_and_the_middle_kept(size, interpolation):
    scaled = cv2.resize(PHOTO, (size * 3 // 2, size), interpolation=interpolation)
    margin = (scaled.shape[1] - size) // 2
    expected = scaled[:, margin : margin + size]
    np.testing.assert_array_equal(resize_and_crop(PHOTO, size), expected)
    upright = resize_and_crop(np.ascontiguousarray(PHOTO.swapaxes(0, 1)), size)
    assert np.abs(upright.swapaxes(0, 1).astype(int) - expected).max() <= 1


def test_stretch_keeps_everything():
    image = resize_and_crop(PHOTO, 100, resize="stretch", crop="random", rng=np.random.default_rng(0))
    np.testing.assert_array_equal(image, cv2.resize(PHOTO, (100, 100), interpolation=cv2.INTER_AREA))


def test_random_crops_are_fixed_by_rng_and_reach_both_ends():
    def crops(seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        return [resize_and_crop(PHOTO, 200, crop="random", rng=rng) for _ in range(800)]

    first = crops(0)
    assert all((a == b).all() for a, b in zip(first, crops(0)))
    assert any((a != b).any() for a, b in zip(first, crops(1)))
    places = {PHOTO[:, left : left + 200].tobytes(): left for left in range(101)}
    drawn = [places[crop.tobytes()] for crop in first]  # each is an unscaled piece of the photo
    assert (min(drawn), max(drawn)) == (0, 100)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"resize": "longest"}, "shortest"), ({"crop": "left"}, "center"), ({"crop": "random"}, "Generator")],
)
def test_unknown_rules_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        resize_and_crop(PHOTO, 64, **options)


# Folders.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images, other files and hidden ones."""
    for name in ("b/2.png", "B.JPG", "a.jpeg", "b/10.TIF", "b-1.png", ".hidden.png", ".cache/x.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF"}.get(path.suffix.lower(), "PNG")
        path.write_bytes(encode(PHOTO, kind))
    for name in ("notes.txt", "labels.csv", ".DS_Store", "b/Thumbs.db"):
        (tmp_path / "photos" / name).write_text("not an image")
    return tmp_path / "photos"


def test_folder_is_sorted_and_names_what_it_ignores(folder, caplog):
    source = open_source(f"folder:{folder}")
    names = [source.name(i) for i in range(len(source))]
    assert names == ["B.JPG", "a.jpeg", "b-1.png", "b/10.TIF", "b/2.png"]
    assert all(source[i].shape == PHOTO.shape for i in range(len(source)))
    (record,) = caplog.records
    assert record.name == "inpaint_jax"
    assert "b/Thumbs.db, labels.csv, notes.txt" in record.message
    assert "hidden" not in record.message
    assert ".DS_Store" not in record.message


def test_at_most_five_ignored_files_are_named(folder, caplog):
    for number in range(20):
        (folder / f"extra{number:02}.log").touch()
    open_source(f"folder:{folder}")
    (record,) = caplog.records
    assert "Ignored 23 files" in record.message
    assert record.message.count(".log") == 4


def test_folder_list(folder, tmp_path):
    split = tmp_path / "split.txt"
    split.write_text("# the published split\n\nb/2.png\n  a.jpeg  \n", encoding="utf-8")
    source = open_source(f"folder:{folder}?list={split}")
    assert [source.name(i) for i in range(len(source))] == ["b/2.png", "a.jpeg"]
    np.testing.assert_array_equal(source[0], PHOTO)


def test_missing_files_of_a_list_are_named(folder, tmp_path):
    split = tmp_path / "split.txt"
    split.write_text("a.jpeg\n" + "".join(f"gone{i}.png\n" for i in range(9)))
    with pytest.raises(FileNotFoundError, match=r"9 files .*gone0.png, .*gone4.png, \.\.\.$"):
        open_source(f"folder:{folder}?list={split}")


def test_sources_are_picklable(folder):
    for source in (open_source(f"folder:{folder}"), open_source("skimage:validation")):
        again = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(again[1], source[1])
        assert again.name(1) == source.name(1)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("photos", ValueError, "no known scheme"),
        ("s3:bucket", ValueError, "no known scheme"),
        ("folder:{tmp}/nowhere", FileNotFoundError, "no folder"),
        ("folder:{tmp}", ValueError, "no image files"),
        ("folder:{tmp}?list={tmp}/gone.txt", FileNotFoundError, "no list file"),
        ("folder:{tmp}?lst=x", ValueError, "unknown option 'lst'; folder: knows list"),
        ("skimage:test", ValueError, "skimage:train or skimage:validation"),
        ("skimage:train?list=x", ValueError, "knows none"),
        ("tfds:places365_small", ValueError, "write tfds:NAME:SPLIT"),
        ("tfds:no_such_photos:train?data_dir={tmp}", ValueError, "correct its name"),
        ("tfds:places365_small:train?data_dir={tmp}", FileNotFoundError, "prepare it by: inpaint-jax prepare"),
        (
            "tfds:celeb_a_hq/256:train?data_dir={tmp}",
            FileNotFoundError,
            r"prepare 'tfds:celeb_a_hq/256\?data_dir=.*'\.",
        ),
    ],
)
def test_wrong_specs_get_a_sentence(spec, error, message, tmp_path):
    with pytest.raises(error, match=message):
        open_source(spec.format(tmp=tmp_path))


# TFDS.


class RealTinyPhotos(tfds.core.GeneratorBasedBuilder):
    """A grey, an RGB and an alpha image, from files."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(None, None, None)), "title": tfds.features.Text()}
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples("abc"), "validation": self._generate_examples("c")}

    def _generate_examples(self, names):
        for name in names:
            yield name, {"image": os.path.join(os.environ["TINY_PHOTOS"], f"{name}.png"), "title": name}


@pytest.fixture
def tfds_folder(tmp_path, monkeypatch) -> Path:
    for name, image in {"a": GREY, "b": PHOTO, "c": np.array(with_alpha())}.items():
        (tmp_path / f"{name}.png").write_bytes(encode(image, "PNG"))
    monkeypatch.setenv("TINY_PHOTOS", str(tmp_path))
    RealTinyPhotos(data_dir=tmp_path / "tfds", file_format="array_record").download_and_prepare()
    return tmp_path / "tfds"


def test_tfds_data_set_is_read_back(tfds_folder):
    source = open_source(f"tfds:real_tiny_photos:train?data_dir={tfds_folder}")
    assert len(source) == 3
    assert source.name(0) == "real_tiny_photos:train#0"
    read = sorted(source[i].tobytes() for i in range(3))  # TFDS shuffles when it prepares
    assert read == sorted([rgb(GREY).tobytes(), PHOTO.tobytes(), PHOTO.tobytes()])

    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[2], source[2])
    assert len(open_source(f"tfds:real_tiny_photos:train[:67%]?data_dir={tfds_folder}")) == 2
    assert len(open_source(f"tfds:real_tiny_photos:validation?data_dir={tfds_folder}")) == 1
    with pytest.raises(ValueError, match="no split 'test'; it has train, validation"):
        open_source(f"tfds:real_tiny_photos:test?data_dir={tfds_folder}")


def test_reading_imports_neither_tensorflow_nor_jax(tfds_folder):
    script = f"""
import sys
sys.modules["jax"] = sys.modules["flax"] = None  # grain imports jax where it finds it; nothing here may need it
from inpaint_jax.data import images, masks, pipeline, sources
photo = sources.open_source("tfds:real_tiny_photos:train?data_dir={tfds_folder}")[0]
assert photo.shape == (200, 300, 3)
sources.open_source("skimage:validation")[0]
print([name for name in ("jax", "flax", "tensorflow", "ml_collections") if sys.modules.get(name)])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# scikit-image.


def test_skimage_splits_share_no_photo():
    photos = {}
    for split in ("train", "validation"):
        source = open_source(f"skimage:{split}")
        shapes = {source[i].shape for i in range(len(source))}
        assert shapes == {(side, side, 3) for side in ((128, 181, 256) if split == "train" else (256,))}
        photos[split] = {source.name(i).split("@")[0] for i in range(len(source))}
        assert photos[split] == set(SKIMAGE_PHOTOS[split])
        assert len({source.name(i) for i in range(len(source))}) == len(source)
    assert len(open_source("skimage:train")) >= 60
    assert 8 <= len(open_source("skimage:validation")) <= 16
    assert len(photos["validation"]) >= 2
    assert not photos["train"] & photos["validation"]
    motorcycles = [split for split in photos if any(name.startswith("motorcycle") for name in photos[split])]
    assert len(motorcycles) <= 1  # left and right show the same scene


def test_skimage_tiles_reach_every_edge():
    source = open_source("skimage:validation")
    corner = skimage.data.coffee()[-256:, -256:]
    assert any((source[i] == corner).all() for i in range(len(source)))


def test_known_extensions_are_lower_case_suffixes():
    assert all(extension.startswith(".") and extension.islower() for extension in IMAGE_EXTENSIONS)
