"""Sketches in batches: they follow their photo through crop and flip, change nothing else, and lose lines as told."""

from itertools import islice

import numpy as np
import pytest
from PIL import Image
from sketch_stores import store_of

from inpaint_jax.data.images import resize_only
from inpaint_jax.data.masks import open_masks
from inpaint_jax.data.pipeline import evaluation_batches, training_batches
from inpaint_jax.data.sketches import UnusableSketches, drop_lines
from inpaint_jax.data.sources import open_source

SIZE = 32
COUNT = 7
MASKS = open_masks("freeform", SIZE)
BROKEN = 2  # could not be read when the sketches were made, and cannot now


def photo_with_lines(number: int) -> np.ndarray:
    """Grey, wider than high or the other way round, with two bright lines that tell left from right."""
    photo = np.full((SIZE, 48, 3) if number % 2 else (44, SIZE, 3), 40 + number, np.uint8)
    photo[4 + number : 30, 9 + number] = 255
    photo[20, 12 + number : 27] = 255
    return photo


def keep(folder, source, make=lambda photo: photo[..., 0] == 255, resize="shortest"):
    """Writes the sketches of a source, those of its bright lines."""
    settings = {"data": "here", "size": SIZE, "resize": resize}

    def draw(number):
        return make(resize_only(source[number], SIZE, resize))

    return store_of(folder, source, draw, settings, unreadable=[BROKEN])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lines")
    for number in range(COUNT):
        Image.fromarray(photo_with_lines(number)).save(folder / f"{number}.png")
    (folder / f"{BROKEN}.png").write_bytes(b"no photo")
    return open_source(f"folder:{folder}")


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    return keep(tmp_path_factory.mktemp("sketches"), source)


def train(source, count=6, **options):
    batches = training_batches(source, MASKS, **{"size": SIZE, "batch_size": 5, "seed": 3} | options)
    taken = list(islice(batches, count))
    batches.close()
    return taken


def evaluate(source, **options):
    return list(evaluation_batches(source, MASKS, size=SIZE, batch_size=4, seed=3, **options))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("crop", ["random", "center"])
def test_lines_follow_their_photo_through_crop_and_flip(source, store, crop, workers):
    """A broken photo, too: its sketch is that of the photo that stands in for it."""
    batches = train(source, sketches=store, crop=crop, workers=workers)
    seen = set()
    for batch in batches:
        assert (batch["sketch"].shape, batch["sketch"].dtype) == ((5, SIZE, SIZE), bool)
        np.testing.assert_array_equal(batch["sketch"], batch["image"][..., 0] == 255)
        seen |= {sketch.tobytes() for sketch in batch["sketch"]}
    assert len(seen) > COUNT  # flipped and not, at least


def test_evaluation_cuts_out_the_middle(source, store):
    for batch in evaluate(source, sketches=store):
        np.testing.assert_array_equal(batch["sketch"], batch["image"][..., 0] == 255)
        assert not batch["sketch"][batch["weight"] == 0].any()
        assert batch["sketch"][batch["weight"] == 1].any(axis=(1, 2)).all()


def test_several_hosts_draw_together_what_one_draws(source, store):
    """Training and evaluation; sketches and what the dropout leaves of them as well as photos."""
    options = {"sketches": store, "sketch_dropout": 0.5, "batch_size": 4}
    for draw, arguments in ((train, options), (evaluate, {"sketches": store})):
        whole = draw(source, **arguments)
        hosts = [draw(source, **arguments, process_index=i, process_count=2) for i in range(2)]
        for one, *parts in zip(whole, *hosts, strict=True):
            assert one["sketch"].any()
            for name in one:
                for i, part in enumerate(parts):
                    np.testing.assert_array_equal(part[name], one[name][i::2])


@pytest.mark.parametrize("crop", ["random", "center"])
def test_stretched_photos_keep_their_lines(source, tmp_path, crop):
    """Bright areas, of photos that are squeezed: a line would not stay one pixel wide."""

    def bright(photo):
        return photo[..., 0] > 99

    store = keep(tmp_path, source, bright, resize="stretch")
    assert {store[i].shape for i in range(COUNT) if i != BROKEN} == {(SIZE, SIZE)}
    seen = set()
    for batch in train(source, sketches=store, resize="stretch", crop=crop):
        np.testing.assert_array_equal(batch["sketch"], bright(batch["image"]))
        seen |= {sketch.tobytes() for sketch in batch["sketch"]}
    assert len(seen) == 2 * (COUNT - 1)  # flipped and not
    for batch in evaluate(source, sketches=store, resize="stretch"):
        np.testing.assert_array_equal(batch["sketch"], bright(batch["image"]))
        assert batch["sketch"][batch["weight"] > 0].any(axis=(1, 2)).all()


@pytest.mark.parametrize("sketch_dropout", [0.0, 0.9])
def test_all_else_is_the_same_with_and_without(source, store, sketch_dropout):
    for with_them, without in (
        (train(source, sketches=store, sketch_dropout=sketch_dropout), train(source)),
        (evaluate(source, sketches=store), evaluate(source)),
    ):
        for one, other in zip(with_them, without, strict=True):
            assert one.keys() - other.keys() == {"sketch"}
            for name in other:
                np.testing.assert_array_equal(one[name], other[name])


def test_dropout_is_resumable_and_the_same_with_workers(source, store):
    options = {"sketches": store, "sketch_dropout": 0.8}
    whole = train(source, 8, **options)
    for rest in (train(source, 3, start_step=5, **options), train(source, 3, start_step=5, workers=2, **options)):
        for one, other in zip(whole[5:], rest, strict=True):
            np.testing.assert_array_equal(one["sketch"], other["sketch"])


def test_dropout_leaves_none_some_or_all():
    """Half of the share none; in the other half each line with 1/2. Lines that touch at a corner are one."""
    sketch = np.zeros((16, 16), bool)
    sketch[np.arange(5), np.arange(5)] = True
    sketch[10, 2:9] = True
    sketch[2:7, 12] = True
    parts = [np.zeros_like(sketch) for _ in range(3)]
    parts[0][:5, :5], parts[1][10], parts[2][:, 12] = sketch[:5, :5], sketch[10], sketch[:, 12]
    rng = np.random.default_rng(0)
    outcomes = []
    for _ in range(4000):
        left = drop_lines(sketch, rng, 0.4)
        there = tuple(bool(left[part].any()) for part in parts)
        for part, stays in zip(parts, there):
            assert left[part].all() == stays
        assert not left[~sketch].any()
        outcomes.append(sum(there))
    share = np.bincount(outcomes, minlength=4) / len(outcomes)
    np.testing.assert_allclose(share, [0.2 + 0.2 / 8, 0.2 * 3 / 8, 0.2 * 3 / 8, 0.6 + 0.2 / 8], atol=0.025)
    assert all((drop_lines(sketch, rng, 0.0) == sketch).all() for _ in range(50))
    assert not drop_lines(sketch & False, rng, 1.0).any()


def test_dropout_reaches_the_samples(source, store):
    none = [
        not sketch.any()
        for batch in train(source, 60, sketches=store, sketch_dropout=1.0)
        for sketch in batch["sketch"]
    ]
    assert np.mean(none) == pytest.approx(1 / 2 + 1 / 2 / 4, abs=0.1)  # two lines a photo, some cut off


def test_sketches_of_another_size_stop_the_run(source, tmp_path):
    other = keep(tmp_path, source, lambda photo: photo[:-1, :, 0] == 255)
    with pytest.raises((UnusableSketches, RuntimeError), match=r"The sketch of photo number \d is .* pixels, but the"):
        train(source, 1, sketches=other)


def test_a_photo_that_had_no_sketch_gets_none(source, tmp_path):
    photo = photo_with_lines(0)
    for number in range(COUNT):
        Image.fromarray(photo).save(tmp_path / f"{number}.png")
    whole = open_source(f"folder:{tmp_path}")
    store = keep(tmp_path / "sketches", whole)
    (batch, _) = evaluate(whole, sketches=store)
    assert batch["sketch"].any(axis=(1, 2)).tolist() == [i != BROKEN for i in range(4)]
    assert batch["weight"].all()
