"""The web page: in a real Chromium, against the real server, with models that were hardly trained."""

import base64
import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import requests
from browser import PATIENCE, keep_screenshot, record_faults
from conftest import REPOSITORY
from demo_page import (
    ask,
    brush_hole,
    choose_tool,
    decoded,
    demo,
    distance_to,
    fill,
    look,
    png,
    shown_result,
    square,
    stroke,
    upload,
)
from PIL import Image, ImageCms

from inpaint_jax import models
from inpaint_jax.config import Config
from inpaint_jax.data.sources import open_source
from inpaint_jax.features import pidinet
from inpaint_jax.inference.growing import auto_growth
from inpaint_jax.systems.mhtma import make_generator


@pytest.fixture(scope="module")
def guided_model(make_config, tmp_path_factory):
    """A file with an untrained model that is guided by sketches."""
    config = make_config(name="guided", model__sketch=True).to_dict()
    generator = make_generator(Config.read(config))
    blank = np.zeros((1, 32, 32, 3), np.float32)
    params = jax.jit(generator.init)(jax.random.key(0), blank, blank[..., 0] > 0, blank[..., 0] > 0)["params"]
    path = tmp_path_factory.mktemp("model") / "guided.safetensors"
    models.write_model(path, jax.device_get(params), config, step=0)
    return path


@pytest.fixture(scope="module")
def guided(guided_model):
    """The address of a page with that model; with PiDiNet, if its weights are there."""
    shared = Path(os.environ.get("INPAINT_JAX_SHARED") or REPOSITORY.parent / "shared")
    weights = shared / "weights" / pidinet.PIDINET.name
    more = [f"--pidinet_weights={weights}"] if weights.exists() else []
    with demo(f"--checkpoint={guided_model}", "--max_megapixels=2", *more) as address:
        yield address


@pytest.fixture(scope="module")
def unguided(tiny_workdir):
    with demo(f"--checkpoint={tiny_workdir}") as address:
        yield address


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A photo of 300 x 200 pixels, as a file."""
    path = tmp_path_factory.mktemp("photo") / "cup.png"
    Image.fromarray(np.asarray(open_source("skimage:validation")[0])).resize((300, 200)).save(path)
    return path


# ------------------------------------------------------------------------------------------------------- in a browser


HOLE = [(90, 100), (170, 110), (210, 90)]


def test_hole_and_line_by_mouse(chromium_page, guided, photo, tmp_path):
    faults = record_faults(chromium_page, (guided, "blob:"))
    upload(chromium_page, guided, photo)
    brush_hole(chromium_page, HOLE)
    choose_tool(chromium_page, "line")
    stroke(chromium_page, [(95, 100), (160, 108), (205, 92)])
    keep_screenshot(chromium_page, "demo_drawing")
    fill(chromium_page)
    keep_screenshot(chromium_page, "demo_result")

    with chromium_page.expect_download() as download:
        chromium_page.click("#download")
    assert download.value.suggested_filename == "cup_filled.png"
    download.value.save_as(tmp_path / "downloaded.png")
    before, after = (np.asarray(Image.open(path)) for path in (photo, tmp_path / "downloaded.png"))
    np.testing.assert_array_equal(shown_result(chromium_page), after)
    assert after.shape == before.shape
    changed = (before != after).any(axis=-1)
    away = distance_to(HOLE, *changed.shape)
    radius = 120 * 300 / 1024 / 2
    rim = auto_growth((200, 300)) + 2
    assert not changed[away > radius + rim].any()
    assert changed[away < radius - 2].mean() > 0.9

    # The same without the lines is another picture, with other temperatures or not, and as many of them.
    labels = chromium_page.locator("#variants label").all_inner_texts()
    assert labels == ["with your lines", "without lines"]
    chromium_page.locator("#variants input >> nth=1").check(force=True)
    without = shown_result(chromium_page)
    assert (without != after).any()
    assert (without == after)[away > radius + rim].all()
    assert chromium_page.locator("#temperatures li").count() == 2
    assert faults == []


def test_slider_uncovers_the_original(chromium_page, guided, photo):
    upload(chromium_page, guided, photo)
    brush_hole(chromium_page, HOLE)
    fill(chromium_page)
    chromium_page.focus("#slider")
    for _ in range(10):
        chromium_page.keyboard.press("ArrowRight")
    assert chromium_page.locator("#comparison").evaluate("e => e.style.getPropertyValue('--at')") == "10%"
    boxes = [chromium_page.locator(name).bounding_box() for name in ("#before", "#after")]
    assert boxes[0] == pytest.approx(boxes[1], abs=1)


def test_hole_by_keyboard(chromium_page, guided, photo):
    upload(chromium_page, guided, photo)
    canvas = chromium_page.locator("#canvas")
    canvas.focus()
    for key in ("Space", *["Shift+ArrowRight"] * 3, "Space"):
        chromium_page.keyboard.press(key)
    drawn = look(chromium_page)
    chromium_page.keyboard.press("z")
    assert look(chromium_page) != drawn
    chromium_page.keyboard.press("Shift+z")
    assert look(chromium_page) == drawn
    chromium_page.keyboard.press("Enter")
    chromium_page.wait_for_selector("#result:visible")
    before = np.asarray(Image.open(photo))
    changed = (shown_result(chromium_page) != before).any(axis=-1)
    # From the middle of the photo, 3 x 24 pixels to the right, with a brush of 48 / 1024 of the longest side.
    away, radius = distance_to([(150, 100), (222, 100)], *changed.shape), 48 * 300 / 1024 / 2
    assert not changed[away > radius + auto_growth((200, 300)) + 2].any()
    assert changed[away < radius - 2].mean() > 0.9


def test_undo_while_a_stroke_goes_on(chromium_page, guided, photo):
    upload(chromium_page, guided, photo)
    bare = look(chromium_page)
    chromium_page.locator("#canvas").focus()
    for key in ("Space", "Shift+ArrowRight", "z"):
        chromium_page.keyboard.press(key)
    chromium_page.keyboard.press("ArrowLeft")  # draws nothing: the pen is up
    chromium_page.locator("#canvas").blur()
    brush_hole(chromium_page, HOLE)
    chromium_page.click("#undo")
    chromium_page.mouse.move(1, 1)
    assert look(chromium_page) == bare


def test_undo_redo_and_erasers(chromium_page, guided, photo):
    upload(chromium_page, guided, photo)
    bare = look(chromium_page)
    brush_hole(chromium_page, HOLE)
    with_hole = look(chromium_page)
    choose_tool(chromium_page, "line")
    stroke(chromium_page, [(95, 100), (205, 95)])
    with_line = look(chromium_page)
    assert len({bare, with_hole, with_line}) == 3
    chromium_page.click("#undo")
    assert look(chromium_page) == with_hole
    chromium_page.click("#undo")
    assert look(chromium_page) == bare
    chromium_page.click("#redo")
    chromium_page.click("#redo")
    assert look(chromium_page) == with_line
    choose_tool(chromium_page, "line-eraser")
    stroke(chromium_page, [(90, 100), (210, 95)])
    assert look(chromium_page) == with_hole  # erasing lines leaves the hole
    chromium_page.click("#clear")
    assert look(chromium_page) == bare


def test_suggested_sketch(chromium_page, guided, photo, shared):
    upload(chromium_page, guided, photo)
    brush_hole(chromium_page, HOLE)
    before = look(chromium_page)
    with chromium_page.expect_response("**/api/suggest"):
        chromium_page.click("#suggest")
    chromium_page.wait_for_selector("#cancel", state="hidden")
    assert look(chromium_page) != before
    keep_screenshot(chromium_page, "demo_suggestion")
    fill(chromium_page)
    assert chromium_page.locator("#variants label").count() == 2


def test_example_on_a_phone(chromium_page, unguided):
    faults = record_faults(chromium_page, (unguided, "blob:"))
    chromium_page.set_viewport_size({"width": 390, "height": 844})
    chromium_page.goto(unguided)
    chromium_page.click("#examples button >> nth=0")
    chromium_page.wait_for_selector("#panel:visible")
    assert chromium_page.locator("#lines-tools").is_hidden()  # the model knows no lines
    chromium_page.locator("#side").select_option("256")
    brush_hole(chromium_page, [(250, 200), (350, 220)])
    fill(chromium_page)
    assert chromium_page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(chromium_page.locator("img").evaluate_all("all => all.map(i => i.alt.length > 0)"))
    keep_screenshot(chromium_page, "demo_phone")
    assert faults == []


def test_hole_by_touch(chromium_page, unguided, tmp_path):
    """On a phone, of a photo that lies on its side in the file, as phones save them."""
    photo = Image.fromarray(np.asarray(open_source("skimage:validation")[0])).resize((300, 200))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn to the right shows it upright
    photo.save(tmp_path / "phone.png", exif=exif)
    upright = np.rot90(np.asarray(photo), -1)

    page = chromium_page.context.browser.new_page(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    page.set_default_timeout(PATIENCE)
    upload(page, unguided, tmp_path / "phone.png")
    canvas = page.locator("#canvas")
    assert [page.evaluate(f"document.getElementById('canvas').{side}") for side in ("width", "height")] == [200, 300]
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    points = [(60, 120), (120, 150), (140, 200)]
    finger = page.context.new_cdp_session(page)
    for kind, (x, y) in zip(("touchStart", "touchMove", "touchMove"), points):
        at = {"x": box["x"] + x * box["width"] / 200, "y": box["y"] + y * box["width"] / 200}
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [at]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_selector("#undo:enabled")  # the stroke is there
    page.click("#fill")  # on a busy machine a tap can last so long that it is none
    page.wait_for_selector("#result:visible")
    changed = (shown_result(page) != upright).any(axis=-1)
    away, radius = distance_to(points, *changed.shape), 48 * 300 / 1024 / 2
    assert not changed[away > radius + auto_growth((200, 300)) + 2].any()
    assert changed[away < radius - 2].mean() > 0.9


def test_what_went_wrong_is_on_the_page(chromium_page, guided, photo, tmp_path):
    text = tmp_path / "notes.png"
    text.write_text("no picture at all")
    chromium_page.goto(guided)
    chromium_page.wait_for_selector("#examples img")
    chromium_page.set_input_files("#file", text)
    chromium_page.wait_for_selector("#error:not(:empty)")
    assert chromium_page.inner_text("#error") == (
        "notes.png is no photo that can be read here; choose a JPEG, PNG or WebP file."
    )
    keep_screenshot(chromium_page, "demo_error")
    upload(chromium_page, guided, photo)
    chromium_page.click("#fill")
    assert chromium_page.inner_text("#error").startswith("Nothing is brushed yet")
    brush_hole(chromium_page, HOLE)
    assert chromium_page.inner_text("#error") == ""


# ------------------------------------------------------------------------------------------------------------ by HTTP


def test_visitors_are_served_in_turn(unguided, photo):
    large = np.asarray(Image.open(photo).resize((384, 256)))
    alone = decoded(ask(unguided, png(large), square(256, 384), "alone", 384))
    answers, seen = {}, set()

    def visit(ticket):
        answers[ticket] = ask(unguided, png(large), square(256, 384), ticket, 384)

    visitors = [threading.Thread(target=visit, args=(ticket,)) for ticket in ("one", "two", "three")]
    for visitor in visitors:
        visitor.start()
    while any(visitor.is_alive() for visitor in visitors):
        for ticket in ("one", "two", "three"):
            seen.add(requests.get(f"{unguided}/api/turns/{ticket}", timeout=10).json()["before"])
        time.sleep(0.01)
    assert {0, 1, 2} <= seen
    for answer in answers.values():
        np.testing.assert_array_equal(decoded(answer), alone)


@pytest.mark.parametrize(
    ("photo_bytes", "sentence"),
    [
        (b"GIF89a and then nothing", "cup.png is no photo that can be read here; choose a JPEG, PNG or WebP file."),
        (
            png(np.zeros((1500, 1500), np.uint8)),
            "cup.png has 1500 x 1500 pixels, more than the 2 megapixels that may be sent; make it smaller.",
        ),
        (png(np.zeros((200, 4), np.uint8)), "The photo must have at least 8 pixels each way."),
        (
            png(np.zeros((8, 20000), np.uint8)),
            "The photo is too narrow: one side is more than 16 times the other; crop it.",
        ),
    ],
    ids=["no photo", "too large", "too small", "too narrow"],
)
def test_bad_photos(guided, photo_bytes, sentence):
    answer = ask(guided, photo_bytes, square(100, 100))
    assert (answer.status_code, answer.json()) == (422, {"error": sentence})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_truncated_photo(guided, photo, kind):
    """Wherever it breaks off: one sentence, or as much as can be read."""
    file = io.BytesIO()
    frame = Image.open(photo).convert("RGB")
    more = {"save_all": True, "append_images": [frame.rotate(90)]} if kind in ("GIF", "TIFF", "WEBP") else {}
    frame.save(file, kind, **more)
    data = file.getvalue()
    for share in (0.001, 0.1, 0.3, 0.45, 0.55, 0.8, 0.99):
        files = {"photo": ("cup", data[: int(share * len(data))])}
        answer = requests.post(f"{guided}/api/photo", files=files, timeout=60)
        assert answer.status_code in (200, 422)
        if answer.status_code == 422:
            assert re.match(
                r"cup (cannot be read as an image: .*|is no photo that can be .*)\.$", answer.json()["error"]
            )


@pytest.mark.parametrize(
    ("hole", "sentence"),
    [
        (np.zeros((200, 300), np.uint8), "Nothing is brushed yet; brush over what should be replaced."),
        (
            np.full((200, 300), 255, np.uint8),
            "All of the photo is brushed, so nothing is left to continue from; erase some of the hole.",
        ),
        (square(200, 200), "The hole has other proportions than the photo; draw it on the photo itself."),
    ],
    ids=["empty", "full", "other shape"],
)
def test_bad_holes(guided, photo, hole, sentence):
    answer = ask(guided, photo.read_bytes(), hole)
    assert (answer.status_code, answer.json()) == (422, {"error": sentence})


def test_requests_that_no_page_of_ours_sends(guided, unguided, photo):
    data = photo.read_bytes()
    answer = ask(unguided, data, square(200, 300), lines=("lines.png", png(square(200, 300))))
    assert answer.json() == {"error": "This model was trained without sketches and takes no lines."}
    answer = ask(guided, data, square(200, 300), side=5000)
    assert answer.json() == {"error": "The working size must be from 64 to 2048 pixels, not 5000."}
    answer = requests.post(f"{guided}/api/fill", files={"photo": ("cup.png", data)}, timeout=30)
    assert answer.json() == {"error": "The request is incomplete or wrong in: hole, side, ticket; reload the page."}
    answer = requests.post(f"{guided}/api/photo", data=bytes(61_000_000), timeout=30)
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("That is more than the 30 megabytes that may be sent")
    assert requests.get(f"{guided}/api/examples/..%2F..%2Fapi.py", timeout=30).status_code == 404
    assert requests.get(f"{guided}/", timeout=30).headers["Content-Security-Policy"].startswith("default-src 'none'")


def test_pages_of_other_sites_are_refused(guided, photo):
    files = {"photo": ("cup.png", photo.read_bytes())}
    own = {"Origin": guided}
    assert requests.post(f"{guided}/api/photo", files=files, headers=own, timeout=30).status_code == 200
    foreign = ("http://evil.example", "null", "http://[", "http://]:80", "[", "://", "", "http://\xe9", f"{guided}[")
    hosts = ("evil.example", "[", "]:80", "[::1", "localhost:80:[", "\xe9", "")
    for headers in (*({"Origin": origin} for origin in foreign), *({"Host": host} for host in hosts)):
        answer = requests.post(f"{guided}/api/photo", files=files, headers=headers, timeout=30)
        assert (answer.status_code, list(answer.json())) == (403, ["error"]), headers
    assert requests.get(f"{guided}/api/model", headers={"Host": "evil.example:80"}, timeout=30).status_code == 403
    assert requests.get(guided.replace("127.0.0.1", "localhost"), timeout=30).status_code == 200


def test_colour_profile_is_kept(guided, photo):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    Image.open(photo).save(file, "JPEG", icc_profile=profile)
    answer = ask(guided, file.getvalue(), square(200, 300)).json()["variants"][0]["image"]
    assert Image.open(io.BytesIO(base64.b64decode(answer))).info["icc_profile"] == profile


def test_transparent_part_is_the_hole(guided, photo):
    pixels = np.dstack([np.asarray(Image.open(photo)), 255 - square(200, 300)])
    seen = requests.post(f"{guided}/api/photo", files={"photo": ("cut.png", png(pixels))}, timeout=30).json()
    assert (seen["width"], seen["height"]) == (300, 200)
    hole = np.asarray(Image.open(io.BytesIO(base64.b64decode(seen["hole"]))).convert("L"))
    np.testing.assert_array_equal(hole, square(200, 300))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--checkpoint=nowhere"], "nowhere"),
        (["--checkpoint={workdir}", "--port={taken}"], "give another --port"),
        (["--checkpoint={workdir}", "--pidinet_weights=nowhere.pth"], "There is no file nowhere.pth"),
    ],
    ids=["checkpoint", "port", "weights"],
)
def test_command_that_cannot_start(tiny_workdir, unguided, arguments, sentence):
    taken = unguided.rpartition(":")[2]
    arguments = [argument.format(workdir=tiny_workdir, taken=taken) for argument in ["--port=0", *arguments]]
    command = [sys.executable, "-m", "inpaint_jax.demo", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("inpaint-jax demo: ")
    assert sentence in last
    assert "Traceback" not in done.stderr
