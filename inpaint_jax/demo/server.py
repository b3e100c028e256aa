"""The page's server: files of the page, and a few calls that take a photo and drawings and give pictures back.

Nothing is kept between two calls: the page sends the photo again with each. Whatever goes wrong reaches the page as
{"error": one sentence}.
"""

import base64
import dataclasses
import io
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import skimage
from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image, UnidentifiedImageError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from inpaint_jax.data.images import UnreadableImage, read_image
from inpaint_jax.data.photos import read_photo
from inpaint_jax.demo.studio import Studio, StudioError
from inpaint_jax.demo.turns import Crowded, Turns

_log = logging.getLogger("inpaint_jax")

_PAGE = Path(__file__).parent / "page"
_PREVIEW_SIDE = 1024
_MOST_WAITING = 16
_SIDES = (256, 512, 1024, 2048)

# Photos inside scikit-image: file and title, which is the alternative text too.
_EXAMPLES = {
    "coffee.png": "A cup of coffee on a wooden table",
    "chelsea.png": "A tabby cat",
    "rocket.jpg": "A rocket on its launch pad",
    "astronaut.png": "An astronaut in front of a flag",
}

# The page is made of its own files alone, and of pictures that its script holds in memory.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What visitors may ask for.

    Attributes:
        megabytes: of an upload.
        megapixels: of a photo.
        side: longest, in pixels, that the model works at.
    """

    megabytes: float = 30
    megapixels: float = 60
    side: int = 2048

    @property
    def sides(self) -> list[int]:
        """The working sizes to choose from."""
        return [side for side in _SIDES if side < self.side] + [self.side]


def make_app(studio: Studio, limits: Limits) -> FastAPI:
    """The server as an ASGI application.

    Args:
        studio: does the work.
        limits: on what visitors send.
    """
    app = FastAPI(title="inpaint_jax", docs_url=None, redoc_url=None, openapi_url=None)
    turns = Turns(_MOST_WAITING)

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html")

    @app.get("/api/model")
    async def model() -> dict[str, Any]:
        side = 512 if studio.image_size <= 512 else studio.image_size
        return {
            **studio.facts(),
            "limits": dataclasses.asdict(limits),
            "sides": limits.sides,
            "side": min(side, limits.side),
            "examples": [{"file": file, "title": title} for file, title in _EXAMPLES.items()],
        }

    @app.get("/api/examples/{file}")
    async def example(file: str) -> FileResponse:
        if file not in _EXAMPLES:
            raise HTTPException(404, f"There is no example {file}.")
        return FileResponse(Path(skimage.__file__).parent / "data" / file)

    @app.post("/api/photo")
    async def look(photo: Annotated[UploadFile, File()]) -> dict[str, Any]:
        """What the page draws on: the photo upright and small, and the hole that its transparency makes."""
        return await run_in_threadpool(_preview, await photo.read(), photo.filename or "The file", limits)

    @app.post("/api/suggest")
    async def suggest(photo: Annotated[UploadFile, File()], ticket: Annotated[str, Form()]) -> dict[str, Any]:
        pixels = await run_in_threadpool(_read, await photo.read(), photo.filename or "The file", limits)
        async with turns.turn(ticket):
            lines = await run_in_threadpool(studio.suggest, pixels, min(_PREVIEW_SIDE, max(pixels.shape)))
        return {"lines": _png(np.where(lines, 255, 0).astype(np.uint8))}

    @app.post("/api/fill")
    async def fill(
        request: Request,
        photo: Annotated[UploadFile, File()],
        hole: Annotated[UploadFile, File()],
        ticket: Annotated[str, Form()],
        side: Annotated[int, Form()],
        lines: Annotated[UploadFile | None, File()] = None,
        compare: Annotated[bool, Form()] = False,
    ) -> Any:
        """The photo without its hole; with `compare`, also as it would be without the lines."""
        if not 64 <= side <= limits.side:
            raise StudioError(f"The working size must be from 64 to {limits.side} pixels, not {side}.")
        pixels = await run_in_threadpool(_read, await photo.read(), photo.filename or "The file", limits)
        missing = _drawing(await hole.read(), "hole")
        drawn = None if lines is None else _drawing(await lines.read(), "sketch")
        wanted = {"with your lines" if drawn is not None else "filled": drawn}
        if compare and drawn is not None and not studio.needs_lines:
            wanted["without lines"] = None
        variants = []
        async with turns.turn(ticket):
            for label, sketch in wanted.items():
                if await request.is_disconnected():
                    return JSONResponse({"error": "Cancelled."}, 499)
                filled = await run_in_threadpool(studio.fill, pixels, missing, sketch, side)
                variants.append(
                    {
                        "label": label,
                        "image": await run_in_threadpool(_png, filled.pixels),
                        "temperatures": [float(t) for t in filled.temperatures],
                        "worked_at": filled.worked_at,
                        "seconds": round(filled.seconds, 2),
                    }
                )
        return {"variants": variants}

    @app.get("/api/turns/{ticket}")
    async def before(ticket: str) -> dict[str, int | None]:
        """How many are served first: 0 while one is served oneself, null for an unknown ticket."""
        return {"before": turns.before(ticket)}

    app.mount("/page", StaticFiles(directory=_PAGE), name="page")
    for kind, status in ((StudioError, 422), (UnreadableImage, 422), (Crowded, 503)):
        app.add_exception_handler(kind, partial(_sentence, status))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _incomplete)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(_Guard, limits=limits)
    return app


class _Guard:
    """Refuses uploads that are too large before they are read, and adds the headers of safety to every answer."""

    def __init__(self, app: ASGIApp, limits: Limits):
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.lower().encode(), value.encode()) for name, value in _HEADERS.items()),
                ]
            await send(message)

        headers = dict(scope["headers"])
        if scope["method"] == "POST":
            length = headers.get(b"content-length", b"")
            most = self._limits.megabytes
            # The photo, and drawings of at most as much again.
            if not length.isdigit() or int(length) > 2 * most * 1e6:
                sentence = f"That is more than the {most:g} megabytes that may be sent; choose a smaller photo."
                await JSONResponse({"error": sentence}, 413)(scope, receive, send_with_headers)
                return
        await self._app(scope, receive, send_with_headers)


def _read(data: bytes, name: str, limits: Limits) -> np.ndarray:
    """uint8 [H, W, 3], upright; too large ones are refused before they are decoded."""
    _check_size(data, name, limits)
    return read_image(data, name=name)


def _check_size(data: bytes, name: str, limits: Limits) -> None:
    if len(data) > limits.megabytes * 1e6:
        raise StudioError(f"{name} has more than the {limits.megabytes:g} megabytes that may be sent; make it smaller.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is ours
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise StudioError(f"{name} is no photo that can be read here; choose a JPEG, PNG or WebP file.") from error
    if width * height > limits.megapixels * 1e6:
        raise StudioError(
            f"{name} has {width} x {height} pixels, more than the {limits.megapixels:g} megapixels that may be sent; "
            "make it smaller."
        )


def _preview(data: bytes, name: str, limits: Limits) -> dict[str, Any]:
    _check_size(data, name, limits)
    photo = read_photo(data, name=name)
    height, width = photo.pixels.shape[:2]
    scale = min(1.0, _PREVIEW_SIDE / max(height, width))
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    hole = None
    if photo.alpha is not None and (photo.alpha < 128).any():
        hole = cv2.resize(np.where(photo.alpha < 128, 255, 0).astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST)
    return {
        "width": width,
        "height": height,
        "preview": _png(cv2.resize(photo.pixels, shape, interpolation=cv2.INTER_AREA)),
        "hole": None if hole is None else _png(hole),
    }


def _drawing(data: bytes, kind: str) -> np.ndarray:
    """bool [H, W] from a PNG of the page, white = True."""
    return read_image(data, name=f"The {kind}")[..., 0] > 127


def _png(pixels: np.ndarray) -> str:
    """[H, W, 3] RGB or [H, W], as base64."""
    ordered = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    # Quick rather than small: it goes no further than the visitor's browser.
    _, data = cv2.imencode(".png", ordered, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return base64.b64encode(data).decode()


def _sentence(status: int, request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status)


def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": str(error.detail)}, error.status_code)


def _incomplete(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = ", ".join(sorted({str(problem["loc"][-1]) for problem in error.errors()}))
    return JSONResponse({"error": f"The request is incomplete or wrong in: {fields}; reload the page."}, 422)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed.", request.method, request.url.path, exc_info=error)
    return JSONResponse({"error": "Something went wrong in the server; its log says what."}, 500)
