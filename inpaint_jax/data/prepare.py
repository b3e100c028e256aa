"""Prepares a TFDS data set in the one format that is read here: by TFDS, or from a copy in TFRECORD."""

import contextlib
import importlib.util
import io
import logging
import shlex
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from inpaint_jax.data.convert import add_array_record
from inpaint_jax.data.sources import split_spec
from inpaint_jax.data.tfds_copies import CONVERTIBLE, READABLE, find_copy, formats, size_text
from inpaint_jax.errors import MissingFile, UserError

logger = logging.getLogger("inpaint_jax")


def prepare(spec: str) -> None:
    """Makes a data set readable by `open_source`; what is done already is not done again.

    A data set that is not there is downloaded and prepared by TFDS, whose progress bars are shown. What it downloaded
    stays, so that the next call goes on with the files that are missing; the prepared copy appears whole or not at all.
    A copy in TFRECORD is converted, without a download.

    Args:
        spec: as in config.data.train: tfds:NAME[/CONFIG][:SPLIT][?data_dir=PATH]. All splits are prepared.

    Raises:
        UserError: what the user can mend: names, files to get by hand, packages, room, network.
    """
    scheme, where, options = split_spec(spec)
    if scheme != "tfds":
        raise UserError(f"Data {spec!r} needs no preparation, only tfds:NAME does.")
    copy, _ = find_copy(where, options.get("data_dir"))
    builder = copy.builder()
    folder, found = Path(builder.data_dir), formats(builder)
    if READABLE in found:
        logger.info("%s is prepared already, in %s.", copy.dataset, folder)
        return
    if CONVERTIBLE in found:
        size = size_text(builder.info.dataset_size)
        logger.info("%s lies in %s as %s; %s are written beside it.", copy.dataset, folder, CONVERTIBLE, size)
        add_array_record(builder)
    elif found or folder.exists():
        what = f"as {' and '.join(sorted(found))}" if found else "unfinished"
        raise UserError(f"{copy.dataset} lies {what} in {folder}; delete that folder and run the same command again.")
    else:
        _by_tfds(copy.dataset, builder)
    # Another builder: that of a data set does not read again what is on the disk.
    splits = copy.builder().info.splits.values()
    counts = ", ".join(f"{split.name} {split.num_examples:,}" for split in splits)
    logger.info("%s is prepared in %s: %s.", copy.dataset, folder, counts)


def _by_tfds(dataset: str, builder: Any) -> None:
    downloads = Path(builder.data_dir_root, "downloads")
    _check_manual_files(dataset, builder, downloads / "manual")
    if _needs_tensorflow(builder) and importlib.util.find_spec("tensorflow") is None:
        raise UserError(_missing_package(dataset, "tensorflow"))
    _check_room(dataset, builder, downloads)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # "Downloading and preparing dataset Unknown size"
            builder.download_and_prepare(file_format=READABLE)
    except Exception as error:
        if sentence := _explain(dataset, builder, downloads, error):
            raise UserError(sentence) from error
        raise


def _check_manual_files(dataset: str, builder: Any, folder: Path) -> None:
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS is None:
        return
    file = getattr(builder.builder_config, "file_name", "")  # those of celeb_a_hq have it
    if not (folder / file).exists() or not any(folder.iterdir()):
        raise MissingFile(_get_by_hand(dataset, builder, folder))


def _get_by_hand(dataset: str, builder: Any, folder: Path) -> str:
    files = getattr(builder.builder_config, "file_name", "its files")
    instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())
    return (
        f"{dataset} cannot be downloaded by itself: put {files} into {folder} and run the same command again; "
        f"TFDS says of these files: {instructions}"
    )


def _needs_tensorflow(builder: Any) -> bool:
    """Whether TFDS unpacks archives for it, which it does by TensorFlow, or its module names TensorFlow as `tf`."""
    from tensorflow_datasets.core.download import resource

    packed = (resource.guess_extract_method(url) is not resource.ExtractMethod.NO_EXTRACT for url in _urls(builder))
    return any(packed) or hasattr(sys.modules.get(type(builder).__module__), "tf")


def _missing_package(dataset: str, package: str) -> str:
    wanted = "'inpaint-jax[tensorflow]'" if package == "tensorflow" else package
    return f"TFDS needs {package} to prepare {dataset}; install it by: pip install {wanted}."


def _urls(builder: Any) -> dict[str, Any]:
    """Address -> size and checksum of all that the data set, with all its configs, is made of."""
    return builder.url_infos or {}


def _check_room(dataset: str, builder: Any, downloads: Path) -> None:
    """Says how much is downloaded and written; an error if it is sure that there is too little room."""
    download = sum(int(info.size) for info in _urls(builder).values())
    there = sum(int(info.size) for url, info in _urls(builder).items() if _is_there(builder, downloads, url, info))
    result = int(builder.info.dataset_size)  # 0 for most, which stands for unknown
    # With several configs, that is the sum of all of them.
    needed = result if builder.BUILDER_CONFIGS else download - there + result
    place = next(folder for folder in downloads.absolute().parents if folder.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"{dataset} needs {size_text(needed)} in {place}, which has {size_text(free)} free; make room there, or "
            "name another place: ?data_dir=PATH."
        )
    if download:
        up_to = "up to " if builder.BUILDER_CONFIGS else ""
        what = f"{up_to}{size_text(download)} to download"
        what += f" ({size_text(there)} are there)" if there else ""
        what += f", and {size_text(result) if result else 'for photos about as much'} to write"
    else:
        what = f"{size_text(result) if result else 'an unknown size'} to write"
    logger.info("%s: %s; %s are free in %s.", dataset, what, size_text(free), place)
    # TFDS begins a file and a copy anew, each in a folder of its own.
    leftovers = [*(downloads / builder.name).glob("*.tmp.*"), *Path(builder.data_dir).parent.glob("incomplete.*")]
    if size := sum(path.stat().st_size for folder in leftovers for path in folder.rglob("*") if path.is_file()):
        logger.warning(
            "%s of attempts that were killed or failed are left; delete them if no other preparation runs: %s",
            size_text(size),
            " ".join(shlex.quote(str(folder)) for folder in leftovers),
        )


def _is_there(builder: Any, downloads: Path, url: str, info: Any) -> bool:
    """Whether a file was downloaded, or put by hand where TFDS looks for it."""
    from tensorflow_datasets.core.download import resource

    name = resource.get_dl_fname(url, info.checksum)
    by_hand = info.filename and (downloads / "manual" / info.filename).is_file()
    return by_hand or any((folder / name).is_file() for folder in (downloads / builder.name, downloads))


def _explain(dataset: str, builder: Any, downloads: Path, error: BaseException) -> str | None:
    """What the user can do about an error of TFDS; None if it is none of theirs."""
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    manual = downloads / "manual"
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ModuleNotFoundError(name=str(name)):
                return _missing_package(dataset, name.split(".")[0])
            case requests.RequestException() | tfds.download.DownloadError():
                by_hand = f", or get them by hand and put them into {manual}" if _urls(builder) else ""
                return (
                    f"{dataset} cannot be downloaded ({_reason(cause)}); run the same command again, which goes on "
                    f"with the files that are missing{by_hand}."
                )
            case NonMatchingChecksumError():
                return f"{_reason(cause)}; delete that file and run the same command again."
            case AssertionError() | FileNotFoundError() if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
                return _get_by_hand(dataset, builder, manual)
            case tarfile.TarError() | zipfile.BadZipFile() | EOFError():
                reason = str(cause).strip().splitlines()[-1]  # TFDS puts the example before it
                return f"A file in {downloads} is damaged ({reason}); get it again, then run the same command."
            case OSError(errno=int()):
                where = cause.filename or builder.data_dir
                return f"{where}: {cause.strerror}; mend that and run the same command again."
            case RuntimeError() if str(cause).startswith("write() failed"):  # of ArrayRecordWriter, on a full disk
                return f"{builder.data_dir}: {_reason(cause)}; mend that and run the same command again."
        cause = cause.__cause__ or cause.__context__
    return None


def _reason(error: BaseException) -> str:
    """The first line of an error, without the errors that it is wrapped in."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0]) if error.args else type(error).__name__
    return text.strip().split("\n")[0].rstrip(".:")[:300]
