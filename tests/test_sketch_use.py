"""evaluate.py and inpaint.py with models that are guided by sketches: who gets them, and what is refused."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image

from inpaint_jax.data.images import read_image
from inpaint_jax.data.sketches import SketchStore
from inpaint_jax.evaluation import run
from inpaint_jax.inference import Inpainter
from inpaint_jax.inpainting import HoleRules, InpaintingError, inpaint_files

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
    assert document["settings"]["sketches"] == SketchStore(sketches).settings
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


def test_the_sketch_of_each_image_is_its_own(guided_workdir, settings, tmp_path):
    """Once more by hand, from the saved pictures."""
    store = SketchStore(guided_workdir / "sketches" / "validation")
    options = dataclasses.replace(settings, sketches=str(store.folder), save_images=True, samples=0)
    run.evaluate([guided_workdir], tmp_path, options)
    model = Inpainter.load(guided_workdir)
    found = sorted((tmp_path / "images" / guided_workdir.name).rglob("*.png"))
    assert len(found) == 5
    for path in found:
        truth = read_image(tmp_path / "images" / "truth" / path.name)
        mask = read_image(tmp_path / "images" / "mask" / path.parent.name / path.name)[..., 0] > 127
        number = int(path.name.split("_")[0])
        expected = model(truth, mask, store[number][:, 4 : 4 + 32])
        assert np.abs(read_image(path).astype(int) - expected).max() <= 1


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
        with pytest.raises(run.EvaluationError, match=message) as error:
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
        (save(tmp_path / "paper.png", ~LINES), None, "paper.png is white; is it inverted: add --invert_sketch?"),
        (lines, HoleRules(invert_sketch=True), "is black; is it inverted: leave out --invert_sketch?"),
        (save(tmp_path / "others" / "other.png", LINES).parent, None, "photo.png has no sketch in"),
    ):
        [sentence] = inpaint_files(guided_workdir, photo, output, hole, sketch, rules=rules).failed.values()
        assert message in sentence
        assert "\n" not in sentence
    with pytest.raises(InpaintingError, match=r"no sketch .*gone.png; correct --sketch"):
        inpaint_files(guided_workdir, photo, output, hole, tmp_path / "gone.png")
    with pytest.raises(InpaintingError, match=r"photo.png is one of the files given and would be overwritten"):
        inpaint_files(guided_workdir, photo, lines, hole, lines)
    assert not output.exists()


def test_models_that_take_no_sketch_and_models_that_need_one(strict_workdir, tiny_workdir, files, tmp_path):
    photo, hole, lines = files
    with pytest.raises(InpaintingError, match="The model tiny was trained without sketches; leave out --sketch"):
        inpaint_files(tiny_workdir, photo, tmp_path / "out.png", hole, lines)
    with pytest.raises(InpaintingError, match="never trained without a sketch; give one as --sketch, white on black"):
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
