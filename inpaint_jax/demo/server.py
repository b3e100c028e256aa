"""The page's server: the files of the page, and a few calls that take a photo and drawings and return pictures.

Nothing is kept between two calls: the page sends the photo again with each. Every error reaches the page as
{"error": one sentence}.
"""

import asyncio
import base64
import dataclasses
import io
import logging
import threading
from collections.abc import Awaitable, Callable
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
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from inpaint_jax.data.masks import read_mask
from inpaint_jax.demo.studio import Filled, Studio, touched
from inpaint_jax.demo.turns import Crowded, Left, Turns
from inpaint_jax.errors import UserError
from inpaint_jax.inference.photos import Photo, UnsavablePhoto, encode_photo, read_photo, writable_format
from inpaint_jax.inference.retouching import Stopped

_log = logging.getLogger("inpaint_jax")

_PAGE = Path(__file__).parent / "page"
_PREVIEW_SIDE = 2048  # what is drawn on, so that it can be zoomed into
_MOST_WAITING = 16
_ASK_EVERY = 0.25  # seconds, whether a visitor is still there
_SIDES = (256, 512, 1024, 2048)

# Formats that Pillow opens without other programs, and by decoding no more than the header.
Image.init()
_FORMATS = [name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF") if name in Image.OPEN]
_DRAWING_MEGAPIXELS = 5

# Results keep these formats, others become PNG. What browsers do not show travels as PNG as well.
_KEPT = [kind for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF") if kind in Image.SAVE]
_NOT_SHOWN = ("TIFF",)
_PNG = {"compress_level": 1}  # fast rather than small: it only travels to the visitor's browser

_LOCAL = ("127.0.0.1", "localhost", "[::1]")

# Photos inside scikit-image: file, and title, which is also the alternative text.
_EXAMPLES = {
    "coffee.png": "A cup of coffee on a wooden table",
    "chelsea.png": "A tabby cat",
    "rocket.jpg": "A rocket on its launch pad",
    "astronaut.png": "An astronaut in front of a flag",
}

# The page may load only its own files, and pictures that its script holds in memory.
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
        megabytes: Largest upload, in MB.
        megapixels: Largest photo, in megapixels.
        side: Longest side, in pixels, that the model may work at.
    """

    megabytes: float = 30
    megapixels: float = 60
    side: int = 2048

    @property
    def sides(self) -> list[int]:
        """The working sizes to choose from."""
        return [side for side in _SIDES if side < self.side] + [self.side]


def make_app(studio: Studio, limits: Limits, host: str = "127.0.0.1", ending: threading.Event | None = None) -> FastAPI:
    """The server as an ASGI application.

    Args:
        studio: Studio that does the work.
        limits: Limits on what visitors send.
        host: Address that it listens at. A local one is served under local names only.
        ending: Set when the server is to end: what is being filled is left.
    """
    ending = ending or threading.Event()
    app = FastAPI(title="inpaint_jax", docs_url=None, redoc_url=None, openapi_url=None)
    turns = Turns(_MOST_WAITING)
    decoding = asyncio.Semaphore(2)  # a decoded photo is much larger than its file

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
        """What the page draws on: the photo, upright and small, and the hole from its transparent part."""
        data = await photo.read()
        async with decoding:
            return await run_in_threadpool(_preview, data, photo.filename or "The file", limits)

    @app.post("/api/mask")
    async def read(
        mask: Annotated[UploadFile, File()], width: Annotated[int, Form()], height: Annotated[int, Form()]
    ) -> dict[str, Any]:
        """A mask file, white = missing, of a photo of that size, as a hole to draw on."""
        data = await mask.read()
        async with decoding:
            return {"hole": await run_in_threadpool(_hole, data, mask.filename or "The mask", (height, width), limits)}

    @app.post("/api/suggest")
    async def suggest(
        request: Request, photo: Annotated[UploadFile, File()], ticket: Annotated[str, Form()]
    ) -> dict[str, Any]:
        data = await photo.read()
        async with turns.turn(ticket, request.is_disconnected):
            pixels = (await run_in_threadpool(_decoded, data, photo.filename or "The file", limits)).pixels
            lines = await run_in_threadpool(studio.suggest, pixels, min(_PREVIEW_SIDE, max(pixels.shape[:2])))
        return {"lines": _png(lines)}

    @app.post("/api/fill")
    async def fill(
        request: Request,
        photo: Annotated[UploadFile, File()],
        hole: Annotated[UploadFile, File()],
        ticket: Annotated[str, Form()],
        side: Annotated[int, Form()],
        lines: Annotated[UploadFile | None, File()] = None,
        compare: Annotated[bool, Form()] = False,
        method: Annotated[str | None, Form()] = None,
        grow: Annotated[bool, Form()] = False,
    ) -> Any:
        """The filled photo; with `compare`, also filled without the lines. Nothing goes on for a visitor who left."""
        name = photo.filename or "The file"

        async def has_left() -> bool:
            return ending.is_set() or await request.is_disconnected()

        if not 64 <= side <= limits.side:
            raise UserError(f"The working size must be from 64 to {limits.side} pixels, not {side}.")
        data = await photo.read()
        missing = await run_in_threadpool(_drawing, await hole.read(), "hole")
        drawn = None if lines is None else await run_in_threadpool(_drawing, await lines.read(), "sketch")
        wanted = {"with your lines" if drawn is not None else "filled": drawn}
        if compare and drawn is not None and not studio.needs_lines:
            wanted["without lines"] = None
        variants = []
        async with turns.turn(ticket, has_left):
            given = await run_in_threadpool(_decoded, data, name, limits)
            for label, sketch in wanted.items():
                work = partial(studio.fill, given.pixels, missing, sketch, side, method=method or None, growing=grow)
                filled = await _unless(has_left, work)
                variants.append({"label": label, **await run_in_threadpool(_answer, filled, given, name)})
        return {"variants": variants}

    @app.get("/api/turns/{ticket}")
    async def before(ticket: str) -> dict[str, int | None]:
        """How many requests are served first: 0 while this one is served, null for an unknown ticket."""
        return {"before": turns.before(ticket)}

    app.mount("/page", StaticFiles(directory=_PAGE), name="page")
    for kind, status in ((UserError, 422), (Crowded, 503), (Left, 499)):
        app.add_exception_handler(kind, partial(_sentence, status))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _incomplete)
    app.add_exception_handler(Exception, _unexpected)
    app.add_middleware(_Guard, limits=limits, local=host in ("127.0.0.1", "localhost", "::1"))
    return app


class _Guard:
    """Refuses requests from pages of other sites, and too large uploads before they are read.

    Adds security headers to every answer, except after an unexpected error.
    """

    def __init__(self, app: ASGIApp, limits: Limits, local: bool):
        self._app = app
        self._limits = limits
        self._local = local

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

        if refusal := self._refusal(scope):
            status, sentence = refusal
            await JSONResponse({"error": sentence}, status)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for a request that is refused, else None."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        # Otherwise another site could point its name at this machine, and its scripts could read the answers.
        if self._local and host.rpartition(":")[0] not in _LOCAL and host not in _LOCAL:
            return 403, "Only its own machine may open this page; start it with --host=0.0.0.0 to let others in."
        if scope["method"] != "POST":
            return None
        origin = headers.get("origin")
        if origin is not None and (not host or origin.partition("://")[2] != host):
            return 403, "The page of another site may not ask for this; open the page at its own address."
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            return 411, "The upload does not say how long it is; reload the page."
        # Room for the photo, and for drawings of at most the same size.
        if int(length) > 2 * self._limits.megabytes * 1e6:
            return 413, (
                f"That is more than the {self._limits.megabytes:g} megabytes that may be sent; choose a smaller photo."
            )
        return None


async def _unless(has_left: Callable[[], Awaitable[bool]], work: Callable[..., Filled]) -> Filled:
    """What `work` returns, or Left as soon as it stops because the visitor has left."""
    if await has_left():
        raise Left
    left = threading.Event()
    working = asyncio.ensure_future(run_in_threadpool(work, stop=left.is_set))
    try:
        while not working.done():
            await asyncio.wait({working}, timeout=_ASK_EVERY)
            if await has_left():
                left.set()
        return working.result()
    except Stopped as error:
        raise Left from error
    finally:
        left.set()


def _decoded(data: bytes, name: str, limits: Limits) -> Photo:
    _check(data, name, limits)
    return read_photo(data, name=name)


def _check(data: bytes, name: str, limits: Limits) -> None:
    """Refuses what is no photo and no mask, or too large, before it is decoded."""
    if len(data) > limits.megabytes * 1e6:
        raise UserError(f"{name} has more than the {limits.megabytes:g} megabytes that may be sent; make it smaller.")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
    except Exception as error:  # broken files make Pillow's plugins raise nearly anything
        raise UserError(f"{name} is no photo that can be read here; choose a JPEG, PNG or WebP file.") from error
    if width * height > limits.megapixels * 1e6:
        raise UserError(
            f"{name} has {width} x {height} pixels, more than the {limits.megapixels:g} megapixels that may be sent; "
            "make it smaller."
        )


def _preview(data: bytes, name: str, limits: Limits) -> dict[str, Any]:
    photo = _decoded(data, name, limits)
    height, width = photo.pixels.shape[:2]
    shape = _preview_shape((height, width))
    hole = None
    if photo.alpha is not None and (transparent := photo.alpha < 128).any():
        hole = _png(touched(transparent, shape))
    pixels = cv2.resize(photo.pixels, shape[::-1], interpolation=cv2.INTER_AREA)
    return {"width": width, "height": height, "preview": _png(pixels, photo.icc_profile), "hole": hole}


def _preview_shape(shape: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, _PREVIEW_SIDE / max(shape))
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _hole(data: bytes, name: str, shape: tuple[int, int], limits: Limits) -> str:
    _check(data, name, limits)
    hole = read_mask(data, name=name)
    if hole.shape != shape:
        raise UserError(
            f"{name} has {hole.shape[1]} x {hole.shape[0]} pixels, but the photo has {shape[1]} x {shape[0]}; choose a "
            "mask of the photo's size."
        )
    return _png(touched(hole, _preview_shape(shape)))


def _answer(filled: Filled, given: Photo, name: str) -> dict[str, Any]:
    """A result as the page gets it: a file of the given one's format, grey, EXIF data and profile."""
    alpha = None if given.alpha is None else np.where(filled.hole, 255, given.alpha).astype(np.uint8)
    like = dataclasses.replace(given, alpha=None if alpha is None or alpha.min() == 255 else alpha)
    kind = given.format if given.format in _KEPT else "PNG"
    try:
        file, notes = encode_photo(filled.pixels, like, kind, **(_PNG if kind == "PNG" else {}))
    except UnsavablePhoto as error:
        raise UserError(f"{name} {error}") from error
    path = Path(name)
    suffix = path.suffix if writable_format(path) == kind else f".{kind.lower()}"
    return {
        "image": base64.b64encode(file).decode(),
        "type": Image.MIME[kind],
        "name": f"{path.stem}_filled{suffix}",
        "shown": _png(filled.pixels, given.icc_profile) if kind in _NOT_SHOWN else None,
        "notes": notes,
        "temperatures": [float(t) for t in filled.temperatures],
        "worked_at": filled.worked_at,
        "grown": filled.grown,
        "seconds": round(filled.seconds, 2),
    }


def _drawing(data: bytes, kind: str) -> np.ndarray:
    """bool [H, W] from a PNG of the page, white = True."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height > _DRAWING_MEGAPIXELS * 1e6:
                raise UserError(f"The {kind} has more than {_DRAWING_MEGAPIXELS} megapixels; reload the page.")
            return np.asarray(image.convert("L")) > 127
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"The {kind} cannot be read as a PNG; reload the page.") from error


def _png(pixels: np.ndarray, profile: bytes | None = None) -> str:
    """uint8 [H, W, 3] RGB or bool [H, W], as base64; with an ICC profile, if it is one of RGB."""
    file = io.BytesIO()
    profile = profile if profile and profile[16:20] == b"RGB " else None
    Image.fromarray(pixels).save(file, "PNG", icc_profile=profile, **_PNG)
    return base64.b64encode(file.getvalue()).decode()


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
