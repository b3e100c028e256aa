"""Stores of sketches that tests draw themselves."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inpaint_jax.data.sources import ImageSource, open_source
from inpaint_jax.sketching.store import SketchStore, write_sketch


def store_of(
    folder: Path,
    source: ImageSource,
    draw: Callable[[int], np.ndarray],
    settings: Mapping[str, Any],
    *,
    unreadable: Collection[int] = (),
    limit: int | None = None,
) -> SketchStore:
    """Finishes a store; draw(i) gives the sketch of photo i."""
    store = SketchStore.create(folder, source, settings, limit)
    for number in store.to_make():
        if number not in unreadable:
            write_sketch(store.path(number), draw(number))
    store.finish(unreadable)
    return SketchStore.open(folder)


def copied(
    folder: Path,
    to: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    without: Collection[int] = (),
    limit: int | None = None,
) -> SketchStore:
    """The same sketches with other settings, or as if some photos could not have been read."""
    store = SketchStore.open(folder)
    source = open_source(store.settings["data"])
    return store_of(to, source, store.__getitem__, store.settings | (changes or {}), unreadable=without, limit=limit)
