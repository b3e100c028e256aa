"""inpaint.py as a whole, and the library call behind it: files in, files out, and a sentence for what goes wrong."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from skimage import data

from inpaint_jax.data.images import read_image
from inpaint_jax.errors import UserError
from inpaint_jax.inference import files
from inpaint_jax.inference.files import HoleRules, inpaint_files
from inpaint_jax.models import export

PHOTO = data.astronaut()[100:137, 200:261]  # 61 wide, 37 high
HOLE = np.zeros((37, 61), bool)
HOLE[10:20, 15:40] = True


def command(*flags):
    """Runs inpaint.py; gives its exit code and all that it printed."""
    result = subprocess.run(
        [sys.executable, "inpaint.py", *flags],
        cwd=REPOSITORY,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return result.returncode, result.stdout


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def erased(photo=PHOTO, hole=HOLE):
    return np.dstack([photo, np.where(hole, 0, 255).astype(np.uint8)])


def check(path, photo=PHOTO, hole=HOLE):
    """Given pixels are as they were, and the hole is filled with something."""
    completed = read_image(path)
    np.testing.assert_array_equal(completed[~hole], photo[~hole])
    assert (completed[hole] != photo[hole]).any()


@pytest.fixture(scope="module")
def model(tiny_workdir, tmp_path_factory):
    """The exported file, which loads fast."""
    file = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    export(tiny_workdir, file)
    return file


@pytest.fixture
def log(caplog):
    caplog.set_level("INFO", "inpaint_jax")
    return caplog


# Whole commands.


def test_one_photo(tiny_workdir, tmp_path):
    photo, mask = save(tmp_path / "photo.png", PHOTO), save(tmp_path / "hole.png", HOLE)
    flags = [f"--checkpoint={tiny_workdir}", f"--image={photo}", f"--mask={mask}"]
    output = tmp_path / "new" / "out.png"
    code, printed = command(*flags, f"--output={output}")
    assert code == 0, printed
    check(output)
    lines = printed.strip().splitlines()
    assert "Model tiny of step" in lines[0]
    assert lines[-1].endswith(f"Inpainted 1 of 1 photos into {output}.")
    assert len(lines) == 2, printed  # nothing from orbax, jax or absl


def test_a_folder_with_a_truncated_file(model, tmp_path):
    photos, masks, output = tmp_path / "photos", tmp_path / "masks", tmp_path / "out"
    for name in ("a.png", "b.webp", "inner/c.tif"):
        save(photos / name, PHOTO, **({"lossless": True} if name.endswith("webp") else {}))
        save((masks / name).with_suffix(".png"), HOLE)
    whole = (photos / "a.png").read_bytes()
    (photos / "broken.png").write_bytes(whole[: len(whole) // 2])
    save(masks / "broken.gif", HOLE)
    save(photos / "lonely.png", PHOTO)

    code, printed = command(f"--checkpoint={model}", f"--image={photos}", f"--mask={masks}", f"--output={output}")
    assert code == 1, printed
    assert sorted(p.relative_to(output).as_posix() for p in output.rglob("*.*")) == ["a.png", "b.webp", "inner/c.tif"]
    for name in ("a.png", "b.webp", "inner/c.tif"):
        check(output / name)
    assert f"{photos}/broken.png cannot be read as an image" in printed
    assert f"lonely.png has no mask in {masks}; put lonely.png there" in printed
    last = printed.strip().splitlines()[-1]
    assert f"Inpainted 3 of 5 photos into {output}; 2 failed: {photos}/broken.png, {photos}/lonely.png" in last
    assert "Traceback" not in printed


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    photo = save(tmp_path / "photo.png", erased())
    code, printed = command("--checkpoint=nowhere", f"--image={photo}", f"--output={tmp_path}/out.png")
    assert (code, printed) == (2, "inpaint-jax fill: nowhere does not exist; give the workdir of a training run.\n")
    code, printed = command("--checkpoint=nowhere", f"--image={photo}")
    assert code == 2
    assert "--output" in printed
    code, printed = command("--checkpoint=nowhere", f"--image={photo}", f"--output={photo}", "stray")
    assert code == 2
    assert "Flags are written --name=value; what is 'stray'?" in printed


# The library call: where the hole comes from.


def test_the_hole_is_what_is_transparent(model, tmp_path, log):
    photo, output = save(tmp_path / "photo.png", erased()), tmp_path / "out.png"
    assert inpaint_files(model, photo, output) == files.Summary([output], {})
    check(output)
    assert Image.open(output).mode == "RGB"  # nothing is transparent any more
    save(photo, np.dstack([PHOTO, np.where(HOLE, 127, 128).astype(np.uint8)]))
    inpaint_files(model, photo, output)
    check(output)


def test_alpha_beside_a_mask_stays(model, tmp_path):
    alpha = np.tile(np.arange(61, dtype=np.uint8) * 4, (37, 1))
    photo, mask = save(tmp_path / "photo.png", np.dstack([PHOTO, alpha])), save(tmp_path / "hole.png", HOLE)
    inpaint_files(model, photo, tmp_path / "out.png", mask)
    check(tmp_path / "out.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png"))[..., 3], alpha)


def test_inverted_masks(model, tmp_path):
    photo, mask = save(tmp_path / "photo.png", erased(hole=~HOLE)), save(tmp_path / "hole.png", ~HOLE)
    for given in (mask, None):
        summary = inpaint_files(model, photo, tmp_path / "out.png", given, rules=HoleRules(invert=True))
        assert not summary.failed
        check(tmp_path / "out.png")


def test_a_mask_of_another_size(model, tmp_path):
    photo, output = save(tmp_path / "photo.png", PHOTO), tmp_path / "out.png"
    mask = save(tmp_path / "hole.png", np.kron(HOLE, np.ones((2, 2), bool)))
    failed = inpaint_files(model, photo, output, mask).failed
    assert failed == {
        photo: f"The mask {mask} is 122 x 74 pixels, but {photo} is 61 x 37 pixels; give a mask of the photo's size, "
        "or --resize_mask."
    }
    assert not output.exists()
    assert not inpaint_files(model, photo, output, mask, rules=HoleRules(resize=True)).failed
    check(output)


def test_a_photo_that_is_turned(model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = save(tmp_path / "photo.png", np.ascontiguousarray(np.rot90(PHOTO)), exif=exif)
    upright, output = save(tmp_path / "upright.png", HOLE), tmp_path / "out.png"
    assert not inpaint_files(model, photo, output, upright).failed
    check(output)
    turned = save(tmp_path / "turned.png", np.ascontiguousarray(np.rot90(HOLE)))
    [sentence] = inpaint_files(model, photo, output, turned).failed.values()
    assert "37 x 61 pixels" in sentence
    assert "turned by its EXIF orientation" in sentence
    turned = save(tmp_path / "turned.png", np.ascontiguousarray(np.rot90(HOLE)), exif=exif)
    assert not inpaint_files(model, photo, output, turned).failed
    check(output)


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_an_empty_mask_gives_the_same_file(model, tmp_path, log, extension):
    photo, mask = save(tmp_path / f"photo{extension}", PHOTO), save(tmp_path / "hole.png", HOLE & False)
    inpaint_files(model, photo, tmp_path / f"out{extension}", mask)
    assert (tmp_path / f"out{extension}").read_bytes() == photo.read_bytes()
    assert f"The mask of {photo} is empty: it is saved as it is." in log.text
    inpaint_files(model, photo, tmp_path / "out.tif", mask)
    np.testing.assert_array_equal(read_image(tmp_path / "out.tif"), read_image(photo))


def test_a_full_mask_is_filled_with_a_warning(model, tmp_path, log):
    photo, mask = save(tmp_path / "photo.png", PHOTO), save(tmp_path / "hole.png", HOLE | True)
    assert not inpaint_files(model, photo, tmp_path / "out.png", mask).failed
    assert f"The mask of {photo} covers all of it" in log.text
    assert read_image(tmp_path / "out.png").std() < PHOTO.std()


def test_no_alpha_and_no_mask(model, tmp_path, log):
    photo = save(tmp_path / "photo.png", PHOTO)
    [sentence] = inpaint_files(model, photo, tmp_path / "out.png").failed.values()
    assert sentence.startswith(f"{photo} has no alpha channel to take the hole from; give a --mask")
    assert "Inpainted 0 of 1 photos" in log.text


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode(model, tmp_path, mode, log):
    image = Image.fromarray(PHOTO)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257 + 5)
    elif mode == "P":
        image = image.quantize(64)
    else:
        image = image.convert(mode)
    photo, mask = save(tmp_path / "photo.tif", image), save(tmp_path / "hole.png", HOLE)
    assert not inpaint_files(model, photo, tmp_path / "out.tif", mask).failed
    check(tmp_path / "out.tif", read_image(photo))
    kept = "1 of 1 photos: " not in log.text  # what cannot be kept is said
    assert kept is (mode in ("1", "L", "LA", "RGB", "RGBA", "I;16"))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5)])
def test_every_size(model, tmp_path, height, width):
    photo = np.resize(PHOTO, (height, width, 3))
    hole = np.zeros((height, width), bool)
    hole[: height // 2 + 1, : width // 2 + 1] = True
    save(tmp_path / "photo.png", photo)
    save(tmp_path / "hole.png", hole)
    assert not inpaint_files(model, tmp_path / "photo.png", tmp_path / "out.png", tmp_path / "hole.png").failed
    check(tmp_path / "out.png", photo, hole)


# The library call: folders.


def test_a_folder_with_one_mask_for_all_and_other_folders_inside(model, tmp_path, log):
    photos = tmp_path / "photos"
    for name in ("a.png", "b.jpg", "c.jpg"):
        save(photos / name, PHOTO)
    mask = save(photos / "masks" / "hole.png", HOLE)
    for _ in range(2):  # results of the first run are no photos of the second
        summary = inpaint_files(model, photos, photos / "out", mask)
        assert summary.written == [photos / "out" / name for name in ("a.png", "b.jpg", "c.jpg")]
    assert "2 of 3 photos: JPEG loses a little everywhere" in log.text
    mask.unlink()
    for name in "abc":
        save(photos / "masks" / f"{name}.png", HOLE)
    summary = inpaint_files(model, photos, photos / "out", photos / "masks")
    assert summary.written == [photos / "out" / name for name in ("a.png", "b.jpg", "c.jpg")]
    save(photos / "masks" / "b.tif", HOLE)
    summary = inpaint_files(model, photos, photos / "out", photos / "masks")
    assert list(summary.failed) == [photos / "b.jpg"]
    assert "has several masks" in summary.failed[photos / "b.jpg"]


def test_a_folder_by_alpha(model, tmp_path):
    save(tmp_path / "photos" / "a.png", erased())
    save(tmp_path / "photos" / "b.webp", erased(), lossless=True, exact=True)
    summary = inpaint_files(model, tmp_path / "photos", tmp_path / "out")
    assert not summary.failed
    for path in summary.written:
        check(path)


def test_a_photo_into_a_folder_with_a_folder_of_masks(model, tmp_path):
    photo = save(tmp_path / "photo.png", PHOTO)
    save(tmp_path / "masks" / "photo.bmp", HOLE)
    inpaint_files(model, photo, f"{tmp_path}/out/", tmp_path / "masks")
    check(tmp_path / "out" / "photo.png")


def test_an_output_that_cannot_be_written_fails_alone(model, tmp_path):
    for name in ("a.png", "b.png"):
        save(tmp_path / "photos" / name, erased())
    (tmp_path / "out" / "a.png").mkdir(parents=True)  # in the way
    summary = inpaint_files(model, tmp_path / "photos", tmp_path / "out")
    assert summary.written == [tmp_path / "out" / "b.png"]
    assert "Is a directory" in summary.failed[tmp_path / "photos" / "a.png"]


def test_a_photo_too_large_for_the_memory(model, tmp_path, monkeypatch):
    def predict(self, images, masks, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.")

    monkeypatch.setattr(files.Inpainter, "predict", predict)
    photo = save(tmp_path / "photo.png", erased())
    [sentence] = inpaint_files(model, photo, tmp_path / "out.png").failed.values()
    assert sentence == f"{photo}, 61 x 37 pixels, is too large for the memory of this device; make the photo smaller."

    def fail(self, images, masks, **options):
        raise jax.errors.JaxRuntimeError("INTERNAL: a real bug")

    monkeypatch.setattr(files.Inpainter, "predict", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="a real bug"):
        inpaint_files(model, photo, tmp_path / "out.png")


# The library call: what is refused before anything is done.


def test_nothing_given_is_overwritten(tmp_path):
    photo, mask = save(tmp_path / "photo.png", PHOTO), save(tmp_path / "hole.png", HOLE)
    (tmp_path / "link.png").symlink_to(photo)
    (tmp_path / "hard.png").hardlink_to(photo)
    for output in (photo, mask, tmp_path / "x" / ".." / "photo.png", tmp_path / "link.png", tmp_path / "hard.png"):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="would be overwritten; give another --output"):
            inpaint_files("unused", photo, output, mask)
    photos = save(tmp_path / "all" / "inner" / "a.png", PHOTO).parent
    save(tmp_path / "all" / "inner" / "inner" / "a.png", PHOTO)
    with pytest.raises(UserError, match=r"inner/a.png is one of the files given"):
        inpaint_files("unused", photos, tmp_path / "all", mask)
    for output, masks in ((photos, mask), (tmp_path / "out", photos)):
        with pytest.raises(UserError, match="need a folder each"):
            inpaint_files("unused", photos, output, masks)
    np.testing.assert_array_equal(read_image(photo), PHOTO)


def test_what_makes_no_sense_gets_a_sentence(tmp_path, model):
    photo = save(tmp_path / "photos" / "photo.png", PHOTO)
    output, empty = tmp_path / "out.png", tmp_path / "empty"
    empty.mkdir()
    for arguments, message in [
        ((model, tmp_path / "gone.png", output), r"no photo and no folder .*gone.png; correct --image"),
        ((model, photo, output, tmp_path / "gone.png"), r"no mask .*gone.png; correct --mask"),
        ((model, empty, output), r"empty has no image files .*; correct --image"),
        ((model, photo, output, empty), r"empty has no image files .*; correct --mask"),
        ((model, photo.parent, photo), r"photo.png is a file; a folder of photos needs a folder"),
        ((model, photo, tmp_path / "out.docx"), r"out.docx has no image format's extension; end it in .png"),
        ((photo, photo, output), r"photo.png is no exported model"),
        ((empty, photo, output), r"empty holds no config.json"),
    ]:
        with pytest.raises(UserError, match=message):
            inpaint_files(*arguments)
    with pytest.raises(UserError, match="alone, not of step 9"):
        inpaint_files(model, photo, output, step=9)
