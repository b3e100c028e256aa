"""Sketches against the reference, their properties, and the folder that keeps them."""

import dataclasses
import json
import pickle
import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import REPOSITORY
from scipy import ndimage

from inpaint_jax.data import sketches
from inpaint_jax.data.images import UnreadableImage
from inpaint_jax.data.sketches import (
    MissingSketch,
    SketchStore,
    UnfinishedSketches,
    UnusableSketches,
    sketch_from_edges,
)

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


@pytest.mark.parametrize("min_size", [0, 1])
def test_nothing_is_dropped_from_one_pixel_on(min_size):
    edges = np.zeros((16, 16), np.float32)
    edges[5, 5] = 1
    assert sketch_from_edges(edges, min_size=min_size)[5, 5]


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


@pytest.mark.parametrize("edges", [np.zeros((8, 8)), np.ones((1, 8), np.float16), np.zeros((0, 4), np.float32)])
def test_maps_without_lines_and_of_any_float_type(edges):
    assert sketch_from_edges(edges, min_size=9).shape == edges.shape


def test_wrong_edge_maps_are_refused():
    with pytest.raises(ValueError, match=r"\[H, W\]"):
        sketch_from_edges(np.zeros((1, 8, 8), np.float32))
    with pytest.raises(TypeError, match=r"floats in \[0, 1\]"):
        sketch_from_edges(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="NaN"):
        sketch_from_edges(np.full((8, 8), np.nan))


# ------------------------------------------------------------------------------------------------- folders of them


@dataclasses.dataclass
class Source:
    """Photos that are only names."""

    names: list[str]

    def __len__(self):
        return len(self.names)

    def name(self, index):
        return self.names[index]


@dataclasses.dataclass
class Photos(Source):
    """Some of them can be read."""

    readable: set[int]

    def __getitem__(self, index):
        if index not in self.readable:
            raise UnreadableImage(self.names[index], "it is broken")
        return np.zeros((8, 8, 3), np.uint8)


SETTINGS = {"data": "folder:photos", "size": 64, "resize": "shortest", "threshold": 0.65, "min_size": 100}


def drawn(index):
    """Sizes of their own, no multiples of 8 among them."""
    return np.random.default_rng(index).random((5 + index, 9 + 3 * index)) < 0.2


def write(folder, source, shards=None, unreadable=()):
    missing = sketches.claim(folder, source, SETTINGS, shard_size=3)
    for number, photos in missing.items():
        if shards is None or number in shards:
            records = [None if i in unreadable else sketches.pack(drawn(i)) for i in photos]
            sketches.write_shard(folder, number, [source.name(i) for i in photos], records)
    return missing


def all_of(store):
    return [store[index] for index in range(len(store))]


@pytest.fixture
def source():
    return Source([f"street/{i}.jpg" for i in range(6)] + ["größe \udce4.png"])  # a byte that is no UTF-8, too


def test_sketches_come_back_as_they_were(tmp_path, source):
    assert write(tmp_path, source) == {0: range(3), 1: range(3, 6), 2: range(6, 7)}
    store = pickle.loads(pickle.dumps(SketchStore(tmp_path)))
    assert len(store) == 7
    assert store.settings == SETTINGS
    for index in (6, 0, 3, 2, 5, np.int64(4), 1):
        sketch = store[index]
        assert sketch.dtype == bool
        np.testing.assert_array_equal(sketch, drawn(int(index)))
    for index in (7, -1):
        with pytest.raises(IndexError, match="7 photos"):
            store[index]
    assert write(tmp_path, source) == {}


def test_photos_that_could_not_be_read_have_none(tmp_path, source):
    write(tmp_path, source, unreadable=(1, 6))
    store = SketchStore(tmp_path)
    np.testing.assert_array_equal(store[2], drawn(2))
    with pytest.raises(MissingSketch, match=r"street/1\.jpg has no sketch"):
        store[1]


def test_belongs_to_its_photos_wherever_they_are(tmp_path, source):
    write(tmp_path, source)
    store = SketchStore(tmp_path)
    store.check(source, size=64, resize="shortest")
    for other, fields, words in (
        (Source(source.names[:-1]), {}, "sketches of 7 photos, but the data has 6"),
        (Source([*source.names[:4], "street/5.jpg", "x", "y"]), {}, "number 4 is 'street/4.jpg' there"),
        (source, {"size": 256}, "for size 64, not 256"),
        (source, {"resize": "stretch"}, "for resize 'shortest', not 'stretch'"),
    ):
        with pytest.raises(UnusableSketches, match=words) as error:
            store.check(other, **fields)
        assert "\n" not in str(error.value)


def test_the_first_photos_may_be_enough(tmp_path, source):
    missing = sketches.claim(tmp_path, source, SETTINGS, 3, limit=4)
    assert missing == {0: range(3), 1: range(3, 4)}
    for number, photos in missing.items():
        sketches.write_shard(
            tmp_path, number, [source.name(i) for i in photos], [sketches.pack(drawn(i)) for i in photos]
        )
    store = SketchStore(tmp_path)
    assert len(store) == 4
    np.testing.assert_array_equal(store[3], drawn(3))
    for limit in (1, 4):
        store.check(source, limit=limit)
    for limit in (5, None):
        with pytest.raises(UnusableSketches, match="sketches of 4 photos, but the data has 7"):
            store.check(source, limit=limit)
    with pytest.raises(UnusableSketches, match=r"number 3 is 'street/3[.]jpg' there"):
        store.check(Source([*source.names[:3], "x", *source.names[4:]]), limit=2)
    assert sketches.claim(tmp_path, source, SETTINGS, 3, limit=4) == {}
    with pytest.raises(UnusableSketches, match=r"count: 4 there, 7 now"):
        sketches.claim(tmp_path, source, SETTINGS, 3)


def test_the_digest_is_of_settings_names_and_content(tmp_path, source):
    def digest(name, settings, pictures, names):
        renamed = Source(names)
        for number, photos in sketches.claim(tmp_path / name, renamed, settings, 3).items():
            records = [sketches.pack(pictures(i)) for i in photos]
            sketches.write_shard(tmp_path / name, number, [names[i] for i in photos], records)
        return SketchStore(tmp_path / name).digest()

    def other(index):
        return drawn(index) ^ (index == 6)

    first = digest("first", SETTINGS, drawn, source.names)
    assert digest("moved", SETTINGS | {"data": "folder:elsewhere"}, drawn, source.names) == first
    changed = {
        digest("settings", SETTINGS | {"threshold": 0.5}, drawn, source.names),
        digest("content", SETTINGS, other, source.names),
        digest("names", SETTINGS, drawn, [*source.names[:-1], "x"]),
    }
    assert len(changed - {first}) == 3


def test_the_digest_does_not_depend_on_how_well_zlib_compresses(tmp_path, source, monkeypatch):
    write(tmp_path / "first", source, unreadable=(1,))
    with monkeypatch.context() as patched:
        compress = zlib.compress
        patched.setattr(zlib, "compress", lambda content: compress(content, 0))
        write(tmp_path / "other", source, unreadable=(1,))
    first, other = (tmp_path / name / "00000.sketches" for name in ("first", "other"))
    assert first.read_bytes() != other.read_bytes()
    first, other = (SketchStore(path.parent) for path in (first, other))
    assert first.digest() == other.digest()
    np.testing.assert_array_equal(first[6], other[6])


def test_the_digest_may_be_of_the_first_photos_alone(tmp_path, source):
    """Over the border of a file: what comes after the limit plays no part, neither names nor lines."""

    def store(name, names, changed=None, limit=None):
        renamed = Source(names)
        for number, photos in sketches.claim(tmp_path / name, renamed, SETTINGS, 3, limit=limit).items():
            records = [sketches.pack(drawn(i) ^ (i == changed)) for i in photos]
            sketches.write_shard(tmp_path / name, number, [names[i] for i in photos], records)
        return SketchStore(tmp_path / name)

    whole = store("whole", source.names)
    alike = [
        store("short", source.names, limit=4),
        store("renamed", [*source.names[:4], "x", "y", "z"]),
        store("changed", source.names, changed=4),
    ]
    assert {each.digest(4) for each in alike} == {whole.digest(4)}
    assert alike[0].digest() == whole.digest(4)
    assert len({each.digest() for each in (whole, *alike)}) == 4
    others = [store("x", ["x", *source.names[1:]]), store("3", source.names, changed=3)]
    assert len({each.digest(4) for each in (whole, *others)}) == 3
    assert whole.digest(7) == whole.digest(9) == whole.digest()


def test_photos_without_a_sketch_are_counted(tmp_path, source, caplog):
    """One photo can be read now, the others cannot."""
    readable = set(range(7)) - {6}
    photos = Photos(source.names, readable)
    write(tmp_path, source, unreadable=(1, 6))
    store = SketchStore(tmp_path)
    assert (store.missing(), store.missing(6), store.missing(1)) == ([1, 6], [1], [])
    store.check_missing(photos, limit=1, needed=True)
    assert not caplog.records
    store.check_missing(photos)
    [record] = caplog.records
    assert "2 of 7 photos have no sketch" in record.getMessage()
    assert "street/1.jpg for example; those that can be read now go without lines" in record.getMessage()
    with pytest.raises(UnusableSketches, match=r"no sketch of 1 of 6 photos, street/1\.jpg for example, and a model"):
        store.check_missing(photos, limit=6, needed=True)
    readable.remove(1)  # nobody will miss its sketch
    store.check_missing(photos, needed=True)
    assert "none of them can be read now" in caplog.text


def test_a_folder_without_any_sketch_is_refused(tmp_path, source):
    write(tmp_path, source, unreadable=range(6))
    store = SketchStore(tmp_path)
    store.check_missing(source)
    with pytest.raises(UnusableSketches, match=r"no sketch of any of the 6 photos.*; delete it and start the same"):
        store.check_missing(source, limit=6)


def test_an_unfinished_folder_is_refused_and_goes_on(tmp_path, source):
    write(tmp_path, source, shards=[1])
    with pytest.raises(UnusableSketches, match="unfinished, 2 of its 3 files are missing"):
        SketchStore(tmp_path)
    assert list(write(tmp_path, source)) == [0, 2]
    np.testing.assert_array_equal(SketchStore(tmp_path)[6], drawn(6))


def test_a_folder_of_other_sketches_is_refused(tmp_path, source):
    write(tmp_path, source)
    with pytest.raises(UnusableSketches, match=r"\(threshold: 0.65 there, 0.5 now\)"):
        sketches.claim(tmp_path, source, SETTINGS | {"threshold": 0.5}, 3)
    with pytest.raises(UnusableSketches, match="shard_size: 3 there, 4 now"):
        sketches.claim(tmp_path, source, SETTINGS, 4)
    with pytest.raises(UnusableSketches, match=r"names: .* there"):
        sketches.claim(tmp_path, Source([*source.names[:-1], "other.png"]), SETTINGS, 3)
    (tmp_path / "index.json").unlink()
    with pytest.raises(UnusableSketches, match=r"no index\.json"):
        sketches.claim(tmp_path, source, SETTINGS, 3)


def read_all(folder, source):
    """Every sketch and every name; or the sentence that says what is wrong."""
    try:
        store = SketchStore(folder)
        missing = store.missing()
        found = [store[index].tolist() for index in range(len(store)) if index not in missing]
        try:
            store.check(Source([*source.names[:-1], "other.png"]))  # reads the names of every file
        except UnusableSketches as error:
            return (found, missing) if "number 6 is" in str(error) else str(error)
    except UnusableSketches as error:
        return str(error)


def test_damage_to_any_byte_is_one_sentence(tmp_path, source):
    """Flipped, cut off or zero: in the table, in a record, in the names."""
    write(tmp_path, source, unreadable=(1,))
    whole = read_all(tmp_path, source)
    assert (len(whole[0]), whole[1]) == (6, [1])
    for name in ("00000.sketches", "00002.sketches", "index.json"):
        path = tmp_path / name
        content = path.read_bytes()
        flipped = [content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :] for i in range(len(content))]
        shorter = [content[:i] for i in range(0, len(content) - 1, 7)]  # a newline ends the index
        zeros = [content[:i] + bytes(len(content) - i) for i in range(0, len(content) - 1, 7)]
        unread = 0
        for damaged in (*flipped, *shorter, *zeros):
            path.write_bytes(damaged)
            found = read_all(tmp_path, source)
            if found == whole:
                if name == "index.json":  # a blank may be another blank
                    assert json.loads(damaged) == json.loads(content)
                unread += 1  # zlib fills up its last byte by bits that nobody reads
                continue
            assert "; delete" in found
            assert "\n" not in found
        assert unread <= 5
        path.write_bytes(content)
    assert read_all(tmp_path, source) == whole


def test_what_is_wrong_with_a_file_is_named(tmp_path, source):
    write(tmp_path, source)
    path = tmp_path / "00001.sketches"
    content = path.read_bytes()
    for damaged, words in (
        (content[:9], "its table is damaged"),
        (content[:-1], "it is cut off"),
        (content[:164] + bytes(len(content) - 164), "a record in it is damaged"),
        (b"", ""),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UnusableSketches, match=rf"00001\.sketches cannot be read .*{words}.*; delete it and start"):
            all_of(SketchStore(tmp_path))
    for damaged in ("{", "[]", json.dumps({"format": 2})):
        (tmp_path / "index.json").write_text(damaged)
        with pytest.raises(UnusableSketches, match=r"index\.json is damaged"):
            SketchStore(tmp_path)
    (tmp_path / "index.json").write_text('{"format": 1, "settings": {}}')
    with pytest.raises(UnusableSketches, match="sketches of format 1, not 2; delete it and make them anew"):
        SketchStore(tmp_path)
    with pytest.raises(FileNotFoundError, match="no sketches in"):
        SketchStore(tmp_path / "elsewhere")


def test_who_made_them_is_named_where_they_have_to_be_made_again(tmp_path, source):
    for shards in ([], [0, 1, 2]):
        missing = sketches.claim(tmp_path, source, SETTINGS, 3, maker="train.py")
        for number, photos in missing.items():
            if number in shards:
                records = [sketches.pack(drawn(i)) for i in photos]
                sketches.write_shard(tmp_path, number, [source.name(i) for i in photos], records)
        if not shards:
            with pytest.raises(UnfinishedSketches, match=r"start the same train\.py again to go on"):
                SketchStore(tmp_path)
    store = SketchStore(tmp_path)
    with pytest.raises(UnusableSketches, match=r"but the data has 6; ask them"):
        store.check(Source(source.names[:-1]), cure="ask them")
    (tmp_path / "00001.sketches").write_bytes(b"no sketches")
    with pytest.raises(UnusableSketches, match=r"delete it and start the same train\.py again"):
        store[3]


def test_reading_takes_neither_jax_nor_scikit_image():
    code = "import sys, inpaint_jax.data.sketches; print({'jax', 'skimage', 'scipy'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
