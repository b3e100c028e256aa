"""The web page as an editor: what people who know others expect of it, in a real Chromium against the real server."""

import base64
import io
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
import requests
from browser import PATIENCE, record_faults
from conftest import REPOSITORY
from demo_page import ask, brush_hole, decoded, demo, distance_to, look, png, shown_result, square, stroke, upload
from PIL import Image

from inpaint_jax.classical import complete
from inpaint_jax.data.sources import open_source
from inpaint_jax.inference.growing import auto_growth, grow

LAPTOP = {"width": 1366, "height": 657}


@pytest.fixture(scope="module")
def address(tiny_workdir):
    with demo(f"--checkpoint={tiny_workdir}") as address:
        yield address


@pytest.fixture(scope="module")
def cup():
    return Image.fromarray(np.asarray(open_source("skimage:validation")[0])).resize((300, 200))


@pytest.fixture(scope="module")
def photo(cup, tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "cup.png"
    cup.save(path)
    return path


@pytest.fixture(scope="module")
def wires():
    """A photo of 2400 x 1600 pixels, and a hole whose 600 windows take long."""
    large = np.asarray(Image.fromarray(np.asarray(open_source("skimage:validation")[0])).resize((2400, 1600)))
    hole = np.zeros(large.shape[:2], bool)
    hole[20::48] = True
    return large, hole


def compile_for(address, large):
    """Has the server compile what it needs for the windows of `wires`."""
    hole = np.zeros(large.shape[:2], np.uint8)
    hole[800, 800:1000] = 255
    assert ask(address, png(large), hole, "first", 256).ok


def in_sight(page, *names):
    """Whether all of these elements lie inside the window."""
    size = page.viewport_size
    boxes = [page.locator(name).bounding_box() for name in names]
    return all(
        b["y"] >= 0 and b["y"] + b["height"] <= size["height"] and b["x"] + b["width"] <= size["width"] for b in boxes
    )


def wait_until_filled(page):
    page.wait_for_selector("#cancel", state="hidden")
    assert page.inner_text("#error") == ""


def width(page):
    return int(page.input_value("#width"))


def test_it_is_an_editor(chromium_page, address, photo):
    """On a small laptop, mostly by keys: brush, zoom, fill, compare, save, go on, undo."""
    page, faults = chromium_page, record_faults(chromium_page, (address, "blob:"))
    page.set_viewport_size(LAPTOP)
    upload(page, address, photo)
    page.click("#fill")
    assert page.inner_text("#error").startswith("Nothing is brushed yet")
    assert in_sight(page, "#canvas", "#fill", "#error")

    page.keyboard.press("]")
    assert width(page) == 55
    page.keyboard.press("[")
    page.keyboard.press("[")
    assert width(page) < 48
    box = page.locator("#canvas").bounding_box()
    corner = round(box["x"] + box["width"] / 4), round(box["y"] + box["height"] / 4)
    page.mouse.move(*corner)
    page.keyboard.down("Alt")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Alt")
    page.wait_for_selector("#width-shown:has-text('48')")

    # Ctrl + wheel enlarges about the pointer; Space-drag moves the canvas along and draws nothing.
    bare = look(page)
    page.mouse.move(*corner)
    page.keyboard.down("Control")
    for _ in range(3):
        page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_selector("#canvas[style*='scale(2.7']")
    zoomed = page.locator("#canvas").bounding_box()
    scale = zoomed["width"] / box["width"]
    for axis, place in zip("xy", corner):
        assert zoomed[axis] + scale * (place - box[axis]) == pytest.approx(place, abs=1)
    page.locator("#canvas").focus()
    page.keyboard.down("Space")
    page.mouse.down()
    page.mouse.move(corner[0] - 40, corner[1] - 30, steps=3)
    page.mouse.up()
    page.keyboard.up("Space")
    moved = page.locator("#canvas").bounding_box()
    assert (moved["x"] - zoomed["x"], moved["y"] - zoomed["y"]) == pytest.approx((-40, -30), abs=1)
    page.mouse.down(button="middle")
    page.mouse.move(*corner, steps=3)
    page.mouse.up(button="middle")
    assert page.locator("#canvas").bounding_box() == pytest.approx(zoomed, abs=1)
    assert page.locator("#undo").is_disabled()

    # What is drawn in the enlarged photo is where it was drawn, and as wide as the brush is.
    page.locator("#width").fill("60")
    line = [(60, 45), (95, 60)]
    stroke(page, line)
    page.keyboard.press("0")
    drawn = look(page)
    assert drawn != bare
    page.keyboard.press("Enter")
    page.wait_for_selector("#result:visible")
    wait_until_filled(page)
    before = np.asarray(Image.open(photo))
    changed = (shown_result(page) != before).any(axis=-1)
    away, radius = distance_to(line, *changed.shape), 60 * 300 / 1024 / 2
    assert not changed[away > radius + auto_growth(changed.shape) + 1].any()
    assert changed[away < radius + auto_growth(changed.shape) - 2].mean() > 0.9

    # It is shown filled, and uncovered while O or a button is held.
    assert in_sight(page, "#download", "#go-on", "#after")
    covers = "getComputedStyle(document.getElementById('before')).clipPath"
    hidden = page.evaluate(covers)
    assert hidden == "inset(0px 100% 0px 0px)"
    page.keyboard.down("o")
    assert page.evaluate(covers) != hidden
    page.keyboard.up("o")
    assert page.evaluate(covers) == hidden
    page.locator("#with-result .hold").hover()
    page.mouse.down()
    assert page.evaluate(covers) != hidden
    page.mouse.up()
    assert page.evaluate(covers) == hidden
    with page.expect_download() as download:
        page.keyboard.press("Control+s")
    assert download.value.suggested_filename == "cup_filled.png"

    # Going on: the result is the photo, without a hole; undo leads back, and redo forth.
    page.click("#go-on")
    page.wait_for_selector("#doing:has-text('Undo leads back')")
    page.mouse.move(2, 2)
    assert in_sight(page, "#canvas", "#fill")
    on = look(page)
    assert on not in (bare, drawn)
    page.click("#fill")
    assert page.inner_text("#error").startswith("Nothing is brushed yet")
    page.keyboard.down("o")
    assert look(page) == bare
    page.keyboard.up("o")
    page.keyboard.press("Control+z")
    assert look(page) == drawn
    page.keyboard.press("Control+z")
    assert look(page) == bare
    page.keyboard.press("Control+y")
    page.keyboard.press("Control+y")
    assert look(page) == on
    assert page.locator("#redo").is_disabled()
    assert faults == []


def test_strokes_masks_and_cancelling(chromium_page, address, photo, wires, tmp_path):
    page, faults = chromium_page, record_faults(chromium_page, (address, "blob:"))
    upload(page, address, photo)
    bare = look(page)
    page.locator("#method").select_option("telea")
    page.locator("#grow").uncheck()
    page.locator("#each").check()
    brush_hole(page, [(60, 60), (90, 60)], width=60)
    page.wait_for_selector("#result:visible")
    wait_until_filled(page)
    first = look(page)
    brush_hole(page, [(200, 140), (240, 140)], width=60)
    wait_until_filled(page)
    assert len({bare, first, look(page)}) == 3
    page.click("#undo")  # a stroke and its filling go together
    assert look(page) == first
    page.click("#undo")
    assert look(page) == bare
    page.click("#redo")
    assert look(page) == first
    page.locator("#each").uncheck()

    # A mask that was saved here is one for `fill`, and loads again.
    brush_hole(page, [(150, 100), (150, 120)], width=60)

    def saved_mask():
        with page.expect_download() as download:
            page.click("#save-mask")
        assert download.value.suggested_filename == "cup_mask.png"
        download.value.save_as(tmp_path / "mask.png")
        return np.asarray(Image.open(tmp_path / "mask.png").convert("L"))

    mask = saved_mask()
    assert set(np.unique(mask)) == {0, 255}
    away, radius = distance_to([(150, 100), (150, 120)], *mask.shape), 60 * 300 / 1024 / 2
    assert (mask[away < radius - 1] == 255).all()
    assert (mask[away > radius + 1] == 0).all()
    page.click("#clear")
    page.set_input_files("#mask", tmp_path / "mask.png")
    page.wait_for_selector("#doing:has-text('The mask was added')")
    np.testing.assert_array_equal(saved_mask(), mask)

    # Cancelling ends the work of the server, too.
    large, hole = wires
    compile_for(address, large)
    Image.fromarray(large).save(tmp_path / "large.png")
    Image.fromarray(hole).save(tmp_path / "wires.png")
    page.set_input_files("#file", tmp_path / "large.png")
    page.wait_for_selector("#canvas[width='2048']")
    page.wait_for_selector("#cancel", state="hidden")
    page.set_input_files("#mask", tmp_path / "wires.png")
    page.wait_for_selector("#undo:enabled")
    page.locator("#method").select_option("")
    page.locator("#side").select_option("256")
    with page.expect_request("**/api/turns/*") as asked:
        page.click("#fill")
    time.sleep(1)
    assert requests.get(asked.value.url, timeout=10).json() == {"before": 0}
    page.click("#cancel")
    page.wait_for_selector("#doing:text-is('Cancelled.')")
    ended = time.monotonic() + 15
    while requests.get(asked.value.url, timeout=10).json() != {"before": None}:
        assert time.monotonic() < ended, "the server works on"
        time.sleep(0.1)
    assert [fault for fault in faults if "/api/fill" not in fault] == []


def test_two_fingers_zoom_and_errors_are_seen_on_a_phone(chromium_page, address, photo):
    page = chromium_page.context.browser.new_page(
        viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    page.set_default_timeout(PATIENCE)
    upload(page, address, photo)
    before = page.locator("#canvas").bounding_box()
    x, y = before["x"] + before["width"] / 2, before["y"] + before["height"] / 2
    finger = page.context.new_cdp_session(page)

    def touch(kind, *points):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": a, "y": b} for a, b in points]})

    touch("touchStart", (x - 20, y), (x + 20, y))
    touch("touchMove", (x - 30, y), (x + 30, y))
    touch("touchMove", (x - 50, y), (x + 50, y + 10))
    touch("touchEnd", (x - 50, y))
    touch("touchMove", (x - 10, y + 30))  # the finger that is left draws nothing
    touch("touchEnd")
    page.wait_for_selector("#canvas[style*='scale(']")
    after = page.locator("#canvas").bounding_box()
    assert after["width"] / before["width"] == pytest.approx(2.5, abs=0.1)
    assert page.locator("#undo").is_disabled()
    page.locator("#fill").tap()
    page.wait_for_selector("#error:not(:empty)")
    assert in_sight(page, "#fill", "#error")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


# ------------------------------------------------------------------------------------------------------------ by HTTP


def test_results_are_files_of_the_same_kind(address, cup):
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    hole = square(200, 300)
    for mode, kind, suffix in (
        ("L", "JPEG", "jpg"),
        ("RGB", "JPEG", "jpeg"),
        ("L", "PNG", "png"),
        ("RGB", "TIFF", "tif"),
    ):
        file = io.BytesIO()
        cup.convert(mode).save(file, kind, exif=exif)
        made = ask(address, file.getvalue(), hole, method="telea", name=f"cup.{suffix}").json()["variants"][0]
        assert made["name"] == f"cup_filled.{suffix}"
        result = Image.open(io.BytesIO(base64.b64decode(made["image"])))
        assert (result.format, result.mode, result.getexif()[0x010F]) == (kind, mode, "A camera")
        assert made["type"] == Image.MIME[kind]
        assert (made["shown"] is None) == (kind != "TIFF")
        assert np.abs(np.asarray(result, int) - np.asarray(Image.open(file)))[hole == 0].mean() < 0.3

    # What was filled is opaque, what was not is as transparent as it was.
    alpha = np.full((200, 300), 255, np.uint8)
    alpha[50:150, 75:225] = alpha[:10] = 0
    made = decoded(ask(address, png(np.dstack([cup, alpha])), hole, method="telea"))
    assert made.shape == (200, 300, 4)
    assert (made[..., 3] == np.where(hole > 0, 255, alpha)).all()


def test_methods_and_growing(address, cup):
    hole = square(200, 300, share=3)
    given = np.asarray(cup)
    answer = ask(address, png(given), hole, method="navier_stokes", grow=True)
    expected = complete("navier_stokes", given, grow(hole > 0, "auto", 256))
    np.testing.assert_array_equal(decoded(answer), expected)
    assert answer.json()["variants"][0]["grown"] == auto_growth((200, 300), 256)
    assert ask(address, png(given), hole, method="magic").json()["error"].startswith("There is no method 'magic' here")
    assert requests.get(f"{address}/api/model", timeout=30).json()["methods"]["telea"] == "Telea"


def test_masks_are_read_or_refused(address):
    def send(data, size=(300, 200)):
        sent = {"mask": ("hole.jpg", data)}
        return requests.post(
            f"{address}/api/mask", files=sent, data={"width": size[0], "height": size[1]}, timeout=30
        ).json()

    soft = cv2.GaussianBlur(square(200, 300), (0, 0), 2)
    hole = np.asarray(Image.open(io.BytesIO(base64.b64decode(send(png(soft))["hole"]))))
    np.testing.assert_array_equal(hole, soft > 127)
    assert send(png(soft), (400, 200)) == {
        "error": "hole.jpg has 300 x 200 pixels, but the photo has 400 x 200; choose a mask of the photo's size."
    }
    assert send(b"no picture")["error"].startswith("hole.jpg is no photo that can be read here")


@pytest.mark.slow
def test_ctrl_c_during_a_fill(tiny_workdir, wires):
    command = [sys.executable, "-m", "inpaint_jax.demo", "--port=0", f"--checkpoint={tiny_workdir}"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    address = next(line for line in process.stderr if "The page is at" in line).split("at ")[1].split()[0]
    large, hole = wires
    compile_for(address, large)
    answers = []
    visit = threading.Thread(target=lambda: answers.append(ask(address, png(large), hole * np.uint8(255), "a", 256)))
    visit.start()
    while requests.get(f"{address}/api/turns/a", timeout=10).json() != {"before": 0}:
        time.sleep(0.1)
    time.sleep(1)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[1]
    assert time.monotonic() - started < 15
    assert process.returncode == 0
    assert printed == ""
    visit.join()
    assert answers[0].json() == {"error": "The server was ended; start it again."}
