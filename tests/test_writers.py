"""Files of a run."""

import json
import math
import time

import numpy as np
import pytest
from PIL import Image

from inpaint_jax.visualize import image_sheet, training_curves
from inpaint_jax.writers import RunWriter, best_validation, read_metrics


def test_lines_and_sheet(tmp_path):
    with RunWriter(tmp_path, 0) as writer:
        writer.write(5, 0.25, {"loss": 1.5, "gone": math.inf})
        sheet = np.random.default_rng(0).integers(0, 255, (10, 12, 3), np.uint8)
        path = writer.write_sheet(5, sheet)
    assert read_metrics(tmp_path) == [{"step": 5, "epoch": 0.25, "loss": 1.5, "gone": None}]
    np.testing.assert_array_equal(np.asarray(Image.open(path)), sheet)


def test_going_on_drops_what_will_be_written_again(tmp_path):
    with RunWriter(tmp_path, 0) as writer:
        for step in range(1, 6):
            writer.write(step, step / 10, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "ep')  # killed in the middle of a line
    with RunWriter(tmp_path, 3) as writer:
        writer.write(4, 0.4, {"loss": 40.0})
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


GOOD = [{"step": step, "epoch": step / 10, "loss": 1 / step} for step in (1, 2, 3)]


@pytest.mark.parametrize(
    "damage",
    [
        *(
            b"garbage",
            b"\xff\xfe\x00",
            b'{"step": 2, "ep',
            b'{"epoch": 0.1, "loss": 1.0}',
            b'{"step": -1, "epoch": 0.1}',
        ),
        *(
            b'{"step": 1}',
            b'{"step": 1, "epoch": 0.1, "loss": "low"}',
            b'{"step": 1, "epoch": NaN}',
            b"[1]",
            b"null",
            b"",
        ),
        *(b"[" * 100_000, bytes(4096), b"1" * 5000),
    ],
    ids=lambda damage: repr(damage[:20]),
)
def test_going_on_drops_damaged_lines_and_says_so_once(tmp_path, caplog, damage):
    lines = [json.dumps(row).encode() for row in GOOD]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\n".join([lines[0], damage, *lines[1:], damage, bytes(100)]))
    with RunWriter(tmp_path, 3) as writer:
        writer.write(4, 0.4, {"loss": 0.25})
    assert read_metrics(tmp_path) == [*GOOD, {"step": 4, "epoch": 0.4, "loss": 0.25}]
    assert [record.message for record in caplog.records] == [f"Dropped 2 damaged line(s) of {path}: 2, 5"]


def test_no_metrics_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="workdir of a training run"):
        read_metrics(tmp_path)


def test_tensorboard_reads_the_numbers(tmp_path):
    with RunWriter(tmp_path, 0) as writer:
        writer.write(3, 0.5, {"loss": 0.25})
        writer.write_sheet(3, np.zeros((8, 8, 3), np.uint8))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (scalar,) = events.Scalars("loss")
    assert (scalar.step, scalar.value) == (3, 0.25)
    (image,) = events.Images("samples")
    assert (image.step, image.height, image.width) == (3, 8, 8)


def test_tensorboard_forgets_what_will_be_written_again(tmp_path):
    for first_step, value in ((0, 1.0), (2, 2.0)):
        with RunWriter(tmp_path, first_step) as writer:
            for step in range(first_step + 1, first_step + 4):
                writer.write(step, step / 10, {"loss": value})
        time.sleep(1.1)  # files are named and read by the second
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(scalar.step, scalar.value) for scalar in events.Scalars("loss")] == [
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
        (5, 2),
    ]


def test_sheet_shows_every_pixel():
    rng = np.random.default_rng(0)
    columns = {"bytes": rng.integers(0, 256, (2, 5, 7, 3), np.uint8), "floats": rng.random((2, 5, 7, 3), np.float32)}
    sheet = image_sheet(columns)
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (5, 7, 3))[:, :, 0]
    for image in (*columns["bytes"], *np.round(columns["floats"] * 255).astype(np.uint8)):
        assert (windows == image).all(axis=(2, 3, 4)).sum() == 1
    with pytest.raises(ValueError, match="one shape"):
        image_sheet({"a": columns["bytes"], "b": columns["bytes"][:1]})


def test_curves_show_the_rows():
    rows = [
        {"step": s, "loss/coarse": 1 / (s + 1), "temperature/head_0": 0.5, "temperature/head_1": s} for s in range(9)
    ]
    figure = training_curves([*rows, {"step": 9, "validation/hole_psnr": 20.0, "validation/loss": None}])
    lines = {line.get_label(): line.get_xydata() for axes in figure.axes for line in axes.lines}
    np.testing.assert_allclose(lines["coarse, L1"], [(s, 1 / (s + 1)) for s in range(9)])
    np.testing.assert_allclose(lines["head 1"], [(s, s) for s in range(9)])
    np.testing.assert_allclose(lines["refined"], [(9, 20.0)])


def test_the_best_validation_is_that_of_the_selection():
    rows = [
        {"step": 0, "validation/loss": 3.0, "validation/hole_l1": 0.3},
        {"step": 5, "loss/generator": 1.0},
        {"step": 6, "validation/loss": 1.0, "validation/hole_l1": 0.2},
        {"step": 9, "validation/loss": 2.0, "validation/hole_l1": 0.1},
    ]
    assert best_validation(rows)["step"] == 6
    assert best_validation(rows, "hole_l1")["step"] == 9
    assert best_validation(rows, "last")["step"] == 9
    assert best_validation(rows[1:2]) is None
