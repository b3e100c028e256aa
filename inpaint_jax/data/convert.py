"""Gives a TFDS copy in TFRECORD its records in array_record, too, without TensorFlow, apache_beam or a download."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tqdm import tqdm

from inpaint_jax.data.tfds_copies import CONVERTIBLE, INFO_FILE, READABLE, size_text
from inpaint_jax.data.tfrecord import FRAME_BYTES, DamagedRecord, read_records
from inpaint_jax.errors import UserError
from inpaint_jax.files import write_file

_AGAIN = "delete that folder and run the same command again, which downloads the data set"

_UNFINISHED = ".converting"


def add_array_record(builder: Any) -> None:
    """Adds the format to a copy, which can still be read as TFRECORD.

    Examples are the same bytes in both formats. Files appear whole or not at all, and the format is listed last, so
    that a conversion that was stopped leaves the copy as it was, and goes on with the next file.

    Args:
        builder: the tfds.core.DatasetBuilder of the copy.

    Raises:
        UserError: too little room, or a file that is damaged or missing.
    """
    import tensorflow_datasets as tfds

    files = tfds.builder_from_directory(builder.data_dir)
    shards = [
        (Path(old), Path(new), count)
        for split in files.info.splits.values()
        for old, new, count in zip(_paths(split, CONVERTIBLE), _paths(split, READABLE), split.shard_lengths)
    ]
    folder = Path(builder.data_dir)
    waiting = [(old, new, count) for old, new, count in shards if not _is_whole(new, count)]
    if missing := [old.name for old, _, _ in waiting if not old.is_file()]:
        raise UserError(f"{folder} lacks {len(missing)} of its files, as {missing[0]}; {_AGAIN}.")
    needed, free = sum(old.stat().st_size for old, _, _ in waiting), shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder} has {size_text(free)} free, {size_text(needed)} are needed; make room there.")
    with tqdm(total=needed, desc="Converting", unit="B", unit_scale=True) as bar:
        for old, new, count in waiting:
            _convert(old, new, count, bar)
    for leftover in folder.glob(f".*{_UNFINISHED}"):  # of a conversion that was killed
        leftover.unlink(missing_ok=True)

    info = json.loads((folder / INFO_FILE).read_text())
    info["alternativeFileFormats"] = [*info.get("alternativeFileFormats", []), READABLE]
    write_file(folder / INFO_FILE, json.dumps(info, indent=2))


def _paths(split: Any, file_format: str) -> list[Any]:
    template = split.filename_template.replace(filetype_suffix=file_format)
    return template.sharded_filepaths(num_shards=split.num_shards)


def _is_whole(path: Path, count: int) -> bool:
    """Whether there is a file of so many records; the reader finds none in one that a power cut left unfinished."""
    from array_record.python.array_record_module import ArrayRecordReader

    return path.is_file() and ArrayRecordReader(str(path)).num_records() == count


def _convert(old: Path, new: Path, count: int, bar: tqdm) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    fresh = new.with_name(f".{new.name}.{os.getpid()}{_UNFINISHED}")
    try:
        writer = ArrayRecordWriter(str(fresh), "group_size:1")  # as TFDS writes it: any record by itself
        found = 0
        for record in read_records(old):
            writer.write(record)
            found += 1
            bar.update(len(record) + FRAME_BYTES)
        writer.close()
        if found != count:
            raise UserError(f"{old} has {found} records instead of {count}; {_AGAIN}.")
        fresh.replace(new)
    except RuntimeError as error:  # of ArrayRecordWriter: "write() failed: No space left on device; ..."
        raise UserError(f"{new} cannot be written ({str(error).split(';')[0]}); make room there.") from error
    except DamagedRecord as error:
        raise DamagedRecord(f"{str(error).rstrip('.')}; {_AGAIN}.") from error
    finally:
        fresh.unlink(missing_ok=True)
