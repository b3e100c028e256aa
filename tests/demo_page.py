"""Drives the web page of tests, in a browser and by HTTP: a server, strokes, and what came of them."""

import base64
import io
import re
import subprocess
import sys
import threading
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import requests
from conftest import REPOSITORY
from PIL import Image


@contextmanager
def demo(*arguments):
    """The address of a page that runs in a process of its own."""
    command = [sys.executable, "-m", "inpaint_jax.demo", "--port=0", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"The page is at (\S+)", line):
                break
        else:
            pytest.fail("".join(lines))
        # Read on, so that the server never waits for somebody to take its log.
        threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True).start()
        yield found[1]
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert "Traceback" not in "".join(lines)


def stroke(page, points):
    """Draws with the mouse; points in pixels of the photo. Takes them as the canvas does, for where it ends up."""
    box = page.locator("#canvas").bounding_box()
    width = page.evaluate("document.getElementById('canvas').width")
    at = [(box["x"] + x * box["width"] / width, box["y"] + y * box["width"] / width) for x, y in points]
    page.mouse.move(*at[0])
    page.mouse.down()
    for x, y in at[1:]:
        page.mouse.move(x, y, steps=10)
    page.mouse.up()


def choose_tool(page, name):
    page.locator(f"input[name=tool][value={name}]").check(force=True)


def brush_hole(page, points, width=120):
    """Draws a hole; `width` is of the page's own scale, whose 1024 are the longest side of the photo."""
    page.locator("#width").fill(str(width))
    choose_tool(page, "hole")
    stroke(page, points)


def upload(page, address, photo):
    page.goto(address)
    page.wait_for_selector("#examples img")
    page.set_input_files("#file", photo)
    page.wait_for_selector("#panel:visible")


def fill(page):
    page.click("#fill")
    page.wait_for_selector("#result:visible")
    page.wait_for_selector("#cancel", state="hidden")


def look(page):
    """The canvas as it is drawn, without the brush, as bytes of a PNG."""
    page.mouse.move(2, 2)
    # What was asked for is drawn with the next frame.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.locator("#canvas").screenshot()


def shown_result(page):
    """The pixels of the picture that the page shows as its result."""
    data = page.evaluate("""async () => {
        const image = document.getElementById('after');
        await image.decode();
        const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
        const context = canvas.getContext('2d');
        context.drawImage(image, 0, 0);
        return [canvas.height, canvas.width, ...context.getImageData(0, 0, canvas.width, canvas.height).data];
    }""")
    return np.array(data[2:], np.uint8).reshape(*data[:2], 4)[..., :3]


def distance_to(points, height, width):
    """Of every pixel to a polyline, in pixels."""
    canvas = np.full((height, width), 255, np.uint8)
    cv2.polylines(canvas, [np.round(np.array(points)).astype(np.int32)], False, 0)
    return cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def square(height, width, share=4):
    hole = np.zeros((height, width), np.uint8)
    hole[height // share : -height // share, width // share : -width // share] = 255
    return hole


def ask(address, photo, hole, ticket="a", side=256, *, name="cup.png", method="", grow=False, **files):
    files = {"photo": (name, photo), "hole": ("hole.png", png(hole)), **files}
    data = {"ticket": ticket, "side": side, "method": method, "grow": grow}
    return requests.post(f"{address}/api/fill", files=files, data=data, timeout=300)


def decoded(answer):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["variants"][0]["image"]))))
