"""Files in one piece, and the folder that keeps what was downloaded or computed once."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pooch

CACHE_VARIABLE = "INPAINT_JAX_CACHE"


def write_file(path: str | Path, content: bytes | str | Callable[[IO[bytes]], Any]) -> None:
    """Writes a file in one piece or not at all, so that neither a kill nor a full disk costs an earlier one.

    Args:
        path: of the file; folders that are missing are made.
        content: bytes, text, or a function that writes into an open file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, so that nobody takes it for a photo; of this process, because several may write the same file.
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with fresh.open("wb") as file:
            if callable(content):
                content(file)
            else:
                file.write(content.encode() if isinstance(content, str) else content)
        os.replace(fresh, path)
    except OSError as error:
        error.filename = os.fspath(path)  # the one that was asked for
        raise
    finally:
        fresh.unlink(missing_ok=True)


def cache_folder() -> Path:
    """Folder of downloads and compiled programs: `INPAINT_JAX_CACHE`, else the user's cache folder of this system."""
    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("inpaint_jax")).expanduser()
