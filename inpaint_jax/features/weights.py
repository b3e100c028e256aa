"""Weight files of other networks: where they come from, how they are fetched, and what they must hold.

Each file is one `WeightsFile`; `fetch` gives a verified local copy. Readers turn the file into a tree of arrays, and
`check_tree` compares that tree to the expected one before anything computes with it.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pooch

from inpaint_jax.errors import UserError
from inpaint_jax.files import cache_folder

_LISTED_KEYS = 8  # keys named per kind of fault; a wrong file easily has hundreds


class WeightsUnavailable(UserError):
    """The weights are not in the cache and cannot be downloaded."""


class WeightsInvalid(UserError):
    """The file is there, but it is damaged or holds something else."""


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """A published file of weights.

    Attributes:
        name: file name in the cache folder.
        url: http(s) address of the file itself.
        checksum: "algorithm:hex digest", as published, e.g. "md5:6d6b…" or "sha256:8086…".
    """

    name: str
    url: str
    checksum: str

    @property
    def path(self) -> Path:
        """Where the file lies once it was fetched; users without network put it here."""
        return cache_folder() / self.name

    def fetch(self, timeout: float = 10.0) -> Path:
        """Returns the path of a verified copy in the cache, after a download if there is none.

        Args:
            timeout: seconds to wait for a connection, and for each further piece of the file.

        Raises:
            WeightsUnavailable: it is not in the cache and the download failed; says where to put the file.
            WeightsInvalid: the copy in the cache does not have the published checksum.
        """
        # pooch would silently replace such a file, which may be one that somebody put there by hand.
        if self.path.exists() and not self.matches(self.path):
            raise WeightsInvalid(
                f"{self.path} does not have the checksum {self.checksum}: delete it and start again, "
                f"or replace it by the file of {self.url}."
            )
        try:
            # pooch writes to a temporary name and moves it only after the checksum, so an interrupted download or
            # a second process that fetches at the same time leaves no broken file.
            return Path(
                pooch.retrieve(
                    self.url,
                    known_hash=self.checksum,
                    fname=self.name,
                    path=cache_folder(),
                    downloader=pooch.HTTPDownloader(  # pyright: ignore[reportArgumentType]
                        progressbar=True, chunk_size=1 << 16, timeout=timeout
                    ),
                )
            )
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; ValueError: checksum of the download
            raise WeightsUnavailable(
                f"Cannot download {self.name} from {self.url} ({_reason(error)}): get that file on a machine with "
                f"network and put it at {self.path}, or give the path of a copy to load(path) or in the config."
            ) from error

    def matches(self, path: str | Path) -> bool:
        """Whether there is a file at `path` and it has the published checksum."""
        algorithm, digest = self.checksum.split(":")
        return Path(path).is_file() and pooch.file_hash(str(path), alg=algorithm) == digest


def check_tree(params: Mapping[str, Any], expected: Mapping[str, Any], source: str | Path = "the weights") -> None:
    """Compares a tree of arrays with the tree of shapes that the network expects.

    Args:
        params: nested dicts with arrays at the leaves.
        expected: the same nesting with shapes (tuples of int) at the leaves.
        source: what the message calls the tree, usually the path of the file.

    Raises:
        WeightsInvalid: names the missing, the extra and the wrongly shaped keys, as "block/layer/kernel".
    """
    if faults := tree_faults(params, expected):
        raise WeightsInvalid(f"{source} does not hold the weights of this network, use the published file ({faults}).")


def tree_faults(params: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """In what a tree of arrays differs from a tree of shapes, as "missing: a/b; extra: c"; "" if in nothing.

    Args:
        params: as of `check_tree`.
        expected: likewise.
    """
    found = {key: np.shape(leaf) for key, leaf in _flatten(params).items()}
    wanted = {key: tuple(shape) for key, shape in _flatten(expected).items()}
    faults = {
        "missing": [key for key in wanted if key not in found],
        "extra": [key for key in found if key not in wanted],
        "wrong shape": [
            f"{key} {found[key]} instead of {wanted[key]}"
            for key in wanted
            if key in found and found[key] != wanted[key]
        ],
    }
    return "; ".join(f"{kind}: {_shorten(keys)}" for kind, keys in faults.items() if keys)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with "a/b/c" keys; every value that is no dict is a leaf."""
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _shorten(keys: list[str]) -> str:
    rest = len(keys) - _LISTED_KEYS
    return ", ".join(keys[:_LISTED_KEYS]) + (f" and {rest} more" if rest > 0 else "")


def _reason(error: Exception) -> str:
    """The first line of what is at the bottom of an error; requests wraps it and repeats the address."""
    cause = error
    while cause is not None:
        error = cause
        cause = next((c for c in (getattr(error, "reason", None), *error.args) if isinstance(c, Exception)), None)
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:200]}"
