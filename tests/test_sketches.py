"""Sketches against the reference, their properties, and the store that keeps those of a data set."""

import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from scipy import ndimage
from sketch_stores import store_of

from inpaint_jax.data.sketches import MissingSketch, UnusableSketches, sketch_from_edges
from inpaint_jax.sketching import store as stores
from inpaint_jax.sketching.store import SketchStore, UnfinishedSketches, write_sketch

EIGHT = np.ones((3, 3), int)

# ------------------------------------------------------------------------------------------------- one sketch


@pytest.mark.parametrize("name", ["street_256crop", "bsds_100007"])
def test_equals_the_reference(shared, name):
    reference = np.load(shared / "reference" / f"pidinet_{name}.npz")
    sketch = sketch_from_edges(reference["fused"])
    assert sketch.dtype == bool
    np.testing.assert_array_equal(sketch, reference["sketch_skeleton_skimage_zhang"])


def random_edges(seed=0, shape=(160, 200)):
    """Blobs of all sizes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_lines_are_thin_and_lie_on_edges_of_the_same_components(seed):
    edges = random_edges(seed)
    sketch = sketch_from_edges(edges, 0.6, 40)
    labels, count = ndimage.label(edges > 0.6, EIGHT)
    sizes = np.bincount(labels.ravel())
    large = np.arange(1, count + 1)[sizes[1:] >= 40]
    assert 0 < len(large) < count  # there was something to drop
    # Each large component keeps one connected line, and nothing else is there.
    assert set(np.unique(labels[sketch])) == set(large)
    assert ndimage.label(sketch, EIGHT)[1] == len(large)
    full_squares = sketch[:-1, :-1] & sketch[1:, :-1] & sketch[:-1, 1:] & sketch[1:, 1:]
    assert full_squares.sum() <= 0.01 * sketch.sum()
    assert not (sketch[1:-1, 1:-1] & (ndimage.minimum_filter(sketch, 3)[1:-1, 1:-1])).any()


def test_area_opening_counts_pixels_in_8_connectivity():
    edges = np.zeros((64, 64), np.float32)
    edges[np.arange(10, 20), np.arange(10, 20)] = 1  # ten pixels that touch at corners only
    edges[40, 10:19] = 1  # nine in a row
    sketch = sketch_from_edges(edges, min_size=10)
    assert sketch[15, 15]
    assert not sketch[40].any()
    assert sketch_from_edges(edges, min_size=9)[40].any()
    assert not sketch_from_edges(edges, min_size=11).any()
    edges[60, 60] = 1
    for nothing in (0, 1):
        assert sketch_from_edges(edges, min_size=nothing)[60, 60]


def test_an_edge_lies_above_the_threshold():
    edges = np.zeros((64, 64), np.float32)
    edges[20, :], edges[40, :] = 0.5, 0.75
    assert sketch_from_edges(edges, 0.5, 10).any(axis=1).nonzero()[0].tolist() == [40]
    assert sketch_from_edges(edges, 0.4, 10).any(axis=1).nonzero()[0].tolist() == [20, 40]
    assert not sketch_from_edges(edges, 0.75, 10).any()


def test_the_size_scales_with_the_area_of_the_square_if_asked():
    edges = np.zeros((128, 300), np.float32)  # a quarter of the area: 25 pixels
    edges[20, :24] = edges[60, :25] = 1
    assert not sketch_from_edges(edges).any()
    assert sketch_from_edges(edges, scaled=True).any(axis=1).nonzero()[0].tolist() == [60]
    reference = random_edges(shape=(256, 300))
    np.testing.assert_array_equal(sketch_from_edges(reference, 0.6), sketch_from_edges(reference, 0.6, scaled=True))


def test_wrong_edge_maps_are_refused():
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        sketch_from_edges(np.zeros((1, 8, 8), np.float32))
    with pytest.raises(TypeError, match=r"floats in \[0, 1\]"):
        sketch_from_edges(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="NaN"):
        sketch_from_edges(np.full((8, 8), np.nan))


# ------------------------------------------------------------------------------------------------- the store of many


@dataclasses.dataclass
class Photos:
    """Only their names."""

    names: list[str]

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return self.names[index]


SETTINGS = {"data": "folder:photos", "size": 64, "resize": "shortest", "threshold": 0.65, "min_size": 100}
FITTING = {"size": 64, "resize": "shortest"}


def drawn(index):
    """Sizes of their own, no multiples of 8 among them."""
    return np.random.default_rng(int(index)).random((5 + index, 9 + 3 * index)) < 0.2


@pytest.fixture
def source(monkeypatch):
    """Seven photos, in three folders."""
    monkeypatch.setattr(stores, "_IN_A_FOLDER", 3)
    return Photos([f"street/{i}.jpg" for i in range(6)] + ["größe \udce4.png"])  # a byte that is no UTF-8, too


def test_sketches_come_back_as_they_were(tmp_path, source):
    store_of(tmp_path, source, drawn, SETTINGS)
    store = pickle.loads(pickle.dumps(SketchStore.open(tmp_path)))
    assert len(store) == 7
    assert store.settings == SETTINGS
    for index in (6, 0, 3, 2, 5, np.int64(4), 1):
        sketch = store[index]
        assert sketch.dtype == bool
        np.testing.assert_array_equal(sketch, drawn(index))
    with Image.open(tmp_path / "0001" / "0000003.png") as image:
        assert image.mode == "1"
        np.testing.assert_array_equal(np.asarray(image), drawn(3))
    with Image.open(store.path(3)) as image:  # as a paint program saves it
        image.convert("RGB").save(store.path(3))
    np.testing.assert_array_equal(store[3], drawn(3))


def test_a_store_that_was_not_finished_goes_on(tmp_path, source):
    with pytest.raises(UnfinishedSketches, match="There are no sketches in"):
        SketchStore.open(tmp_path)
    store = SketchStore.create(tmp_path, source, SETTINGS)
    for number in (0, 4):
        write_sketch(store.path(number), drawn(number))
    with pytest.raises(UnfinishedSketches, match="unfinished, 5 of its 7 sketches are missing; start"):
        SketchStore.open(tmp_path)
    assert list(SketchStore.create(tmp_path, source, SETTINGS).to_make()) == [1, 2, 3, 5, 6]
    store = store_of(tmp_path, source, drawn, SETTINGS, unreadable=[6])
    assert list(store.to_make()) == [6]  # to be tried again
    with pytest.raises(MissingSketch, match="number 6 has no sketch"):
        store[6]
    np.testing.assert_array_equal(store_of(tmp_path, source, drawn, SETTINGS)[6], drawn(6))


def test_a_folder_of_other_sketches_is_refused(tmp_path, source):
    store_of(tmp_path, source, drawn, SETTINGS)
    renamed = Photos([*source.names[:-1], "other.png"])
    for photos, settings, limit, words in (
        (source, SETTINGS | {"threshold": 0.5}, None, r"\(threshold: 0.65 there, 0.5 now\); name another folder"),
        (source, SETTINGS, 4, r"\(count: 7 there, 4 now; names: "),
        (renamed, SETTINGS, None, r"\(names: '\w+' there"),
    ):
        with pytest.raises(UnusableSketches, match=words) as error:
            SketchStore.create(tmp_path, photos, settings, limit)
        assert "\n" not in str(error.value)
    (tmp_path / "index.json").unlink()
    with pytest.raises(UnusableSketches, match=r"no index\.json"):
        SketchStore.create(tmp_path, source, SETTINGS)


def test_belongs_to_its_photos_wherever_they_are(tmp_path, source):
    store = store_of(tmp_path / "all", source, drawn, SETTINGS)
    store.check(source, **FITTING)
    short = store_of(tmp_path / "short", source, drawn, SETTINGS, limit=4)
    for limit in (1, 4):
        short.check(source, **FITTING, limit=limit)
    for of, other, fields, words in (
        (store, Photos(source.names[:-1]), {}, "sketches of 7 photos, but the data has 6"),
        (store, Photos([*source.names[:4], "street/5.jpg", "x", "y"]), {}, "of photos with other names"),
        (short, Photos(["x", *source.names[1:]]), {"limit": 2}, "of photos with other names"),
        (short, source, {}, "sketches of 4 photos, but the data has 7"),
        (store, source, {"size": 256}, "for size 64, not 256"),
        (
            store,
            source,
            {"size": 8, "resize": "stretch"},
            "for size 64, not 8 and for resize 'shortest', not 'stretch'",
        ),
    ):
        with pytest.raises(UnusableSketches, match=words) as error:
            of.check(other, **FITTING | fields)
        assert "\n" not in str(error.value)


def test_the_digest_is_of_settings_and_photos(tmp_path, source):
    def digest(name, settings, names, unreadable=()):
        return store_of(tmp_path / name, Photos(names), drawn, settings, unreadable=unreadable).digest

    first = digest("first", SETTINGS, source.names)
    assert digest("moved", SETTINGS | {"data": "folder:elsewhere"}, source.names) == first
    changed = {
        digest("settings", SETTINGS | {"threshold": 0.5}, source.names),
        digest("names", SETTINGS, [*source.names[:-1], "x"]),
        digest("lacking", SETTINGS, source.names, unreadable=[2]),
    }
    assert len(changed - {first}) == 3


def test_photos_without_a_sketch_are_counted(tmp_path, source, caplog):
    store = store_of(tmp_path, source, drawn, SETTINGS, unreadable=(1, 6))
    store.check(source, **FITTING, limit=1)
    assert not caplog.records
    store.check(source, **FITTING)
    [record] = caplog.records
    assert "2 of 7 photos could not be read" in record.getMessage()
    assert "street/1.jpg for example" in record.getMessage()


def test_damage_to_any_bit_is_found(tmp_path, source):
    """Flipped, cut off or zero; whatever decodes is the sketch as it was."""
    path = store_of(tmp_path, source, drawn, SETTINGS).path(6)
    content = path.read_bytes()
    flipped = [
        content[:i] + bytes([content[i] ^ 1 << k]) + content[i + 1 :] for i in range(len(content)) for k in (0, 5)
    ]
    shorter = [content[:i] for i in range(len(content))]
    zeros = [content[:i] + bytes(len(content) - i) for i in range(len(content))]
    store, sentences = SketchStore.open(tmp_path), []
    for damaged in (*flipped, *shorter, *zeros):
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(store[6], drawn(6))
        except UnusableSketches as error:
            sentences.append(str(error))
    assert set(sentences) == {
        f"{path} cannot be read (it is damaged); delete it and start the command that makes the sketches again."
    }
    assert len(sentences) > len(flipped + shorter + zeros) - 30  # the last chunk is empty, and nobody needs it
    path.unlink()
    with pytest.raises(UnusableSketches, match=r"0000006\.png cannot be read \(No such file"):
        store[6]


def test_a_damaged_index_is_refused(tmp_path, source):
    index = store_of(tmp_path, source, drawn, SETTINGS).folder / "index.json"
    older = json.dumps({"format": 2, "settings": SETTINGS, "count": 7, "names": "", "shard_size": 1000})
    for damaged, words in (("{", ""), ("[]", ""), ("{}", "format"), (older, "it is of format 2, not 3")):
        index.write_text(damaged)
        for use in (lambda: SketchStore.open(tmp_path), lambda: SketchStore.create(tmp_path, source, SETTINGS)):
            with pytest.raises(
                UnusableSketches, match=rf"index\.json cannot be read \(.*{words}.*\); delete .* to start"
            ):
                use()


def test_reading_takes_neither_jax_nor_scikit_image():
    code = "import sys, inpaint_jax.sketching.store; print({'jax', 'skimage', 'scipy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
