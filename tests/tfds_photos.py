"""A TFDS data set of photos in a folder, and a copy of it in TFRECORD that needs no TensorFlow."""

import json
import os
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from tensorboardX.record_writer import RecordWriter


class ManyPhotos(tfds.core.GeneratorBasedBuilder):
    """The PNG files in the folder MANY_PHOTOS, each MANY_TIMES in train, and half as often in validation."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(None, None, 3)), "title": tfds.features.Text()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        times = int(os.environ["MANY_TIMES"])
        return {"train": self._generate_examples(times), "validation": self._generate_examples(times // 2)}

    def _generate_examples(self, times):
        for path in sorted(Path(os.environ["MANY_PHOTOS"]).glob("*.png")):
            for i in range(times):
                yield f"{path.stem}_{i}", {"image": str(path), "title": f"{path.stem}_{i}"}


def records(path: Path) -> list[bytes]:
    """All records of a file of array_record."""
    reader = ArrayRecordReader(str(path))
    found = reader.read_all()
    reader.close()
    return found


def as_tfrecord(folder: Path) -> None:
    """Makes of a copy in array_record what TFDS writes by default; the records are written by tensorboardX."""
    for path in folder.glob("*.array_record-*"):
        writer = RecordWriter(str(path).replace(".array_record-", ".tfrecord-"))
        for record in records(path):
            writer.write(record)
        writer.close()
        path.unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "tfrecord"}))
