"""The report on a run: real workdirs, in every state; and the page in a real browser."""

import dataclasses
import html.parser
import io
import json
import re
import shutil
import subprocess
import sys
from base64 import b64decode

import jax
import numpy as np
import pytest
from browser import record_faults
from conftest import REPOSITORY
from PIL import Image

from inpaint_jax import models
from inpaint_jax.errors import UserError
from inpaint_jax.evaluation import output, run
from inpaint_jax.report import facts, page
from inpaint_jax.writers import read_metrics


class Reader(html.parser.HTMLParser):
    """What a page shows: its text, cells of tables, and pictures as (alt, kind, content)."""

    def __init__(self, text):
        super().__init__()
        self.text, self.rows, self.pictures, self.tags = "", [], [], set()
        self.in_cell = False
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        attributes = dict(attributes)
        if tag == "img":
            kind, content = re.fullmatch(r"data:([\w/+]+);base64,(.+)", attributes["src"]).groups()
            self.pictures.append((attributes["alt"], kind, b64decode(content)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][-1] += data
        self.text += f" {data}"


def read_page(workdir, evaluations=()):
    return Reader(page.render(facts.gather(workdir, evaluations)))


def copied(workdir, tmp_path, name="run"):
    return shutil.copytree(workdir, tmp_path / name, ignore=shutil.ignore_patterns("checkpoints", "events*"))


def report(*arguments):
    """Runs the command."""
    command = [sys.executable, "-m", "inpaint_jax.report", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def workdir(finished, photos, tmp_path_factory):
    """A finished run with an evaluation below it."""
    workdir = copied(finished, tmp_path_factory.mktemp("reported"), "street & co")
    settings = run.Settings(
        data=f"folder:{photos}/val", classical=["mean", "telea"], size=32, fid="off", workers=0, limit=2, samples=2
    )
    run.evaluate([finished], workdir / "eval", settings)
    return workdir


@pytest.fixture(scope="module")
def page_file(workdir, tmp_path_factory):
    """Its report, as the command writes it."""
    file = tmp_path_factory.mktemp("pages") / "made" / "report.html"
    done = report(workdir, f"--output={file}")
    assert done.returncode == 0, done.stderr
    return file


@pytest.fixture(scope="module")
def shown(page_file):
    return Reader(page_file.read_text())


def test_the_file_holds_everything(page_file, shown):
    assert not {"script", "iframe", "object", "video"} & shown.tags
    text = page_file.read_text()
    assert set(re.findall(r'(?:src|href)="(\w+:|#)', text)) == {"data:", "#"}
    assert "url(" not in re.search(r"<style>.*?</style>", text, re.DOTALL)[0]
    assert page_file.stat().st_size < 1_000_000
    assert list(page_file.parent.iterdir()) == [page_file]


def test_figures_of_the_training_are_those_of_the_log(shown, workdir):
    rows = read_metrics(workdir)
    validations = [row for row in rows if "validation/loss" in row]
    best = min(validations, key=lambda row: row["validation/loss"])
    for row in validations:
        step = f"{row['step']}" + (" (best)" if row is best else "")
        figures = [f"{row[f'validation/{name}']:.2f}" for name in ("psnr", "hole_psnr", "hole_psnr_coarse")]
        line = [step, f"{row['epoch']:.1f}", f"{row['validation/loss']:.4f}", *figures, f"{row['validation/mae']:.3f}"]
        assert line in shown.rows
    assert f"PSNR in the hole {best['validation/hole_psnr']:.2f} dB" in shown.text
    assert "steps 12 epoch 4.8" in shown.text
    assert "Finished: the limit of 12 steps is reached." in shown.text
    last = rows[-2]
    temperatures = " · ".join(f"{last[f'temperature/head_{head}']:.3g}" for head in range(2))
    assert f"temperatures {temperatures}" in shown.text
    seconds = sum(4 / row["images_per_second"] for row in rows if "images_per_second" in row)
    assert f"time of the steps {seconds:.0f} s" in shown.text
    parameters = (workdir / "parameters.txt").read_text()
    total = int(re.search(r"^Total: ([\d,]+)", parameters, re.MULTILINE)[1].replace(",", ""))
    assert f"generator {total / 1e6:.2f} M parameters" in shown.text


def test_curves_are_there_and_say_what_they_show(shown, workdir):
    training = [row for row in read_metrics(workdir) if "loss/coarse" in row]
    plots = [(alt, content.decode()) for alt, kind, content in shown.pictures if kind == "image/svg+xml"]
    assert [alt.split(",")[0] for alt, _ in plots[:2]] == ["Reconstruction", "Discriminator"]
    assert len(plots) == 4 + 3  # of the run, and MAE, PSNR and SSIM of the evaluation
    first, last = (row["loss/coarse"] for row in (training[0], training[-1]))
    assert f"coarse, L1: from {first:.3g} to {last:.3g}" in plots[0][0]
    assert "head 1: from" in plots[3][0]
    for _, svg in plots:
        assert svg.count("axes_") == 1  # one panel each


def test_sheets_are_there_with_their_steps(shown, workdir):
    sheets = [(alt, content) for alt, kind, content in shown.pictures if kind != "image/svg+xml"]
    assert len(sheets) == 3 + 1
    for step, (alt, content) in zip((0, 6, 12), sheets):
        assert f"at step {step}:" in alt
        saved = np.asarray(Image.open(workdir / "samples" / f"step_{step:08d}.png"))
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), saved)
    assert "completed by mean, telea, run" in sheets[-1][0]


def test_evaluation_is_the_table_of_its_folder(shown, workdir):
    for row in output.read_rows(workdir / "eval"):
        assert any(
            cells[:2] == [row["bin"], str(row["count"])] and f"{row['psnr']:.2f}" in cells for cells in shown.rows
        )
    assert "2 × 2" not in shown.text
    assert "of these the first 2, 32 × 32, masks: generated" in shown.text
    assert "FID: switched off." in shown.text


def test_config_hardware_and_versions(shown, workdir, photos):
    config = json.loads((workdir / "config.json").read_text())
    for name, value in config["optimizer"].items():
        assert f"{name} {value}" in shown.text
    assert f"train folder:{photos}/train" in shown.text
    assert f"jax {jax.__version__}" in shown.text
    assert re.search(r"from step 0 first started 20\S+ devices 1 x cpu", shown.text)


def test_named_evaluations_instead_of_those_below(finished, workdir):
    assert read_page(finished, [workdir / "eval"]).text.count("masks: generated") == 1
    assert "No finished evaluation" in read_page(finished).text


def test_what_a_config_says_is_text_and_no_markup(workdir, tmp_path):
    hostile = """<script>alert("1")</script> & 'co'"""
    odd = copied(workdir, tmp_path, '<b>"run"&')
    config = json.loads((odd / "config.json").read_text())
    config["name"], config["data"]["train"] = hostile, f"folder:{hostile}\udc80"  # a name that is no UTF-8
    (odd / "config.json").write_text(json.dumps(config))
    table = json.loads((odd / "eval" / "metrics.json").read_text())
    for row in table["rows"]:
        row["method"] = row["method"].replace("run", hostile)
    (odd / "eval" / "metrics.json").write_text(json.dumps(table))
    done = report(odd)
    assert done.returncode == 0, done.stderr
    read = Reader((odd / "report.html").read_text())
    assert "script" not in read.tags
    assert f'{hostile} · <b>"run"&' in read.text
    assert f"train folder:{hostile}?" in read.text
    assert ["mask ratio", "images", "mean", "telea", hostile] in read.rows


def test_a_run_that_has_just_begun(finished, tmp_path):
    (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
    read = read_page(tmp_path)
    assert "Nothing is logged yet." in read.text
    assert "No step is logged yet." in read.text
    assert "The run has not been validated yet." in read.text
    assert "adversarial hinge" in read.text
    assert read.pictures == []

    (tmp_path / "metrics.jsonl").write_text((finished / "metrics.jsonl").read_text().splitlines(keepends=True)[0])
    read = read_page(tmp_path)
    assert "Not finished: step 0 of at most 12 is logged" in read.text
    assert [alt.split(",")[0] for alt, *_ in read.pictures] == ["Reconstruction", "Validation: PSNR inside the hole"]


def test_a_run_killed_in_the_middle_of_everything(workdir, tmp_path):
    killed = copied(workdir, tmp_path)
    lines = (killed / "metrics.jsonl").read_text().splitlines(keepends=True)
    (killed / "metrics.jsonl").write_text("".join(lines[:10]) + lines[10][:40])
    sheet = killed / "samples" / "step_00000006.png"
    sheet.write_bytes(sheet.read_bytes()[:500])
    (killed / "samples" / "step_00000012.png").unlink()
    (killed / "eval" / "metrics.json").unlink()
    (killed / "eval" / "unfinished.npz").write_bytes(b"")
    (killed / "second").mkdir()
    (killed / "second" / "metrics.json").write_text('{"rows": [{"method": "mean"}]')
    read = read_page(killed)
    assert "Not finished: step 8 of at most 12 is logged, epoch 3.2." in read.text
    assert "Unreadable: step_00000006.png." in read.text
    assert "left out" not in read.text
    assert "The evaluation in eval is not finished" in read.text
    assert "The evaluation in second is damaged; run its inpaint-jax evaluate again." in read.text
    assert len(read.pictures) == 4 + 1


def test_an_early_stop_is_told_from_an_interruption(finished):
    run = facts.gather(finished)
    first, *_ = run.validations
    rows = [
        first | {"step": step, "epoch": step * 0.4, "validation/loss": loss} for step, loss in ((6, 0.1), (12, 0.2))
    ]
    endless = {"max_steps": None, "patience_epochs": 2.4, "patience_steps": None}
    stale = dataclasses.replace(run, rows=rows, config={"": {}, "train": endless})
    assert stale.state() == "Finished: the validation's loss has not fallen for 2.4 epochs."
    patient = {"": {}, "train": endless | {"patience_epochs": 2.5}}
    assert dataclasses.replace(stale, config=patient).state().startswith("Not finished: step 12 is logged")
    patient["train"]["patience_steps"] = 6
    assert dataclasses.replace(stale, config=patient).state().startswith("Finished")


def test_a_long_run_is_thinned_out_and_says_so(finished, tmp_path):
    """20,000 log lines and 40 more sheets of 520 x 1040 pixels, as days on a GPU leave them."""
    rng = np.random.default_rng(0)
    long = copied(finished, tmp_path)
    rows = [row for row in read_metrics(finished) if row["step"] > 0]
    lines = []
    for number, noise in enumerate(rng.uniform(0.9, 1.1, 20_000)):
        row = {name: value * noise for name, value in rows[number % len(rows)].items()}
        lines.append(json.dumps(row | {"step": 50 * number, "epoch": number / 10}))
    (long / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    sheet = Image.open(long / "samples" / "step_00000012.png").resize((520, 1040), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    sheet.save(file, "PNG")
    for step in range(50_000, 250_000, 5000):
        (long / "samples" / f"step_{step:08d}.png").write_bytes(file.getvalue())
    text = page.render(facts.gather(long))
    read = Reader(text)
    assert "9 of 43 sheets are shown, more of them from the start, all of them in samples/; 34 left out." in read.text
    assert len([cells for cells in read.rows if cells[0].split()[0].replace(",", "").isdigit()]) == 12
    assert re.search(r"12 of [\d,]+ validations are shown", read.text)
    assert read.pictures[-1][:2] == (
        "Validation photos at step 245,000: input with its holes, coarse result, completed image, truth",
        "image/webp",
    )
    assert len(text) < 4_000_000


@pytest.mark.parametrize("count", [1, 2, 8, 9, 12, 33, 1000])
def test_thinned_out_keeps_both_ends_and_the_best(count):
    for best in range(0, count, 7):
        chosen = facts.thin_out(count, 8, always=[best])
        assert {0, best, count - 1} <= set(chosen)
        assert len(chosen) == len(set(chosen)) == min(count, 8)
        assert chosen == sorted(chosen)


def damaged(name, content):
    def make(finished, folder):
        made = copied(finished, folder)
        (made / name).write_bytes(content)
        return made

    return make


def exported(finished, folder):
    models.export(finished, folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda finished, folder: folder / "nowhere", "does not exist; give the workdir of a training run."),
        (lambda finished, folder: folder, "holds no config.json; give the workdir of a training run."),
        (exported, "is a file, and an exported model has no history; give the workdir of its training run."),
        (damaged("config.json", b"{"), "put back the config of the run."),
        (damaged("config.json", b"[]"), "config.json holds no config: it is damaged, or of something else."),
        (damaged("metrics.jsonl", b'{"step": 0, "epoch": 0}\n{}}\n'), "is damaged in line 2; remove that line."),
        (damaged("metrics.jsonl", b'{"loss": 1}\n'), "is damaged in line 1; remove that line."),
        (damaged("environment.jsonl", b"\xff\n"), "is damaged in line 1; remove that line."),
    ],
)
def test_folders_that_are_no_run_get_one_sentence(finished, tmp_path, make, message):
    with pytest.raises(UserError, match=re.escape(message) + "$"):
        facts.gather(make(finished, tmp_path))


def test_what_cannot_be_done_is_said_without_a_traceback(finished, tmp_path):
    done = report(tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == f"inpaint-jax report: {tmp_path / 'nowhere'} does not exist; give the workdir of a training run.\n"
    )
    with pytest.raises(UserError, match="holds no finished evaluation; give the --output of"):
        facts.gather(finished, [tmp_path])
    (tmp_path / "taken.html").mkdir()
    done = report(finished, f"--output={tmp_path / 'taken.html'}")
    assert done.stderr.strip().endswith("taken.html: Is a directory; correct the path.")
    assert list(tmp_path.iterdir()) == [tmp_path / "taken.html"]


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_in_a_browser(chromium_page, page_file, width, scheme):
    """Nothing is loaded and nothing fails; all pictures are drawn; nothing is wider than the window."""
    chromium_page.set_viewport_size({"width": width, "height": 800})
    chromium_page.emulate_media(color_scheme=scheme)
    faults = record_faults(chromium_page, allowed=("data:", page_file.as_uri()))
    chromium_page.goto(page_file.as_uri(), wait_until="load")
    pictures = chromium_page.evaluate("[...document.images].map(image => [image.alt, image.naturalWidth])")
    assert len(pictures) == 11
    assert all(alt and natural_width > 0 for alt, natural_width in pictures)
    assert chromium_page.evaluate("document.documentElement.scrollWidth") <= width
    links = chromium_page.eval_on_selector_all("nav a", "links => links.map(link => link.hash.slice(1))")
    assert all(chromium_page.locator(f"h2#{name}").is_visible() for name in links)
    # The plots follow the colours of the page.
    corner = np.asarray(Image.open(io.BytesIO(chromium_page.locator(".plots img").first.screenshot())))[1, 1, :3]
    assert (corner.mean() > 200) == (scheme == "light")
    assert faults == []
