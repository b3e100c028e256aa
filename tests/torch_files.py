"""Writes files as torch.save does, without torch; for the tests of what reads them.

torch 2.13 loads these files too (tried with weights_only=True, both layouts).
"""

import dataclasses
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}

MAGIC = b"\x80\x02\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little") + b"."


class Raw(bytes):
    """Opcodes to be written as they are."""


@dataclasses.dataclass
class Tensor:
    """A tensor as the file describes it, right or wrong; offset and strides count elements of the storage.

    `announced` is the length that the file gives for the storage, where it is not the true one.
    """

    storage: np.ndarray
    offset: Any
    size: Any
    strides: Any
    announced: int | None = None


def write_zip(path: Path, value: Any, byteorder: str = "little") -> None:
    """The layout since torch 1.6."""
    storages: list[np.ndarray] = []
    pickled = dumps(value, storages)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/byteorder", byteorder)
        for key, storage in enumerate(storages):
            file.writestr(f"archive/data/{key}", storage.tobytes())
        file.writestr("archive/version", "3\n")


def write_plain(path: Path, value: Any, little_endian: bool = True, magic: bytes = MAGIC) -> None:
    """The layout before: pickles one after the other, then the storages."""
    storages: list[np.ndarray] = []
    machine = {
        "protocol_version": 1001,
        "little_endian": little_endian,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    content = [magic, dumps(1001), dumps(machine), dumps(value, storages, view=b"N")]
    content.append(dumps([str(key) for key in range(len(storages))]))
    content += [struct.pack("<q", storage.size) + storage.tobytes() for storage in storages]
    Path(path).write_bytes(b"".join(content))


def dumps(value: Any, storages: list[np.ndarray] | None = None, view: bytes = b"") -> bytes:
    """A whole pickle of protocol 2; `storages` gets the storage of every array, `view` ends each persistent id."""
    return b"\x80\x02" + _dump(value, [] if storages is None else storages, view) + b"."


def _dump(value: Any, storages: list[np.ndarray], view: bytes) -> bytes:
    match value:
        case Raw():
            return value
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int() if abs(value) >> 31:
            return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)
        case int():
            return b"J" + struct.pack("<i", value)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(_dump(item, storages, view) for item in value) + b"t"
        case list():
            return b"](" + b"".join(_dump(item, storages, view) for item in value) + b"e"
        case dict():
            return b"}(" + b"".join(_dump(part, storages, view) for item in value.items() for part in item) + b"u"
        case np.ndarray():
            storage = value.copy(order="C")
            strides = tuple(stride // value.itemsize for stride in storage.strides)
            return _dump(Tensor(storage, 0, value.shape, strides), storages, view)
        case Tensor():
            storages.append(value.storage)
            return _tensor(value, str(len(storages) - 1), view)
    raise TypeError(type(value))


def _tensor(tensor: Tensor, key: str, view: bytes) -> bytes:
    count = tensor.storage.size if tensor.announced is None else tensor.announced
    pid = ("storage", Raw(f"ctorch\n{STORAGES[tensor.storage.dtype.name]}\n".encode()), key, "cpu", count, Raw(view))
    hooks = Raw(b"ccollections\nOrderedDict\n)R")
    arguments = (Raw(_dump(pid, [], b"") + b"Q"), tensor.offset, tensor.size, tensor.strides, False, hooks)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + _dump(arguments, [], b"") + b"R"
