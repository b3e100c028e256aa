"""TFRECORD, the format that TFDS writes by default, read without TensorFlow.

A record is its length (8 bytes, little endian), a checksum of that (4), its bytes, and a checksum of these (4). The
checksums are CRC-32C, rotated and shifted (https://www.tensorflow.org/tutorials/load_data/tfrecord).
"""

import functools
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from inpaint_jax.errors import UserError

_LENGTH = struct.Struct("<Q")
_CHECKSUM = struct.Struct("<I")
_HEADER_SIZE = _LENGTH.size + _CHECKSUM.size
FRAME_BYTES = _HEADER_SIZE + _CHECKSUM.size  # of a record in its file, beside the record itself
_BATCH_BYTES = 1 << 24  # of records whose checksums are computed together
_LANE = 512  # bytes that a checksum takes one after the other; lanes are computed side by side


class DamagedRecord(UserError):
    """A file of records that is cut off, or whose bytes are not those that were written."""


def read_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a file, in order, and only those whose checksums are right.

    Raises:
        DamagedRecord: names the file and the number of the record.
    """
    done = 0
    with path.open("rb") as file:
        left = path.stat().st_size
        while left:
            headers, records, stored = [], [], []
            size = 0
            while left and size < _BATCH_BYTES:
                header = file.read(_HEADER_SIZE)
                length = _LENGTH.unpack_from(header)[0] if len(header) == _HEADER_SIZE else left
                left -= length + FRAME_BYTES
                if left < 0:  # also where the length itself is damaged
                    break
                headers.append(header[: _LENGTH.size])
                records.append(file.read(length))
                stored += [header[_LENGTH.size :], file.read(_CHECKSUM.size)]
                size += length
            found = _masked(crc32c([part for pair in zip(headers, records) for part in pair]))
            wrong = np.flatnonzero(found != np.frombuffer(b"".join(stored), "<u4"))
            sound = len(records) if wrong.size == 0 else int(wrong[0]) // 2
            yield from records[:sound]
            done += sound
            if left < 0 or wrong.size:
                fault = "has a wrong checksum" if wrong.size else "is cut off, or its length is wrong"
                raise DamagedRecord(f"{path} is damaged: its record {done + 1} {fault}.")


def crc32c(texts: Sequence[bytes]) -> np.ndarray:
    """CRC-32C (Castagnoli) of several byte strings: uint32 [len(texts)].

    Checksums are linear over GF(2): each text is cut into lanes, whose remainders are computed side by side and then
    put together, those of all texts at once. Some hundred MB a second; byte by byte, Python takes one second for one.
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    counts = np.maximum(1, -(-lengths // _LANE))
    ends = np.cumsum(counts)
    lanes = np.zeros((int(ends[-1]) if len(texts) else 0, _LANE), np.uint8)
    flat = lanes.reshape(-1)
    for text, length, end in zip(texts, lengths.tolist(), (ends * _LANE).tolist()):
        # At the end of its lanes, because zeros before a text change nothing. The register starts with ones, which is
        # the same as to invert the first four bytes.
        flat[end - length : end] = np.frombuffer(text, np.uint8)
        flat[end - length : min(end - length + 4, end)] ^= 0xFF
    remainders = _take_in(np.zeros(len(lanes), np.uint32), np.ascontiguousarray(lanes.view("<u2").T))

    total = np.zeros(len(texts), np.uint32)
    for before in range(int(counts.max(initial=0)), 0, -1):  # lanes from here to the end of the text
        longer = np.flatnonzero(counts >= before)
        total[longer] = _over_a_lane(total[longer]) ^ remainders[ends[longer] - before]
    # What a text of less than four bytes leaves in the register of the ones at the start.
    rest = 0xFFFFFFFF >> np.minimum(8 * lengths, 32)
    return ~(total ^ rest.astype(np.uint32))


def _masked(checksums: np.ndarray) -> np.ndarray:
    """Checksums as they stand in a file, so that a checksum of data with checksums is none of zero."""
    return ((checksums >> 15) | (checksums << 17)) + np.uint32(0xA282EAD8)


def _take_in(registers: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Registers [N] after words of 16 bits [steps, N]."""
    table = _remainders_of_words()
    for word in words:
        registers = table[(registers ^ word) & 0xFFFF] ^ (registers >> 16)
    return registers


def _over_a_lane(registers: np.ndarray) -> np.ndarray:
    """Registers [N] after a lane of zeros."""
    tables = _remainders_over_a_lane()
    return functools.reduce(np.bitwise_xor, (tables[i][(registers >> 8 * i) & 0xFF] for i in range(4)))


@functools.cache
def _remainders_of_words() -> np.ndarray:
    """uint32 [65536]: what a word of 16 bits leaves in an empty register."""
    registers = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        registers = (registers >> 1) ^ (registers & 1) * np.uint32(0x82F63B78)  # the polynomial, lowest bit first
    return registers


@functools.cache
def _remainders_over_a_lane() -> np.ndarray:
    """uint32 [4, 256]: what a lane of zeros makes of a register with one byte in it, by its place."""
    registers = np.arange(256, dtype=np.uint32) << (8 * np.arange(4, dtype=np.uint32))[:, None]
    zeros = np.zeros((_LANE // 2, 1), np.uint16)
    return _take_in(registers.reshape(-1), zeros).reshape(4, 256)
