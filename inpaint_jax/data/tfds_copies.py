"""Copies of TFDS data sets on disk: where one lies, in which formats, and the command that makes it readable."""

import dataclasses
import os
import shlex
from typing import Any

from inpaint_jax.errors import UserError

READABLE = "array_record"  # the format of TFDS that is read photo by photo, in any order, without TensorFlow
CONVERTIBLE = "tfrecord"  # the one it writes by default
INFO_FILE = "dataset_info.json"  # what makes a folder a copy; TFDS writes it last


@dataclasses.dataclass(frozen=True)
class Copy:
    """A data set in a data folder, prepared or not.

    Attributes:
        dataset: NAME or NAME/CONFIG.
        data_dir: TFDS's data folder, None for its default.
    """

    dataset: str
    data_dir: str | None = None

    def builder(self) -> Any:
        """The tfds.core.DatasetBuilder.

        Raises:
            UserError: TFDS has no such data set, or it has no images.
        """
        import tensorflow_datasets as tfds  # takes a second to import; folders do without

        try:
            builder: Any = tfds.builder(self.dataset, data_dir=self.data_dir)
        except tfds.core.DatasetNotFoundError as error:
            raise UserError(f"TFDS has no data set {self.dataset!r}; correct its name.") from error
        except (ValueError, AssertionError) as error:  # of names, configs and versions that it cannot make sense of
            raise UserError(f"TFDS cannot open {self.dataset!r}; correct it to NAME or NAME/CONFIG.") from error
        if "image" not in builder.info.features:
            raise UserError(f"{self.dataset} has no feature 'image'; choose a data set of images.")
        return builder

    @property
    def command(self) -> str:
        """What prepares or converts it."""
        where = f"?data_dir={self.data_dir}" if self.data_dir else ""
        return f"inpaint-jax prepare {shlex.quote(f'tfds:{self.dataset}{where}')}"


def find_copy(where: str, data_dir: str | None) -> tuple[Copy, str]:
    """The copy and the split of NAME[/CONFIG][:SPLIT]; the split is "" where there is none.

    Raises:
        UserError: no name.
    """
    dataset, _, split = where.partition(":")
    if not dataset:
        raise UserError(f"Data 'tfds:{where}' lacks a name; write tfds:NAME:SPLIT.")
    return Copy(dataset, os.path.expanduser(data_dir) if data_dir else None), split


def formats(builder: Any) -> set[str]:
    """In which formats a copy lies in its folder, array_record or tfrecord for example; none if it is not prepared."""
    if not all((builder.data_path / file).exists() for file in (INFO_FILE, "features.json")):
        return set()
    info = builder.info.as_proto
    return {info.file_format, *info.alternative_file_formats}


def size_text(count: int) -> str:
    """A number of bytes, for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
