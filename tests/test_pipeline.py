"""The input pipeline on real photos: determinism, epochs, resuming, several processes, unreadable files, signals."""

import logging
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inpaint_jax.data.images import resize_and_crop
from inpaint_jax.data.masks import UnreadableMask, open_masks
from inpaint_jax.data.pipeline import NoReadableImages, evaluation_batches, training_batches
from inpaint_jax.data.sources import open_source

SIZE = 32
COUNT = 11
MASKS = open_masks("freeform", SIZE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eleven photos of 64 x 80 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    tiles = open_source("skimage:train")
    for index in range(COUNT):
        # The last tiles are the largest, of photos without flat skies, in which many crops would look alike.
        Image.fromarray(tiles[-1 - index][60:124, 60:140]).save(folder / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def source(folder):
    return open_source(f"folder:{folder}")


@pytest.fixture
def damaged(folder, tmp_path):
    """The same photos, of which numbers 3, 4 and the last are unreadable."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (folder / "03.png").read_bytes()
    (tmp_path / "03.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "04.png").write_text("<html>404 Not Found</html>")
    (tmp_path / "10.png").write_bytes(b"")
    return open_source(f"folder:{tmp_path}")


BAD = {"03.png": "truncated", "04.png": "no known image format", "10.png": "empty"}


def train(source, count: int, **options) -> list[dict[str, np.ndarray]]:
    batches = training_batches(
        source, options.pop("masks", MASKS), **{"size": SIZE, "batch_size": 4, "seed": 7} | options
    )
    taken = list(islice(batches, count))
    batches.close()
    return taken


def evaluate(source, **options) -> list[dict[str, np.ndarray]]:
    return list(evaluation_batches(source, MASKS, **{"size": SIZE, "batch_size": 4, "seed": 7} | options))


def assert_same(left: list[dict], right: list[dict]) -> None:
    assert len(left) == len(right) > 0
    for one, other in zip(left, right):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype
            np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def rows(batches: list[dict], key: str) -> list[bytes]:
    return [row.tobytes() for batch in batches for row in batch[key]]


def photo_numbers(batches: list[dict], source) -> list[int]:
    """Which photo each row shows; for batches that are neither flipped nor cropped at random."""
    numbers = {}
    for index in range(len(source)):
        numbers[resize_and_crop(source[index], SIZE).tobytes()] = index
    return [numbers[row] for row in rows(batches, "image")]


PLAIN = {"crop": "center", "flip": 0.0}


def test_batches_have_the_promised_arrays(source):
    (batch,) = train(source, 1)
    assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
        "image": ((4, SIZE, SIZE, 3), "uint8"),
        "mask": ((4, SIZE, SIZE), "bool"),
        "crop": ((4, 2), "int32"),
    }


def test_workers_and_resuming_change_nothing(source):
    whole = train(source, 8)
    assert_same(whole, train(source, 8))
    assert_same(whole[5:], train(source, 3, start_step=5))
    assert_same(whole, train(source, 8, workers=2))
    assert_same(whole[5:], train(source, 3, start_step=5, workers=2))
    assert rows(whole, "image") != rows(train(source, 8, seed=8), "image")
    assert rows(whole, "mask") != rows(train(source, 8, seed=8), "mask")


def test_every_epoch_has_each_photo_once_in_a_new_order(source):
    epochs = 4
    batches = train(source, epochs * COUNT, batch_size=1, **PLAIN)
    order = np.reshape(photo_numbers(batches, source), (epochs, COUNT))
    assert (np.sort(order, axis=1) == np.arange(COUNT)).all()
    assert len({tuple(epoch) for epoch in order.tolist()}) == epochs
    assert tuple(order[0]) != tuple(range(COUNT))


def test_crops_flips_and_masks_are_drawn_anew_for_every_sample(source):
    batches = train(source, 3 * COUNT, batch_size=1)
    assert len(set(rows(batches, "mask"))) == 3 * COUNT
    assert len(set(rows(batches, "image"))) > 2.5 * COUNT  # a photo comes three times, and seldom looks the same


def test_flip_mirrors_left_to_right(source):
    plain, mirrored = train(source, 5, **PLAIN), train(source, 5, crop="center", flip=1.0)
    assert_same([b | {"image": b["image"][:, :, ::-1]} for b in plain], mirrored)
    flipped = [
        (one["image"] != other["image"]).any()
        for one, other in zip(
            train(source, 300, batch_size=1, **PLAIN), train(source, 300, batch_size=1, crop="center", flip=0.5)
        )
    ]
    assert np.mean(flipped) == pytest.approx(0.5, abs=0.1)


def test_two_processes_draw_what_one_would(source):
    whole = train(source, 6)
    parts = [train(source, 6, process_index=index, process_count=2) for index in range(2)]
    for step, batch in enumerate(whole):
        assert all(part[step]["image"].shape[0] == 2 for part in parts)
        for key in batch:
            union = sorted(rows([part[step] for part in parts], key))
            assert union == sorted(rows([batch], key))


def test_a_single_photo_is_enough(folder, tmp_path):
    (tmp_path / "only.png").write_bytes((folder / "00.png").read_bytes())
    assert len(train(open_source(f"folder:{tmp_path}"), 3)) == 3


# Evaluation.


def test_evaluation_goes_through_all_photos_in_order(source):
    batches = evaluate(source)
    assert len(batches) == 3
    assert np.concatenate([batch["index"] for batch in batches]).tolist() == [*range(COUNT), -1]
    assert np.concatenate([batch["weight"] for batch in batches]).tolist() == [1] * COUNT + [0]
    assert photo_numbers([{"image": np.concatenate([b["image"] for b in batches])[:COUNT]}], source) == [*range(COUNT)]
    assert all(mask.any() for batch in batches for mask in batch["mask"])  # also where the weight is 0
    assert {key: value.dtype.name for key, value in batches[0].items()} == {
        "image": "uint8",
        "mask": "bool",
        "crop": "int32",
        "weight": "float32",
        "index": "int32",
    }
    assert_same(batches, evaluate(source, workers=2))


def test_evaluation_masks_depend_on_seed_and_number_alone(source):
    masks = rows(evaluate(source, batch_size=1), "mask")
    assert len(set(masks)) == COUNT
    assert rows(evaluate(source, batch_size=4), "mask")[:COUNT] == masks
    assert rows(evaluate(source, batch_size=2, limit=6), "mask") == masks[:6]
    assert rows(evaluate(source, batch_size=1, seed=8), "mask") != masks


def test_evaluation_limit(source):
    assert np.concatenate([b["index"] for b in evaluate(source, limit=6)]).tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
    assert len(evaluate(source, limit=100)) == 3


@pytest.mark.parametrize("process_count", [2, 4])
def test_evaluation_by_several_processes(source, process_count):
    whole = evaluate(source)
    parts = [evaluate(source, process_index=index, process_count=process_count) for index in range(process_count)]
    assert {len(part) for part in parts} == {len(whole)}  # or a collective operation would hang
    for key in whole[0]:
        assert sorted(rows([b for part in parts for b in part], key)) == sorted(rows(whole, key))


# Unreadable files.


def check_skipped(batches, caplog) -> None:
    assert batches.skipped.keys() == BAD.keys()
    assert len(caplog.records) == len(BAD)  # once each
    for name, reason in BAD.items():
        assert reason in batches.skipped[name]
        (record,) = [record for record in caplog.records if name in record.message]
        assert reason in record.message
        assert (record.name, record.levelno) == ("inpaint_jax", logging.WARNING)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_takes_the_next_readable_photo_instead(damaged, source, workers, caplog):
    batches = training_batches(
        damaged, MASKS, size=SIZE, batch_size=COUNT, seed=7, workers=workers, crop="center", flip=0.0
    )
    shown = photo_numbers(list(islice(batches, 3)), source)
    batches.close()
    asked = photo_numbers(train(source, 3, batch_size=COUNT, **PLAIN), source)
    assert shown == [{3: 5, 4: 5, 10: 0}.get(number, number) for number in asked]
    check_skipped(batches, caplog)


def test_evaluation_leaves_unreadable_photos_out(damaged, source, caplog):
    batches = evaluation_batches(damaged, MASKS, size=SIZE, batch_size=4, seed=7)
    taken = list(batches)
    check_skipped(batches, caplog)
    weight = np.concatenate([batch["weight"] for batch in taken])
    assert np.flatnonzero(weight == 0).tolist() == [3, 4, 10, 11]
    whole = evaluate(source)
    for key in ("mask", "index"):  # the others keep their masks
        assert rows(taken, key) == rows(whole, key)


def test_nothing_readable_is_an_error(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_text("not a photo")
    source = open_source(f"folder:{tmp_path}")
    for make in (training_batches, evaluation_batches):
        with pytest.raises(NoReadableImages, match=r"None of the 3 images .*0.jpg .*no known image format"):
            make(source, MASKS, size=SIZE, batch_size=2, seed=0, workers=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_in_workers_come_out_with_their_message(source, workers, tmp_path):
    (tmp_path / "hole.png").write_text("not a mask")
    with pytest.raises(UnreadableMask, match=r"Remove or repair the mask file .*hole.png"):
        train(source, 1, workers=workers, masks=open_masks(f"folder:{tmp_path}", SIZE))


def test_wrong_sizes_are_refused(source):
    for make in (training_batches, evaluation_batches):
        with pytest.raises(ValueError, match="cannot be divided among 3 processes"):
            make(source, MASKS, size=SIZE, batch_size=4, seed=0, process_count=3)
        with pytest.raises(ValueError, match="give open_masks the same size"):
            make(source, MASKS, size=64, batch_size=4, seed=0)


# Worker processes in a program of their own. The program prints the workers' numbers, then does as it is told.

PROGRAM = """
import multiprocessing, os, signal, sys, time
from inpaint_jax.data.masks import open_masks
from inpaint_jax.data.pipeline import training_batches
from inpaint_jax.data.sources import open_source

if __name__ == "__main__":
    source, masks = open_source("folder:" + sys.argv[1]), open_masks("freeform", 32)
    signals = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: signals.append(number))
    batches = training_batches(source, masks, size=32, batch_size=4, seed=0, workers=2)
    for _ in range(2):  # one batch of each worker: both have started
        next(batches)
    print(*[worker.pid for worker in multiprocessing.active_children()], flush=True)
    while len(signals) < 2:
        time.sleep(0.05)
    for _ in range(20):  # more than is prefetched
        next(batches)
    print("went on", flush=True)
    if sys.argv[2] == "close":
        batches.close()
        end = time.monotonic() + 5  # a killed worker is gone a moment later
        while multiprocessing.active_children() and time.monotonic() < end:
            time.sleep(0.05)
        print("left", len(multiprocessing.active_children()), flush=True)
"""


@pytest.fixture
def program(tmp_path, folder):
    """Starts the program in a process group of its own; gives the process and its workers' numbers."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    started = []

    def start(ending: str) -> tuple[subprocess.Popen, list[int]]:
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder), ending],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process, [int(pid) for pid in process.stdout.readline().split()]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()


def alive(pids: list[int]) -> list[int]:
    def runs(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        stat = Path(f"/proc/{pid}/stat")  # an orphan that nobody waits for stays as a zombie in some containers
        return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")

    return [pid for pid in pids if runs(pid)]


@pytest.mark.parametrize("ending", ["close", "leave"])
def test_workers_leave_signals_to_the_main_process_and_end_with_it(program, ending):
    process, workers = program(ending)
    assert len(alive(workers)) == 2
    os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
    os.killpg(process.pid, signal.SIGTERM)  # what a cluster does
    out, err = process.communicate(timeout=60)
    assert out.splitlines() == (["went on", "left 0"] if ending == "close" else ["went on"])
    assert process.returncode == 0
    assert "Traceback" not in err  # as in grain's clean-up, when the interpreter goes down first
    assert not alive(workers)


def test_workers_of_a_killed_program_end(program):
    process, workers = program("close")
    assert len(alive(workers)) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while alive(workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(workers)


def test_closing_does_not_wait_for_batches_that_nobody_reads(source):
    """Batches larger than a pipe; by itself grain waits 25 seconds for each worker."""
    masks = open_masks("freeform", 128)
    batches = training_batches(source, masks, size=128, batch_size=8, seed=0, workers=2)
    next(batches)
    time.sleep(1)  # the workers fill their pipes
    start = time.monotonic()
    batches.close()
    assert time.monotonic() - start < 15


def test_zoom_shows_parts_of_photos_at_more_than_one_scale(source):
    """Crops differ from the photo as a whole, and come again by the seed."""
    plain = train(source, 6, crop="center", flip=0.0)
    zoomed = train(source, 6, crop="center", flip=0.0, zoom=2.0)
    again = train(source, 6, crop="center", flip=0.0, zoom=2.0)
    for one, same in zip(zoomed, again):
        np.testing.assert_array_equal(one["image"], same["image"])
    whole = np.stack([resize_and_crop(photo, SIZE) for photo in (source[i] for i in range(COUNT))]).astype(float)

    def distance(batches):
        images = np.concatenate([batch["image"] for batch in batches]).astype(float)
        return np.abs(images[:, None] - whole[None]).mean(axis=(2, 3, 4)).min(axis=1)

    assert distance(plain).max() == 0
    assert (distance(zoomed) > 1).mean() > 0.8
