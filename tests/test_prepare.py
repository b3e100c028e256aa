"""inpaint-jax prepare: TFDS data sets by real downloads, from copies in TFRECORD, and after every kind of accident."""

import functools
import hashlib
import http.server
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import REPOSITORY
from tensorboardX.crc32c import _crc32c as slow_crc32c
from tensorboardX.record_writer import RecordWriter
from tfds_photos import ManyPhotos, as_tfrecord, records

from inpaint_jax.data.prepare import prepare
from inpaint_jax.data.sources import open_source
from inpaint_jax.data.tfrecord import DamagedRecord, crc32c, read_records
from inpaint_jax.errors import MissingFile, UserError

# Files of TFRECORD.


def test_crc32c_is_that_of_others():
    assert crc32c([b"123456789"]).tolist() == [0xE3069283]  # the check value of the standard, RFC 3720
    draw = np.random.default_rng(0)
    lengths = [0, 1, 2, 3, 4, 5, 7, 8, 511, 512, 513, 514, 1023, 1024, 1025, 5000]
    texts = [draw.bytes(length) for length in lengths] + [bytes(700), b"\xff" * 1030]
    assert crc32c(texts).tolist() == [slow_crc32c(text) for text in texts]
    assert crc32c(texts[::-1]).tolist() == crc32c(texts).tolist()[::-1]
    assert crc32c([]).shape == (0,)


@pytest.fixture
def record_file(tmp_path):
    """A file of records of all lengths, and the records."""
    draw = np.random.default_rng(1)
    texts = [draw.bytes(length) for length in (0, 1, 300, 2000, 17)]
    writer = RecordWriter(str(tmp_path / "records"))
    for text in texts:
        writer.write(text)
    writer.close()
    return tmp_path / "records", texts


def test_records_are_read_as_they_were_written(record_file):
    path, texts = record_file
    assert list(read_records(path)) == texts
    path.write_bytes(b"")
    assert list(read_records(path)) == []


def test_batches_of_records_change_nothing(record_file, monkeypatch):
    path, texts = record_file
    monkeypatch.setattr("inpaint_jax.data.tfrecord._BATCH_BYTES", 250)
    assert list(read_records(path)) == texts


def test_every_flipped_bit_and_every_cut_is_found(record_file):
    """And none of the records before it is lost."""
    path, texts = record_file
    whole = path.read_bytes()
    ends = list(itertools.accumulate(len(text) + 16 for text in texts))

    def read(content):
        path.write_bytes(content)
        sound, reader = len([end for end in ends if end <= place]), read_records(path)
        assert [next(reader) for _ in range(sound)] == texts[:sound]
        with pytest.raises(DamagedRecord, match=f"its record {sound + 1} "):
            next(reader)

    places = [*range(0, 40), *range(300, 360), *range(ends[2], ends[2] + 14), len(whole) - 1]
    for place in places:
        read(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        if place and place not in ends:
            read(whole[:place])


# Copies in TFRECORD.


@pytest.fixture
def copy(photos, tmp_path, monkeypatch):
    """The folder of a copy in TFRECORD, of three files a split, and the records of the copy it was made of."""
    return make_copy(photos, tmp_path, monkeypatch, times=4, shards=3)


def make_copy(photos, tmp_path, monkeypatch, times, shards):
    monkeypatch.setenv("MANY_PHOTOS", str(photos / "val"))
    monkeypatch.setenv("MANY_TIMES", str(times))
    builder = ManyPhotos(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    folder = Path(builder.data_dir)
    truth = {path.name: records(path) for path in sorted(folder.glob("*.array_record-*"))}
    as_tfrecord(folder)
    return folder, truth


def spec(folder, split=""):
    return f"tfds:many_photos{split}?data_dir={folder.parents[1]}"


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_copy_in_tfrecord_is_converted(copy, caplog):
    caplog.set_level("INFO", "inpaint_jax")
    folder, truth = copy
    cure = re.escape(f"convert it, without a download, by: inpaint-jax prepare '{spec(folder)}'.")
    with pytest.raises(MissingFile, match=f"is prepared in {folder} as tfrecord, and array_record is needed; {cure}"):
        open_source(spec(folder, ":train"))
    before = contents(folder)

    prepare(spec(folder, ":train[:3]"))
    assert {path.name: records(path) for path in sorted(folder.glob("*.array_record-*"))} == truth
    after = contents(folder)
    assert {name: after[name] for name in before if name != "dataset_info.json"} == {
        name: text for name, text in before.items() if name != "dataset_info.json"
    }
    assert set(after) - set(before) == set(truth)
    assert "train 20, validation 10" in caplog.text

    source = open_source(spec(folder, ":train"))
    assert len(source) == 20
    assert source[7].shape == (48, 60, 3)
    assert len(open_source(spec(folder, ":train[:25%]"))) == 5
    assert len(open_source(spec(folder, ":validation"))) == 10
    with pytest.raises(UserError, match="no split 'test'; it has train, validation"):
        open_source(spec(folder, ":test"))
    with pytest.raises(UserError, match=r"has no 'train\[10:30\]'; train has 20 photos"):
        open_source(spec(folder, ":train[10:30]"))
    # TFDS reads it in both formats; by name, it looks into the files where a version is named.
    own = tfds.data_source("many_photos:1.0.0", split="train", data_dir=folder.parents[1], download=False)
    assert {example["title"] for example in own} == {f"{i:02d}_{j}".encode() for i in range(5) for j in range(4)}
    info = tfds.builder_from_directory(folder).info
    assert info.file_format.value == "tfrecord"
    assert {name: split.num_examples for name, split in info.splits.items()} == {"train": 20, "validation": 10}

    caplog.clear()
    prepare(spec(folder))
    assert [record.message for record in caplog.records] == [f"many_photos is prepared already, in {folder}."]
    assert contents(folder) == after


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("flip", r"00001-of-00003 is damaged: its record 3 has a wrong checksum; delete that folder"),
        ("cut", r"00001-of-00003 is damaged: its record 6 is cut off"),
        ("lose_record", r"00001-of-00003 has 5 records instead of 6"),
        ("lose_file", r"lacks 1 of its files, as many_photos-train.tfrecord-00001-of-00003; delete that folder"),
    ],
)
def test_a_damaged_copy_is_not_converted_and_its_repair_is_gone_on_with(copy, fault, message):
    folder, truth = copy
    path = folder / "many_photos-train.tfrecord-00001-of-00003"
    whole = path.read_bytes()
    sizes = [len(record) + 16 for record in truth["many_photos-train.array_record-00001-of-00003"]]
    assert len(sizes) == 6
    if fault == "flip":
        place = sum(sizes[:2]) + 1000
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    elif fault == "lose_file":
        path.unlink()
    else:
        path.write_bytes(whole[: -1 if fault == "cut" else -sizes[-1]])
    info = (folder / "dataset_info.json").read_bytes()
    with pytest.raises(UserError, match=message):
        prepare(spec(folder))
    assert (folder / "dataset_info.json").read_bytes() == info
    assert not (folder / "many_photos-train.array_record-00001-of-00003").exists()
    with pytest.raises(MissingFile, match="as tfrecord"):
        open_source(spec(folder, ":train"))

    path.write_bytes(whole)
    prepare(spec(folder))
    assert {path.name: records(path) for path in sorted(folder.glob("*.array_record-*"))} == truth


def test_a_file_that_a_power_cut_left_is_written_again(copy):
    folder, truth = copy
    prepare(spec(folder))
    new = sorted(folder.glob("*train.array_record-*"))
    text = new[0].read_bytes()
    new[0].write_bytes(text[: len(text) // 2])
    new[1].write_bytes(b"")
    kept = new[2].stat().st_mtime_ns
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["alternativeFileFormats"]
    (folder / "dataset_info.json").write_text(json.dumps(info))
    prepare(spec(folder))
    assert {path.name: records(path) for path in sorted(folder.glob("*.array_record-*"))} == truth
    assert new[2].stat().st_mtime_ns == kept


@pytest.mark.slow
def test_a_killed_conversion_leaves_the_copy_as_it_was_and_is_gone_on_with(photos, tmp_path, monkeypatch):
    folder, truth = make_copy(photos, tmp_path, monkeypatch, times=80, shards=100)
    process = command(spec(folder))
    while len(list(folder.glob("many_photos-*.array_record-*"))) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in folder.glob("many_photos-*.array_record-*")}
    assert len(done) < len(truth)
    with pytest.raises(MissingFile, match="as tfrecord"):
        open_source(spec(folder, ":train"))

    code, printed = finish(command(spec(folder)))
    assert code == 0, printed
    assert {path.name: records(path) for path in sorted(folder.glob("*.array_record-*"))} == truth
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert not list(folder.glob(".*"))


def test_a_folder_that_is_no_whole_copy_is_named(copy):
    folder, _ = copy
    (folder / "dataset_info.json").unlink()
    with pytest.raises(UserError, match=f"many_photos lies unfinished in {folder}; delete that folder"):
        prepare(spec(folder))


# Downloads.

SERVED = '''
import os
import tensorflow_datasets as tfds


class ServedPhotos(tfds.core.GeneratorBasedBuilder):
    """Three photos of a server."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(None, None, 3))})
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        address = os.environ["SERVED_PHOTOS"]
        return {"train": self._generate_examples(dl_manager.download([f"{address}/0{i}.png" for i in range(3)]))}

    def _generate_examples(self, paths):
        for i, path in enumerate(paths):
            yield i, {"image": os.fspath(path)}
'''
# What a data set of one's own does, which is imported before it is named.
COMMAND = "import served_photos, sys; from inpaint_jax.cli import main; sys.exit(main(['prepare', *sys.argv[1:]]))"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; `server.fault` names a file that is missing, or sent in part only, or never to its end."""

    def do_GET(self):
        self.server.asked.append(self.path)
        name, _, fault = self.server.fault.partition(" ")
        if self.path != f"/{name}":
            return super().do_GET()
        if fault == "missing":
            return self.send_error(404)
        content = Path(self.directory, name).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[::-1] if fault == "other" else content[:-5])
        self.wfile.flush()
        if fault == "stalls":
            self.server.stalled.set()
            self.server.gone_on.wait(60)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(photos, tmp_path, monkeypatch):
    """A server of photos; the data set that is made of them is importable in processes."""
    folder = photos / "train"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    server.fault, server.asked = "", []
    server.stalled, server.gone_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "served_photos.py").write_text(SERVED)
    lines = []
    for i in range(3):
        content = (folder / f"0{i}.png").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        lines.append(f"{address}/0{i}.png\t{len(content)}\t{digest}\t0{i}.png\n")
    (tmp_path / "package" / "checksums.tsv").write_text("".join(lines))
    monkeypatch.setenv("SERVED_PHOTOS", address)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'package'}{os.pathsep}{REPOSITORY}")
    yield server
    server.gone_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


def command(spec, program="from inpaint_jax.cli import main; import sys; sys.exit(main(['prepare', *sys.argv[1:]]))"):
    """Starts the command; its data set is imported before."""
    if "many_photos" in spec:
        program = f"sys.path.append('tests'); import tfds_photos; {program}"
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; {program}", spec],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process):
    printed, _ = process.communicate(timeout=120)
    assert "Traceback" not in printed
    return process.returncode, printed


@pytest.mark.slow
def test_a_data_set_is_downloaded_and_prepared(served, photos, tmp_path):
    where = f"tfds:served_photos?data_dir={tmp_path / 'tfds'}"
    code, printed = finish(command(where, COMMAND))
    assert code == 0, printed
    size = sum((photos / "train" / f"0{i}.png").stat().st_size for i in range(3)) / 1e6
    assert f"served_photos: {size:.1f} MB to download, and for photos about as much to write" in printed
    assert re.search(r"Dl Size\.\.\..*\n?.*Generating train examples", printed, re.DOTALL)
    assert "Unknown size" not in printed
    assert f"is prepared in {tmp_path / 'tfds'}/served_photos/1.0.0: train 3." in printed
    assert sorted(served.asked) == [f"/0{i}.png" for i in range(3)]

    # Where the code of the data set is not, its files are enough.
    source = open_source(f"tfds:served_photos:train?data_dir={tmp_path / 'tfds'}")
    truth = open_source(f"folder:{photos}/train")
    assert sorted(source[i].tobytes() for i in range(3)) == sorted(truth[i].tobytes() for i in range(3))

    code, printed = finish(command(where, COMMAND))
    assert code == 0
    assert len(printed.splitlines()) == 1
    assert "is prepared already, in" in printed
    assert len(served.asked) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "missing",
            r"cannot be downloaded \(Failed to get url .*/01.png. HTTP code: 404\); run the same command again",
        ),
        (
            "broken",
            r"cannot be downloaded \(Connection broken: .*, or get them by hand and put them into .*/downloads/manual",
        ),
        ("other", r"/01.png, downloaded to .* has wrong checksum; delete that file and run"),
    ],
)
def test_a_download_that_fails_is_a_sentence_and_the_rest_stays(served, photos, tmp_path, fault, message):
    where = f"tfds:served_photos?data_dir={tmp_path / 'tfds'}"
    served.fault = f"01.png {fault}"
    code, printed = finish(command(where, COMMAND))
    assert code == 2
    assert re.search(rf"^inpaint-jax prepare: .*{message}", printed.splitlines()[-1]), printed
    assert not list((tmp_path / "tfds" / "served_photos").iterdir())

    served.fault, served.asked = "", []
    if fault == "broken":
        (tmp_path / "tfds" / "downloads" / "manual").mkdir()
        shutil.copy(photos / "train" / "01.png", tmp_path / "tfds" / "downloads" / "manual")
    code, printed = finish(command(where, COMMAND))
    assert code == 0, printed
    assert served.asked == ([] if fault == "broken" else ["/01.png"])
    assert " MB are there)" in printed
    assert ("of attempts that were killed or failed are left" in printed) == (fault == "other")


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_signal_ends_a_download_at_once_and_the_next_call_completes_it(served, tmp_path, signal_number, code):
    where = f"tfds:served_photos?data_dir={tmp_path / 'tfds'}"
    served.fault = "01.png stalls"
    process = command(where, COMMAND)
    assert served.stalled.wait(60)
    time.sleep(0.5)  # the command waits for the file
    process.send_signal(signal_number)
    started = time.monotonic()
    assert finish(process)[0] == code
    assert time.monotonic() - started < 20  # the server would go on for a minute

    served.fault = ""
    served.gone_on.set()
    code, printed = finish(command(where, COMMAND))
    assert (code, printed.splitlines()[-1].partition("served_photos ")[2][:14]) == (0, "is prepared in")


@pytest.mark.slow
def test_a_full_disk_is_a_sentence(served, tmp_path):
    """Files of this process may have 5 kB, which no photo fits into."""
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)); "
    code, printed = finish(command(f"tfds:served_photos?data_dir={tmp_path / 'tfds'}", limit + COMMAND))
    assert code == 2, printed
    assert "File too large; mend that and run the same command again." in printed.splitlines()[-1]
