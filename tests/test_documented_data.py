"""Places2 and CelebA-HQ as documented: their configs train on tiny copies that TFDS's own builders prepared.

The archives that TFDS reads are made here, of real photos, and lie where it looks for those it has downloaded. Commands
are those of the documentation; the data folder is named by TFDS_DATA_DIR. TFDS unpacks archives by TensorFlow.
"""

import importlib.util
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from conftest import REPOSITORY
from PIL import Image
from tensorflow_datasets.core.download import resource

pytestmark = pytest.mark.slow

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
needs_tensorflow = pytest.mark.skipif(
    not HAS_TENSORFLOW, reason="TFDS unpacks archives by TensorFlow: pip install '.[tensorflow]'"
)

# All that differs from the configs: steps, width and size, and a copy of VGG's weights, which are a download.
SMALL = (
    *("--config.train.max_steps=2", "--config.data.image_size=32", "--config.model.width=4"),
    *("--config.model.discriminator_width=4", "--config.model.discriminator_features=16"),
)


def run(*arguments, data_dir):
    """Runs a command of the documentation; gives its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "TFDS_DATA_DIR": str(data_dir), "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def prepare(data, data_dir):
    return run("-m", "inpaint_jax", "prepare", data, data_dir=data_dir)


def train_and_evaluate(config, shared, data_dir, workdir):
    """Trains for two steps, and evaluates on config.data.test; gives the metrics of the validation."""
    weights = f"--config.loss.vgg_weights={shared / 'weights' / 'vgg16_oxford_block1.npz'}"
    code, printed = run("train.py", f"--config={config}", f"--workdir={workdir}", weights, *SMALL, data_dir=data_dir)
    assert code == 0, printed
    options = ("--fid=off", "--limit=4", "--samples=2", "--workers=1")
    code, printed = run(
        "evaluate.py", f"--workdir={workdir}", f"--output={workdir / 'eval'}", *options, data_dir=data_dir
    )
    assert code == 0, printed
    assert json.loads((workdir / "eval" / "metrics.json").read_text())
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return next(row for row in reversed(rows) if "validation/hole_psnr" in row)


def encoded(path, size, kind):
    """A photo's middle as a file."""
    buffer = io.BytesIO()
    photo = Image.open(path).convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    photo.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side)).save(buffer, kind)
    return buffer.getvalue()


def examples(folder, split):
    """The examples of a copy in array_record, photos encoded. Their bytes may differ: the order of a map is free."""
    decoders = {"image": tfds.decode.SkipDecoding()}
    files = tfds.builder_from_directory(folder)
    return files.as_data_source(split, decoders=decoders, file_format="array_record")


def write_tar(path, files):
    """Writes name -> content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def places_archives(shared, tmp_path):
    """Calls lay the four archives of Places365-Standard into a data folder, small, but for the validation's number."""
    photos = sorted((shared / "data" / "scenes" / "train").glob("*.jpg"))[::100]
    photos = [encoded(path, 256, "JPEG") for path in photos]
    endless = itertools.cycle(photos)

    def files(prefix, count, *, start=1):
        return {prefix.format(i): next(endless) for i in range(start, start + count)}

    train = files("data_256/a/abbey/{:08d}.jpg", 12) | files("data_256/z/zen_garden/{:08d}.jpg", 12)
    validation = files("val_256/Places365_val_{:08d}.jpg", 2_504)
    test = files("test_256/Places365_test_{:08d}.jpg", 8)
    lists = {
        "places365_train_standard.txt": [f"{name[8:]} {364 if 'zen' in name else 0}" for name in train],
        "places365_val.txt": [f"{Path(name).name} 7" for name in validation],
        "places365_test.txt": [Path(name).name for name in test],
    }
    archives = {
        "train_256_places365standard.tar": train,
        "val_256.tar": validation,
        "test_256.tar": test,
        "filelist_places365-standard.tar": {name: "\n".join(lines).encode() for name, lines in lists.items()},
    }

    def lay_out(data_dir):
        # What TFDS finds under the name of a checksum, it has checked when it was downloaded.
        for url, info in tfds.builder("places365_small", data_dir=data_dir).url_infos.items():
            path = data_dir / "downloads" / "places365_small" / resource.get_dl_fname(url, info.checksum)
            write_tar(path, archives[info.filename])
            path.with_name(f"{path.name}.INFO").write_text(json.dumps({"original_fname": info.filename}))
        return data_dir

    return lay_out


@needs_tensorflow
def test_places2_from_archives_to_scores(places_archives, shared, tmp_path):
    data_dir = places_archives(tmp_path / "tfds")
    code, printed = run("train.py", "--config=configs/places2.py", f"--workdir={tmp_path / 'run'}", data_dir=data_dir)
    assert code == 2
    assert printed.splitlines()[-1].endswith("; prepare it by: inpaint-jax prepare tfds:places365_small.")

    code, printed = prepare("tfds:places365_small", data_dir)
    assert code == 0, printed
    assert "places365_small: 31.4 GB to download (31.4 GB are there), and for photos about as much to write" in printed
    assert "train 24, test 8, validation 2,504." in printed
    code, printed = prepare("tfds:places365_small", data_dir)
    assert (code, len(printed.splitlines())) == (0, 1)
    assert "is prepared already" in printed

    row = train_and_evaluate("configs/places2.py", shared, data_dir, tmp_path / "run")
    assert row["step"] == 2


@needs_tensorflow
def test_places2_prepared_as_tfds_documents_it(places_archives, shared, tmp_path):
    """In TFRECORD: after the conversion, it holds what the command prepares."""
    data_dir = places_archives(tmp_path / "theirs")
    script = "import tensorflow_datasets as tfds; tfds.builder('places365_small').download_and_prepare()"
    assert run("-c", script, data_dir=data_dir)[0] == 0
    folder = data_dir / "places365_small" / "2.1.0"
    assert not list(folder.glob("*array_record*"))

    code, printed = run("train.py", "--config=configs/places2.py", f"--workdir={tmp_path / 'run'}", data_dir=data_dir)
    assert code == 2
    cure = "convert it, without a download, by: inpaint-jax prepare tfds:places365_small."
    assert printed.splitlines()[-1].endswith(f" as tfrecord, and array_record is needed; {cure}")
    shutil.rmtree(data_dir / "downloads")  # nothing is prepared again
    code, printed = prepare("tfds:places365_small", data_dir)
    assert code == 0, printed

    ours = places_archives(tmp_path / "ours")
    assert prepare("tfds:places365_small", ours)[0] == 0
    for split, count in (("train", 24), ("validation", 2_504), ("test", 8)):
        converted, prepared = (examples(where / "places365_small" / "2.1.0", split) for where in (data_dir, ours))
        assert len(converted) == len(prepared) == count
        assert all(converted[i] == prepared[i] for i in range(count))

    # And TensorFlow reads it as before.
    script = "import tensorflow_datasets as tfds; print(len(list(tfds.load('places365_small', split='train'))))"
    assert run("-c", script, data_dir=data_dir)[1].splitlines()[-1] == "24"
    assert train_and_evaluate("configs/places2.py", shared, data_dir, tmp_path / "run")["step"] == 2


@needs_tensorflow
def test_celeba_hq_from_the_file_that_is_got_by_hand_to_scores(shared, tmp_path):
    """As many faces as the splits of the config count, but 32 x 32 pixels of them."""
    data_dir = tmp_path / "tfds"
    code, printed = prepare("tfds:celeb_a_hq/256", data_dir)
    assert code == 2
    where = re.escape(str(data_dir / "downloads" / "manual"))
    assert re.search(f"put data256x256.tar into {where} and run the same command again", printed)

    faces = itertools.cycle(encoded(path, 32, "PNG") for path in sorted((shared / "data" / "faces").rglob("*.jpg")))
    archive = data_dir / "downloads" / "manual" / "data256x256.tar"
    write_tar(archive, {f"{i:05d}.png": next(faces) for i in range(28_010)})
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2 + 700])
    code, printed = prepare("tfds:celeb_a_hq/256", data_dir)
    assert code == 2
    assert "is damaged (unexpected end of data); get it again, then run the same command." in printed.splitlines()[-1]

    archive.write_bytes(whole)
    code, printed = prepare("tfds:celeb_a_hq/256", data_dir)
    assert code == 0, printed
    assert "train 28,010." in printed
    assert train_and_evaluate("configs/celeba_hq.py", shared, data_dir, tmp_path / "run")["step"] == 2


@pytest.mark.skipif(HAS_TENSORFLOW, reason="TensorFlow is installed")
@pytest.mark.parametrize("data", ["places365_small", "celeb_a_hq/256"])
def test_without_tensorflow_a_sentence_comes_before_the_download(data, tmp_path):
    write_tar(tmp_path / "downloads" / "manual" / "data256x256.tar", {"face.png": b""})
    code, printed = prepare(f"tfds:{data}", tmp_path)
    sentence = f"TFDS needs tensorflow to prepare {data}; install it by: pip install 'inpaint-jax[tensorflow]'."
    assert (code, printed) == (2, f"inpaint-jax prepare: {sentence}\n")
    assert not (tmp_path / data).exists()
