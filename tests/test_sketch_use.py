"""evaluate.py and inpaint.py with models that are guided by sketches: who gets them, and what is refused."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sketch_stores import copied

from inpaint_jax.data.images import read_image
from inpaint_jax.errors import UserError
from inpaint_jax.evaluation import run
from inpaint_jax.inference.files import HoleRules, _lines_of_file, inpaint_files
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.inference.photos import read_photo
from inpaint_jax.inference.retouching import retouch
from inpaint_jax.models import export
from inpaint_jax.sketching.store import SketchStore

HOLE = np.zeros((48, 60), bool)
HOLE[10:34, 12:44] = True
LINES = np.zeros((48, 60), bool)
LINES[22, 5:55] = True


def command(script, *flags):
    """Runs a script; gives its exit code and all that it printed."""
    result = subprocess.run(
        [sys.executable, script, *flags],
        cwd=REPOSITORY,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return result.returncode, result.stdout


@pytest.fixture(scope="module")
def strict_workdir(guided_workdir, tmp_path_factory):
    """The same model as if it had been trained as in the paper, always with sketches."""
    folder = tmp_path_factory.mktemp("strict") / "strict"
    shutil.copytree(guided_workdir, folder)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["sketch_dropout"] = 0.0
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# ------------------------------------------------------------------------------------------------- evaluate.py


@pytest.fixture(scope="module")
def settings(photos):
    return run.Settings(data=f"folder:{photos}/val", fid="off", workers=0, pairing="once", batch_size=2, samples=2)


@pytest.mark.slow
def test_only_guided_models_get_the_sketches(guided_workdir, strict_workdir, tiny_workdir, photos, settings, tmp_path):
    sketches = str(guided_workdir / "sketches" / "validation")
    plain = shutil.copytree(tiny_workdir, tmp_path / "plain")
    guided = shutil.copytree(guided_workdir, tmp_path / "guided")
    both = dataclasses.replace(settings, classical=["mean"])
    without = run.evaluate([plain, guided], tmp_path / "without", both)
    flags = [f"--data={settings.data}", "--fid=off", "--pairing=once", "--batch_size=2", "--samples=2"]
    flags += [f"--workdir={plain},{guided},{strict_workdir}", "--methods=mean", f"--sketches={sketches}"]
    code, printed = command("evaluate.py", f"--output={tmp_path / 'with'}", *flags)
    assert code == 0, printed
    document = json.loads((tmp_path / "with" / "metrics.json").read_text())
    store = SketchStore.open(sketches)
    assert document["settings"]["sketches"] == store.settings | {"digest": store.digest}
    assert "sketches" not in json.loads((tmp_path / "without" / "metrics.json").read_text())["settings"]

    def figures(rows, method):
        return [row["psnr"] for row in rows if row["method"] == method]

    for method in ("mean", "plain"):
        assert figures(document["rows"], method) == pytest.approx(figures(without, method))
    assert figures(document["rows"], "guided") == figures(document["rows"], "strict")
    assert figures(document["rows"], "guided")[-1] != figures(without, "guided")[-1]

    # The pictures: the sheet's input has white lines, and the model was given the sketch of each image.
    sheets = [np.asarray(Image.open(tmp_path / name / "sheet.png").convert("RGB")) for name in ("with", "without")]
    column = np.s_[22:, 4 + 36 : 4 + 36 + 32]
    drawn = (sheets[0][column] == 255).all(axis=-1) & (sheets[1][column] != 255).any(axis=-1)
    assert drawn.any()


@pytest.fixture(scope="module")
def attentive(guided_workdir, tmp_path_factory):
    """The guided model with larger weights for its sketches: six steps of training hardly make it look at them."""
    file = tmp_path_factory.mktemp("attentive") / "attentive.safetensors"
    export(guided_workdir, file)
    tensors, metadata = load_file(file), safe_open(file, "numpy").metadata()
    [name] = [name for name in tensors if "coarse" in name and "GatedConv_0" in name and name.endswith("kernel")]
    tensors[name][:, :, 4] *= 50
    save_file(tensors, file, metadata)
    return file


def test_the_sketch_of_each_image_is_its_own(attentive, guided_workdir, settings, tmp_path):
    """Once more by hand, from the saved pictures: bit by bit with its own sketch, and with no other."""
    store = SketchStore.open(guided_workdir / "sketches" / "validation")
    options = dataclasses.replace(settings, sketches=str(store.folder), save_images=True, samples=0, batch_size=1)
    run.evaluate([attentive], tmp_path, options)
    model = Inpainter.load(attentive)
    found = sorted((tmp_path / "images" / "attentive").rglob("*.png"))
    assert len(found) == 5
    for path in found:
        truth = read_image(tmp_path / "images" / "truth" / path.name)
        mask = read_image(tmp_path / "images" / "mask" / path.parent.name / path.name)[..., 0] > 127
        number = int(path.name.split("_")[0])
        for other in range(5):
            sketch = store[other][:, 4 : 4 + 32]
            expected = model(truth, mask, sketch)
            if other == number:
                np.testing.assert_array_equal(read_image(path), expected)
            elif ((sketch ^ store[number][:, 4 : 4 + 32]) & mask).sum() > 5:
                assert (read_image(path) != expected).any(), (number, other)


def test_the_sketches_of_the_first_photos_serve_for_these(guided_workdir, settings, tmp_path):
    whole = guided_workdir / "sketches" / "validation"
    first = copied(whole, tmp_path / "first", limit=2).folder
    one, other = (
        run.evaluate([guided_workdir], tmp_path / name, dataclasses.replace(settings, sketches=str(folder), limit=2))
        for name, folder in (("a", first), ("b", whole))
    )
    assert one == other


def test_sketches_damaged_in_the_midst_are_one_sentence(guided_workdir, settings, tmp_path):
    damaged = copied(guided_workdir / "sketches" / "validation", tmp_path / "sketches").path(2)
    damaged.write_bytes(damaged.read_bytes()[:-20])
    options = dataclasses.replace(settings, sketches=str(tmp_path / "sketches"), workers=1)
    with pytest.raises(UserError) as error:
        run.evaluate([guided_workdir], tmp_path / "out", options)
    assert str(error.value).startswith(f"{damaged} cannot be read (it is damaged); delete it and start")
    assert "\n" not in str(error.value)


def test_an_evaluation_does_not_go_on_with_other_sketches(guided_workdir, settings, tmp_path):
    """At the same path: it says so rather than calling itself finished."""
    whole, folder = guided_workdir / "sketches" / "validation", tmp_path / "sketches"
    copied(whole, folder)
    options = dataclasses.replace(settings, sketches=str(folder), resume=True)
    run.evaluate([guided_workdir], tmp_path / "out", options)
    shutil.rmtree(folder)
    copied(whole, folder, without=[1])
    with pytest.raises(UserError, match=r"evaluation with other settings \(sketches: .*digest"):
        run.evaluate([guided_workdir], tmp_path / "out", options)


def test_what_evaluation_refuses(guided_workdir, strict_workdir, tiny_workdir, settings, tmp_path):
    validation = str(guided_workdir / "sketches" / "validation")
    for models, fields, message in (
        ([strict_workdir], {}, r"The model strict was never trained without a sketch; give those of .* as --sketches"),
        ([strict_workdir], {"sketches": "none"}, r"as --sketches, .* --size=32 --resize=shortest"),
        ([guided_workdir], {"sketches": validation, "size": 24}, "has sketches for size 32, not 24"),
        ([guided_workdir], {"sketches": str(guided_workdir / "sketches" / "train")}, "sketches of 10 photos, but"),
        ([guided_workdir], {"sketches": "nowhere"}, "There are no sketches in nowhere"),
        ([tiny_workdir], {"sketches": validation}, "No model here is guided by sketches; leave out --sketches"),
    ):
        with pytest.raises(UserError, match=message) as error:
            run.evaluate(models, tmp_path / "out", dataclasses.replace(settings, **fields))
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------- inpaint.py


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


@pytest.fixture
def files(photos, tmp_path):
    """A photo of 60 x 48 pixels, its hole and a sketch."""
    photo = tmp_path / "photos" / "photo.png"
    photo.parent.mkdir()
    shutil.copy(photos / "val" / "01.png", photo)
    return photo, save(tmp_path / "hole.png", HOLE), save(tmp_path / "sketches" / "photo.png", LINES)


def test_a_photo_with_a_sketch(guided_workdir, files, tmp_path):
    photo, hole, lines = files
    flags = [f"--checkpoint={guided_workdir}", f"--image={photo}", f"--mask={hole}", f"--sketch={lines}"]
    code, printed = command("inpaint.py", *flags, f"--output={tmp_path / 'out.png'}")
    assert code == 0, printed
    expected = Inpainter.load(guided_workdir)(read_image(photo), HOLE, LINES)
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), expected)

    inpaint_files(guided_workdir, photo, tmp_path / "without.png", hole)
    assert (read_image(tmp_path / "without.png") != expected).any()
    # The same drawn on white paper; at twice the size; and from folders.
    paper = save(tmp_path / "paper.png", ~LINES)
    inpaint_files(guided_workdir, photo, tmp_path / "a.png", hole, paper, rules=HoleRules(invert_sketch=True))
    large = save(tmp_path / "large.png", np.kron(LINES, np.ones((2, 2), bool)))
    inpaint_files(guided_workdir, photo, tmp_path / "b.png", hole, large, rules=HoleRules(resize=True))
    summary = inpaint_files(guided_workdir, photo.parent, tmp_path / "folder", hole, lines.parent)
    for path in (tmp_path / "a.png", tmp_path / "b.png", *summary.written):
        np.testing.assert_array_equal(read_image(path), expected)


def test_what_a_photo_is_refused_for(guided_workdir, files, tmp_path):
    photo, hole, lines = files
    output = tmp_path / "out.png"
    small = save(tmp_path / "small.png", LINES[::2, ::2])
    for sketch, rules, message in (
        (small, None, f"The sketch {small} is 30 x 24 pixels, but {photo} is 60 x 48 pixels; give a sketch of the"),
        (save(tmp_path / "turned.png", LINES.T.copy()), None, "turned by its EXIF orientation"),
        (save(tmp_path / "paper.png", ~LINES), None, "of its hole; is it inverted: add --invert_sketch?"),
        (lines, HoleRules(invert_sketch=True), "of its hole; is it inverted: leave out --invert_sketch?"),
        (save(tmp_path / "grey.png", np.full((48, 60), 120, np.uint8)), None, "of its hole; draw thin lines"),
        (tmp_path / "grey.png", HoleRules(invert_sketch=True), "of its hole; draw thin lines"),
        (save(tmp_path / "again.png", HOLE), None, "is white in more than half of the photo or of its hole"),
        (save(tmp_path / "others" / "other.png", LINES).parent, None, "photo.png has no sketch in"),
    ):
        [sentence] = inpaint_files(guided_workdir, photo, output, hole, sketch, rules=rules).failed.values()
        assert message in sentence
        assert "\n" not in sentence
    with pytest.raises(UserError, match=r"no sketch .*gone.png; correct --sketch"):
        inpaint_files(guided_workdir, photo, output, hole, tmp_path / "gone.png")
    (tmp_path / "link.png").symlink_to(hole)
    with pytest.raises(UserError, match=r"link.png is given as --mask and as --sketch; draw"):
        inpaint_files(guided_workdir, photo, output, hole, tmp_path / "link.png")
    with pytest.raises(UserError, match=r"photo.png is given as --image and as --sketch; draw"):
        inpaint_files(guided_workdir, photo, output, hole, photo)
    with pytest.raises(UserError, match=r"photo.png is one of the files given and would be overwritten"):
        inpaint_files(guided_workdir, photo, lines, hole, lines)
    assert not output.exists()


def test_lines_may_fill_a_narrow_or_tiny_hole(strict_workdir, files, tmp_path):
    """Which is no reason to refuse them; areas are refused in a small hole, too."""
    photo, _, _ = files
    scratch, wide, tiny, small = np.zeros((4, 48, 60), bool)
    scratch[20, 5:55] = wide[20:22, 5:55] = tiny[20:24, 20:24] = small[20:30, 20:30] = True
    across = np.zeros((48, 60), bool)
    across[20:23, 5:55] = True
    for number, (hole, lines) in enumerate(((scratch, scratch), (wide, wide), (wide, across), (tiny, across))):
        assert lines[hole].mean() > 0.5
        given = [save(tmp_path / f"{number}_{kind}.png", area) for kind, area in (("hole", hole), ("lines", lines))]
        summary = inpaint_files(strict_workdir, photo, tmp_path / "out.png", *given)
        assert not summary.failed
        expected = retouch(Inpainter.load(strict_workdir), read_image(photo), hole, lines).pixels
        np.testing.assert_array_equal(read_image(tmp_path / "out.png"), expected)
    around = np.pad(small, 1)[2:, 1:-1] | small  # a mask drawn a little larger
    for number, lines in enumerate((small, around)):
        given = [save(tmp_path / "hole.png", small), save(tmp_path / f"mask_{number}.png", lines)]
        [sentence] = inpaint_files(strict_workdir, photo, tmp_path / "refused.png", *given).failed.values()
        assert "is white in more than half of the photo or of its hole; draw thin lines" in sentence
    assert not (tmp_path / "refused.png").exists()


def test_models_that_take_no_sketch_and_models_that_need_one(strict_workdir, tiny_workdir, files, tmp_path):
    photo, hole, lines = files
    with pytest.raises(UserError, match="The model tiny was trained without sketches; leave out --sketch"):
        inpaint_files(tiny_workdir, photo, tmp_path / "out.png", hole, lines)
    with pytest.raises(UserError, match="never trained without a sketch; give one as --sketch, white on black"):
        inpaint_files(strict_workdir, photo, tmp_path / "out.png", hole)
    assert not (tmp_path / "out.png").exists()
    assert not inpaint_files(strict_workdir, photo, tmp_path / "out.png", hole, lines).failed


def test_a_sketch_that_shrinks_keeps_its_lines(strict_workdir, files, tmp_path):
    """Seven times as large, and one pixel wide: most nearest pixels would miss it."""
    photo, hole, _ = files
    large = np.zeros((48 * 7, 60 * 7), bool)
    large[22 * 7 + 1, 5 * 7 : 55 * 7] = True
    sketch = save(tmp_path / "large.png", large)
    inpaint_files(strict_workdir, photo, tmp_path / "out.png", hole, sketch, rules=HoleRules(resize=True))
    expected = Inpainter.load(strict_workdir)(read_image(photo), HOLE, LINES)
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), expected)


@pytest.mark.parametrize("colour", [0, 255])
@pytest.mark.parametrize("invert", [False, True])
def test_strokes_on_a_transparent_ground(guided_workdir, files, tmp_path, colour, invert):
    """Of any colour, whatever lies below what is transparent, and with or without --invert_sketch."""
    photo, hole, _ = files
    drawing = np.zeros((48, 60, 4), np.uint8)
    drawing[LINES] = [colour, colour, colour, 255]
    rules = HoleRules(invert_sketch=invert)
    for name, ground in (("black.png", 0), ("white.png", 255)):
        drawing[~LINES] = [ground, ground, ground, 0]
        sketch = save(tmp_path / name, drawing)
        assert not inpaint_files(guided_workdir, photo, tmp_path / f"out_{name}", hole, sketch, rules=rules).failed
        expected = Inpainter.load(guided_workdir)(read_image(photo), HOLE, LINES)
        np.testing.assert_array_equal(read_image(tmp_path / f"out_{name}"), expected)


def test_an_opaque_alpha_channel_means_nothing(guided_workdir, files, tmp_path):
    photo, hole, _ = files
    paper = np.dstack([np.where(LINES, 0, 255)] * 3 + [np.full((48, 60), 255)]).astype(np.uint8)
    sketch = save(tmp_path / "paper.png", paper)
    inpaint_files(guided_workdir, photo, tmp_path / "out.png", hole, sketch, rules=HoleRules(invert_sketch=True))
    expected = Inpainter.load(guided_workdir)(read_image(photo), HOLE, LINES)
    np.testing.assert_array_equal(read_image(tmp_path / "out.png"), expected)
    [sentence] = inpaint_files(guided_workdir, photo, tmp_path / "out.png", hole, sketch).failed.values()
    assert "add --invert_sketch?" in sentence


@pytest.mark.parametrize("kind", ["white", "black", "transparent"])
def test_smoothed_lines_do_not_tear(files, kind):
    """A slanted line of a pixel's width, as drawing programs smooth it."""
    photo, _, lines = files
    fine = np.zeros((48 * 8, 60 * 8), np.uint8)
    cv2.line(fine, (5 * 8, 22 * 8), (54 * 8, 35 * 8), 255, thickness=5)
    drawn = cv2.resize(fine, (60, 48), interpolation=cv2.INTER_AREA)
    picture = {"white": drawn, "black": 255 - drawn, "transparent": np.dstack([drawn * 0] * 3 + [drawn])}[kind]
    found = _lines_of_file(
        read_photo(photo), photo, save(lines, picture), HoleRules(invert_sketch=kind == "black"), HOLE
    )
    assert cv2.connectedComponents(found.astype(np.uint8), connectivity=8)[0] == 2
    assert found[:, 5:54].any(axis=0).all()
    assert cv2.connectedComponents((drawn > 127).astype(np.uint8), connectivity=8)[0] > 2  # by the rule of masks


def test_a_sketch_without_a_line_in_the_hole_is_told(guided_workdir, files, tmp_path, caplog):
    photo, hole, lines = files
    inpaint_files(guided_workdir, photo, tmp_path / "out.png", hole, lines)
    assert "no line" not in caplog.text
    outside = save(tmp_path / "outside.png", LINES & ~HOLE)
    assert not inpaint_files(guided_workdir, photo, tmp_path / "out.png", hole, outside).failed
    assert f"The sketch {outside} has no line in the hole of {photo}, which is filled as without one." in caplog.text
