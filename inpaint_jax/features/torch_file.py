"""Reads what `torch.save` wrote, without torch and without executing anything.

A checkpoint is a pickle, which may call any function by name, plus the bytes of its storages. Here its opcodes are only
looked at (`pickletools.genops`) and followed as far as a state_dict needs them: dicts, lists, tuples, numbers, strings
and tensors. Every other opcode and every other name in the file is an error; nothing is ever imported or called.

Both layouts are read: the zip that torch >= 1.6 writes (data.pkl, data/0, data/1, …), and the plain one before it (five
pickles, then the storages one after the other). FID's Inception, of 2019, must be of the latter: its 95,628,359 bytes
are fewer than a zip of its 566 arrays takes.
"""

import dataclasses
import io
import pickletools
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from inpaint_jax.errors import MissingFile
from inpaint_jax.features import weights

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the plain layout
_CURE = "use the published file, or save a plain state_dict with torch.save(model.float().state_dict(), path)"

_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}

# What Python, numpy and zipfile (the last three) say when numbers, strings or opcodes do not fit together.
_DAMAGED = (ValueError, LookupError, TypeError, OverflowError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError)

StorageReader = Callable[[str, np.dtype, int], np.ndarray]
"""(key, dtype, number of elements) -> the storage as [number of elements]."""


def read(path: str | Path) -> Any:
    """Reads a checkpoint.

    Args:
        path: a file of `torch.save`, in either layout.

    Returns:
        What was saved: as a rule nested dicts (an OrderedDict comes as dict), with tensors and parameters as read-only
        numpy arrays of the tensor's shape and dtype. Tensors that shared memory share it here.

    Raises:
        MissingFile: there is no file at `path`.
        weights.WeightsInvalid: the file is damaged, is none of torch's, or holds more than a state_dict does (it names
            the opcode or the function that the file asks for).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"There is no file {path}.")
    content = path.read_bytes()
    try:
        if content.startswith(b"PK\x03\x04"):
            return _read_zip(content)
        if content.startswith(b"\x80"):
            return _read_plain(content)
    except _Refused as error:
        raise weights.WeightsInvalid(f"{path} is not read: {error}; {_CURE}.") from error
    except _DAMAGED as error:
        raise weights.WeightsInvalid(
            f"{path} is truncated or damaged ({type(error).__name__}: {error}): get it again."
        ) from error
    raise weights.WeightsInvalid(
        f"{path} is no file of torch.save (nor of torch < 0.2, whose tar is not read): {_CURE}."
    )


class _Refused(Exception):
    """The file asks for something that a state_dict does not need."""


def _read_zip(content: bytes) -> Any:
    """One folder with data.pkl and a file for each storage, data/KEY."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        pickles = [name for name in file.namelist() if PurePosixPath(name).name == "data.pkl"]
        if len(pickles) != 1:
            raise _Refused(f"this zip holds {len(pickles)} files data.pkl instead of one")
        folder = PurePosixPath(pickles[0]).parent
        if f"{folder}/byteorder" in file.namelist() and file.read(f"{folder}/byteorder") != b"little":
            raise _Refused("it was written on a big-endian machine")

        def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
            name = f"{folder}/data/{key}"
            if file.getinfo(name).file_size != count * dtype.itemsize:
                raise ValueError(f"{name} does not hold {count} elements of {dtype}")
            return np.frombuffer(file.read(name), dtype)

        return _Interpreter(storage).run(io.BytesIO(file.read(pickles[0])))


def _read_plain(content: bytes) -> Any:
    """Pickles of magic number, version, machine, data and storage keys; then each storage: its length and its bytes."""

    def empty(key: str, dtype: np.dtype, count: int) -> np.ndarray:
        if count * dtype.itemsize > len(content):
            raise ValueError(f"storage {key} is longer than the file")
        return np.empty(count, dtype)

    # The pickle of the data comes first, so the tensors are laid over empty storages, which are filled afterwards.
    stream, interpreter = io.BytesIO(content), _Interpreter(empty)
    if interpreter.run(stream) != _MAGIC:
        raise _Refused("it is a pickle, but none of torch.save")
    version, machine = interpreter.run(stream), interpreter.run(stream)
    if version != 1001:
        raise _Refused(f"its layout has the version {version}")
    if machine["little_endian"] is not True:
        raise _Refused("it was written on a big-endian machine")
    result = interpreter.run(stream)
    keys = interpreter.run(stream)
    if sorted(keys) != sorted(interpreter.storages):
        raise ValueError("the storages are not those that the tensors name")
    position = stream.tell()
    for key in keys:
        storage = interpreter.storages[key]
        count = int.from_bytes(content[position : position + 8], "little")
        if count != storage.size:
            raise ValueError(f"storage {key} has {count} elements instead of {storage.size}")
        storage[:] = np.frombuffer(content, storage.dtype, count, position + 8)
        position += 8 + storage.nbytes
    return result


@dataclasses.dataclass(frozen=True)
class _Name:
    """A global that the file mentions, as "module name"; only ever compared, never looked up."""

    text: str

    def __str__(self) -> str:
        return self.text.replace(" ", ".")


class _Interpreter:
    """Follows the opcodes of pickles of protocol 2, the one of torch.save.

    Attributes:
        storages: the storages so far, by their key.
    """

    def __init__(self, read_storage: StorageReader):
        self.storages: dict[str, np.ndarray] = {}
        self._read_storage = read_storage
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # the stacks under each open mark
        self._memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """The object of the pickle at the stream's position; leaves the stream behind it."""
        self._stack, self._below, self._memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        (result,) = self._stack
        return result

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        match opcode:
            case "PROTO":
                if argument != 2:
                    raise _Refused(f"it has the pickle protocol {argument} instead of torch's 2")
            case "MARK":
                self._below.append(stack)
                self._stack = []
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            # SHORT_BINSTRING and BINSTRING: str of Python 2
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINSTRING" | "BINSTRING":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                items = self._to_mark()
                self._stack.append(tuple(items))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack[-int(opcode[-1]) :] = [tuple(self._top(int(opcode[-1])))]
            case "APPEND":
                item = stack.pop()
                _checked(stack[-1], list).append(item)
            case "APPENDS":
                items = self._to_mark()
                _checked(self._stack[-1], list).extend(items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case "SETITEMS":
                items = self._to_mark()
                _set_items(self._stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                if argument not in _CALLS and argument.removeprefix("torch ") not in _DTYPES:
                    raise _Refused(f"it names {_Name(argument)}, which no state_dict needs")
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(self._storage(*_checked(stack.pop(), tuple)))
            case "REDUCE":
                arguments, name = _checked(stack.pop(), tuple), _checked(stack.pop(), _Name)
                if name.text not in _CALLS:
                    raise _Refused(f"it calls {name}")
                stack.append(_CALLS[name.text](*arguments))
            case "BUILD":  # attributes of an OrderedDict: a state_dict has `_metadata`, the versions of its modules
                _checked(stack.pop(), dict)
                _checked(stack[-1], dict)
            case _:
                raise _Refused(f"it has the pickle opcode {opcode}, which no state_dict has")

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _top(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise IndexError("the pickle takes more than it has")
        return self._stack[-count:]

    def _storage(self, kind: str, name: _Name, key: str, device: str, count: int, view: None = None) -> np.ndarray:
        """What a persistent id stands for; the device is of no concern here, views are of torch < 0.2."""
        storage = _checked(name, _Name).text.removeprefix("torch ")
        if kind != "storage" or storage not in _DTYPES or view is not None:
            raise _Refused(f"it refers to a {kind} {name} with the view {view}")
        dtype = np.dtype(_DTYPES[storage])
        if _checked(key, str) not in self.storages:
            self.storages[key] = self._read_storage(key, dtype, _natural(count))
        if (self.storages[key].dtype, self.storages[key].size) != (dtype, count):
            raise ValueError(f"storage {key} is asked for as two different ones")
        return self.storages[key]


def _ordered_dict(pairs: list[Any] | tuple[()] = ()) -> dict[Any, Any]:
    """`OrderedDict()`, filled by later opcodes; Python 2 hands over the pairs at once."""
    result: dict[Any, Any] = {}
    for pair in pairs:
        _set_items(result, _checked(pair, list))
    return result


def _tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_requires_grad_and_hooks: Any
) -> np.ndarray:
    """The strided view of a storage that a tensor is; offset and strides count elements."""
    _checked(storage, np.ndarray)
    if len(_checked(size, tuple)) != len(_checked(stride, tuple)):
        raise ValueError(f"a tensor has the size {size} and the strides {stride}")
    extents = [(_natural(n), _natural(step)) for n, step in zip(size, stride)]
    end = _natural(offset) + sum((n - 1) * step for n, step in extents) + 1
    if 0 in size:
        return np.empty(size, storage.dtype)
    if end > storage.size:
        raise ValueError(f"a tensor ends at element {end} of a storage of {storage.size}")
    strides = [step * storage.itemsize if n > 1 else 0 for n, step in extents]  # one element needs no stride
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides, writeable=False)


def _parameter(data: np.ndarray, *_requires_grad_and_hooks: Any) -> np.ndarray:
    return _checked(data, np.ndarray)


_CALLS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}
"""What stands here for the functions that a state_dict calls; the file can reach no others."""


def _set_items(target: Any, items: list[Any]) -> None:
    """Keys and values in turn, into a dict."""
    if len(items) % 2:
        raise ValueError("the pickle has a key without a value")
    for key, value in zip(items[::2], items[1::2]):
        if not isinstance(key, str | int):
            raise _Refused(f"it has a dict with a key of type {type(key).__name__}")
        _checked(target, dict)[key] = value


def _checked(value: Any, expected: type) -> Any:
    if not isinstance(value, expected):
        raise TypeError(f"the pickle has {type(value).__name__} where {expected.__name__.strip('_')} belongs")
    return value


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"the pickle has {value!r} where a count belongs")
    return value


def channels_last(tensor: np.ndarray) -> np.ndarray:
    """A kernel OIHW -> HWIO, others as they are; float32."""
    return np.asarray(tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor, np.float32)
