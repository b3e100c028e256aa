"""What the page does with a photo, apart from the web: fill a hole, suggest a sketch."""

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from inpaint_jax import classical
from inpaint_jax.data.images import resize_only
from inpaint_jax.data.sketches import sketch_from_edges
from inpaint_jax.errors import UserError
from inpaint_jax.features import pidinet
from inpaint_jax.inference.growing import auto_growth, grow
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.inference.retouching import retouch, touched

_log = logging.getLogger("inpaint_jax")

# What can be chosen beside the model, and how the page calls it.
_METHODS = {"telea": "Telea", "navier_stokes": "Navier-Stokes", "patchmatch": "PatchMatch"}

_SMALLEST_SIDE = 8
_LONGEST_SHAPE = 16  # longest side over shortest; beyond it, scaling by one side makes the other far too long

# PiDiNet was trained on photos of about this size; on larger ones it draws every leaf.
_SKETCH_SIDE = 256


@dataclasses.dataclass(frozen=True)
class Filled:
    """A photo without its hole.

    Attributes:
        pixels: uint8 [H, W, 3], at the photo's size; known pixels are bit-identical to the photo's.
        hole: bool [H, W], what was filled.
        grown: By how many pixels the hole was grown before.
        worked_at: Height and width that was worked at, in the largest window.
        temperatures: float32 [K], temperature of each attention head there.
        seconds: Time it took.
    """

    pixels: np.ndarray
    hole: np.ndarray
    grown: int
    worked_at: tuple[int, int]
    temperatures: np.ndarray
    seconds: float


class Studio:
    """A model, with PiDiNet beside it if its weights are available.

    Args:
        inpainter: The model.
        edges: Parameters of PiDiNet, or None.

    Attributes:
        name: Name of the model.
        step: Training step of the model.
        guided: Whether the model follows lines.
        needs_lines: Whether the model was never trained without lines.
        image_size: Size that the model was trained at.
        suggests: Whether sketches can be suggested.
        methods: Names of the classical methods that can be used instead, and what to call them.
        learns_temperatures: Whether temperatures differ from photo to photo.
    """

    def __init__(self, inpainter: Inpainter, edges: pidinet.Params | None):
        self._inpainter = inpainter
        self._edges = edges
        self.name = inpainter.name
        self.step = inpainter.step
        self.guided = inpainter.guided
        self.needs_lines = inpainter.needs_sketch
        self.image_size = inpainter.image_size
        self.suggests = self.guided and edges is not None
        self.methods = {name: _METHODS[name] for name in classical.usable(list(_METHODS))}
        fields = inpainter.config.model
        # Those of contextual attention are constant, too.
        learns = fields.constant_temperature is None and fields.attention != "contextual"
        self.learns_temperatures = learns and inpainter.generator.temperature_count > 0

    @classmethod
    def open(cls, checkpoint: str | Path, step: int | None = None, pidinet_weights: str | None = None) -> "Studio":
        """Loads the model, and PiDiNet if its weights are named or in the cache; nothing is downloaded.

        Args:
            checkpoint: The workdir of a run, or an exported file.
            step: Step of the checkpoint in a workdir; the best one by default.
            pidinet_weights: File of PiDiNet's weights.

        Raises:
            UserError: There is no such model, or the file of weights cannot be used.
        """
        inpainter = Inpainter.load(checkpoint, step)
        edges = None
        if pidinet_weights or (inpainter.guided and pidinet.PIDINET.path.exists()):
            edges = pidinet.load(pidinet_weights)
        elif inpainter.guided:
            _log.info(
                "No sketches are suggested: that needs %s (%s) as --pidinet_weights=FILE.",
                pidinet.PIDINET.name,
                pidinet.PIDINET.url,
            )
        return cls(inpainter, edges)

    def fill(
        self,
        photo: np.ndarray,
        hole: np.ndarray,
        lines: np.ndarray | None,
        side: int,
        *,
        method: str | None = None,
        growing: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> Filled:
        """Fills a hole, see `inference.retouching`.

        Args:
            photo: uint8 [H, W, 3], any size from 8 x 8 on.
            hole: bool [h, w], True = missing; the photo's shape at any scale, up to rounding.
            lines: bool, like `hole`, True = line; None for no lines. They are thinned to one pixel, as in training.
            side: Longest side that the model may work at.
            method: One of `methods`, instead of the model.
            growing: Whether the hole is grown, see `inference.growing.auto_growth`.
            stop: Asked before every window whether nobody waits any more.

        Returns:
            Filled.

        Raises:
            Stopped: `stop` returned True.
            UserError: There is no hole or nothing but a hole, a shape does not fit, the model needs lines and gets
                none, or the photo is too large for the memory.
        """
        started = time.perf_counter()
        self._check(photo, hole, lines, method)
        shape = photo.shape[:2]
        full_hole = touched(hole, shape)
        if full_hole.all():
            raise UserError("All of the photo is brushed, so nothing is left to continue from; erase some of the hole.")
        brushed = full_hole
        if growing:
            full_hole = grow(full_hole, "auto", side)
        drawn = None if lines is None else touched(lines, shape)
        try:
            made = retouch(method or self._inpainter, photo, full_hole, drawn, side=side, stop=stop)
        except (jax.errors.JaxRuntimeError, MemoryError) as error:
            if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                "That is too large for the memory of this machine; choose a smaller working size."
            ) from error
        largest = int(np.argmax([height * width for height, width in made.worked_at]))
        seconds = time.perf_counter() - started
        grown = 0 if full_hole is brushed else auto_growth(shape, side)
        return Filled(made.pixels, full_hole, grown, made.worked_at[largest], made.temperatures[largest], seconds)

    def suggest(self, photo: np.ndarray, side: int) -> np.ndarray:
        """The lines that PiDiNet finds in the photo, §IV-F.

        Args:
            photo: uint8 [H, W, 3].
            side: Longest side of the result.

        Returns:
            bool [h, w], True = line; in the photo's proportions, with a shortest side of 256 or less.

        Raises:
            UserError: PiDiNet's weights are missing, or the photo is too narrow.
        """
        if self._edges is None:
            raise UserError("There are no weights of PiDiNet here; start the page with --pidinet_weights=FILE.")
        _check_shape(photo)
        photo = resize_only(photo, _SKETCH_SIDE)
        height, width = photo.shape[:2]
        edges = pidinet.edge_map(self._edges, pidinet.padded(photo)[None].astype(np.float32) / 255)
        lines = sketch_from_edges(np.asarray(edges[0])[:height, :width], scaled=True)
        scale = min(1.0, side / max(height, width))
        return touched(lines, (max(1, round(height * scale)), max(1, round(width * scale))))

    def facts(self) -> dict[str, Any]:
        """What a page needs to know about the model, in JSON types."""
        names = ("name", "step", "guided", "needs_lines", "image_size", "suggests", "learns_temperatures", "methods")
        return {name: getattr(self, name) for name in names}

    def _check(self, photo: np.ndarray, hole: np.ndarray, lines: np.ndarray | None, method: str | None) -> None:
        _check_shape(photo)
        for kind, drawn in (("hole", hole), ("sketch", lines)):
            if drawn is not None and not _same_proportions(drawn.shape, photo.shape[:2]):
                raise UserError(f"The {kind} has other proportions than the photo; draw it on the photo itself.")
        if not hole.any():
            raise UserError("Nothing is brushed yet; brush over what should be replaced.")
        if method is not None and method not in self.methods:
            raise UserError(f"There is no method {method!r} here; choose of {', '.join(self.methods)}.")
        if lines is None:
            if self.needs_lines and method is None:
                raise UserError("This model always needs lines; draw some inside the hole.")
        elif method is not None:
            raise UserError(f"The method {method} takes no lines.")
        elif not self.guided:
            raise UserError("This model was trained without sketches and takes no lines.")


def _check_shape(photo: np.ndarray) -> None:
    shortest, longest = sorted(photo.shape[:2])
    if shortest < _SMALLEST_SIDE:
        raise UserError(f"The photo must have at least {_SMALLEST_SIDE} pixels each way.")
    if longest > _LONGEST_SHAPE * shortest:
        raise UserError(f"The photo is too narrow: one side is more than {_LONGEST_SHAPE} times the other; crop it.")


def _same_proportions(drawn: tuple[int, ...], photo: tuple[int, ...]) -> bool:
    """Whether one shape is the other shrunk or enlarged, with each side rounded to whole pixels."""
    scale = max(drawn) / max(photo)
    return all(abs(a - b * scale) <= 1 for a, b in zip(drawn, photo))
