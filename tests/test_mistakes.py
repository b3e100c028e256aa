"""What users get wrong: every command answers in one line that names the cure, with exit code 2 and no traceback.

The rows of a command run one after the other in one process, as `inpaint_jax.cli.main` is called by all ways in; the
last tests are whole processes.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from conftest import REPOSITORY
from PIL import Image

from inpaint_jax.checkpoints import Checkpoints
from inpaint_jax.inference.export import export, read_model
from inpaint_jax.nets.generator import Generator

LONG = "x" * 300
SAME_RUN = "--config.name=tiny --config.train.max_steps=9"  # goes on with `untrained`

# What every row of a command begins with; later flags replace earlier ones.
GOOD = {
    "train": "--config=default --workdir={tmp}/run --config.data.train=folder:{photos}/train "
    "--config.data.validation=folder:{photos}/val --config.data.image_size=32 --config.data.workers=0 "
    "--config.batch_size=4 --config.model.width=4 --config.model.discriminator_width=4 "
    "--config.model.discriminator_features=16 --config.loss.perceptual_weight=0 --config.train.max_steps=1 "
    "--config.train.samples=0 ",
    "evaluate": "--output={tmp}/eval --data=folder:{photos}/val --size=32 --fid=off --workers=0 --samples=0 ",
    "fill": "--checkpoint={model} --image={photo} --output={tmp}/out.png ",
    "sketch": "--data=folder:{photos}/val --output={tmp}/sketches --size=64 ",
    "export": "--output={tmp}/out.safetensors ",
    "report": "",
    "demo": "--port=0 ",
}

# A damaged workdir or file, by the name that `places` gives it, and what is said of it.
DAMAGED = {
    "config_empty": "config.json is damaged",
    "config_brace": "config.json is damaged",
    "config_list": "holds no config; give the workdir of a training run.",
    "config_null": "holds no config; give the workdir of a training run.",
    "config_fields": "holds no config of a run, which has a name",
    "config_model": "describes no model",
    "config_width": "put back the config of the run, or its checkpoints.",
    "config_heads": "put back the config of the run, or its checkpoints.",
    "config_attention": "put back the config of the run, or its checkpoints.",
    "config_skips": "put back the config of the run, or its checkpoints.",
    "checkpoint_empty": "put back its files, or delete it",
    "checkpoint_truncated": "put back its files, or delete it",
    "file_empty": "is no exported model",
    "file_photo": "is no exported model",
    "file_foreign": "but not those of a generator",
    "file_no_config": "The metadata of",
    "file_broken_config": "The metadata of",
    "file_other_config": "describes no model",
    "file_no_step": "The metadata of",
    "file_renamed": "missing: coarse/GatedConv_0/conv/kernel; extra: coarse/GatedConv_0/conv/kernels",
    "file_step": "leave out --step",
}

ROWS = {
    "train": [
        ("--config.data.train=folder:nowhere", "There is no folder 'nowhere'; correct the path"),
        ("--config.data.train=folder:{empty}", "has no image files; put images there"),
        ("--config.data.train=folder:", "write folder:PATH"),
        ("--config.data.train=nonsense", "write folder:PATH, tfds:NAME:SPLIT or skimage:train"),
        ("--config.data.train=", "folder:PATH"),
        ("--config.data.train=folder:{broken}", "None of the 1 images can be read; check the data's path"),
        ("--config.data.train=folder:{photos}?list=nowhere", "correct the path after ?list="),
        ("--config.data.train=folder:{photos}?lists=nowhere", "folder: knows list"),
        (
            "--config.data.train=tfds:no_such_data_set:train",
            "TFDS has no data set 'no_such_data_set'; correct its name",
        ),
        ("--config.data.train=tfds:mnist/no_such_config:train", "correct it to NAME or NAME/CONFIG"),
        ("--config.data.train=tfds:../mnist:train", "correct it to NAME or NAME/CONFIG"),
        ("--config.data.train=tfds:mnist", "write tfds:NAME:SPLIT"),
        ("--config.data.train=tfds:mnist:train?data_dir={empty}", "download_and_prepare()"),
        ("--config.data.train=skimage:test", "write skimage:train or skimage:validation"),
        ("--config.data.train=folder:" + LONG, "give a shorter name"),
        ("--config.data.validation=folder:nowhere", "There is no folder 'nowhere'; correct the path"),
        ("--config.data.masks=folder:nowhere", "There is no folder 'nowhere'; correct the path"),
        ("--config.data.masks=folder:{empty}", "has no image files; put images there"),
        ("--config.data.masks=folder:{photos}?missing=red", "missing is white or black"),
        ("--config.data.masks=nonsense", "write freeform, mixed or folder:PATH"),
        ("--config.loss.perceptual_weight=1 --config.loss.vgg_weights=nowhere.h5", "There is no file nowhere.h5"),
        ("--config.loss.perceptual_weight=1 --config.loss.vgg_weights={broken}/photo.png", "get it again from https"),
        ("--config.loss.perceptual_weight=1", "get that file on a machine with network and put it at"),
        ("--config.nonsense=1", "The config has no field 'nonsense'"),
        ("--config.data.image_siz=1", "did you mean data.image_size?"),
        ("--config.data=1", "The config has no field 'data'"),
        ("--config.batch_size=four", "a whole number is wanted"),
        ("--config.batch_size=1.5", "a whole number is wanted"),
        ("--config.data.flip=often", "a number is wanted"),
        ("--config.data.flip=nan", "--config.data.flip must be a finite number"),
        ("--config.model.skips=perhaps", "true or false is wanted"),
        ("--config=nowhere.py", "There is no config file 'nowhere.py'"),
        ("--config=nowhere", "or a name: celeba_hq, default"),
        ("--config={tmp}/syntax.py", "syntax.py, line 2"),
        ("--config={tmp}/no_function.py", "no_function.py gives no config"),
        ("--config={tmp}/name_error.py", "name_error.py, line 2: NameError"),
        ("--config=default:nonsense", "There is no variant 'nonsense'"),
        ("--config=" + LONG, "give a shorter name"),
        ("--workdir= --config.name=../../..", "change it, or give --workdir"),
        ("--workdir= --config.name=", "change it, or give --workdir"),
        ("--workdir={photo}", "correct the path"),
        ("--workdir=" + LONG, "give a shorter name"),
        ("--workdir={run}", "belongs to a run with another config"),
        (
            "--workdir={checkpoint_truncated} --config.name=tiny --config.train.max_steps=9",
            "put back its files, or delete it",
        ),
        ("--coordinator=localhost:1", "all of --coordinator, --processes and --process"),
        ("--coordinator=localhost:1 --processes=2 --process=2", "--process must be from 0 to 1"),
        ("--coordinator=localhost --processes=2 --process=1", "--coordinator must be host:port"),
        ("--wordir={tmp}", "Did you mean: workdir"),
        ("stray", "Flags are written --name=value"),
        # what config.py knows
        ("--config.model.heads=3", "model.heads"),
        ("--config.model.heads=0", "model.heads"),
        ("--config.model.width=3", "model.width"),
        ("--config.model.patch_size=99", "model.patch_size"),
        ("--config.model.patch_size=0", "model.patch_size"),
        ("--config.model.attention=none", "model.attention"),
        ("--config.batch_size=0", "batch_size"),
        ("--config.data.image_size=8", "data.image_size"),
        ("--config.data.zoom=9", "data.zoom"),
        ("--config.data.resize=crop", "data.resize"),
        ("--config.data.sketches={empty}", "data.sketches"),
        ("--config.dtype=float8", "dtype"),
        ("--config.seed=-1", "seed"),
        ("--config.loss.coarse_weight=-1", "loss.coarse_weight"),
        ("--config.optimizer.generator_learning_rate=-1", "optimizer.generator_learning_rate"),
        ("--config.optimizer.beta1=2.0", "optimizer.beta1"),
        ("--config.optimizer.beta2=-1.0", "optimizer.beta2"),
        ("--config.optimizer.ema_decay=1.0", "optimizer.ema_decay"),
        ("--config.optimizer.schedule=cosine --config.optimizer.warmup_steps=5", "warmup_steps"),
        ("--config.train.max_steps=0", "train.max_steps"),
        ("--config.train.log_every_steps=0", "train.log_every_steps"),
    ],
    "evaluate": [
        ("", "give a --workdir, or --methods"),
        ("--methods=mean --output=", "--output is missing"),
        ("--methods=magic", "choose of mean, telea"),
        ("--methods=mean --data=folder:nowhere", "There is no folder 'nowhere'"),
        ("--methods=mean --data=", "give --data=folder:PATH"),
        ("--methods=mean --data=folder:{broken}", "None of the 1 images can be read"),
        ("--methods=mean --size=8", "--size must be at least 11"),
        ("--methods=mean --size=big", "a whole number is wanted"),
        ("--methods=mean --limit=0", "--limit must be at least 1"),
        ("--methods=mean --seed=-1", "--seed must be at least 0"),
        ("--methods=mean --batch_size=0", "--batch_size must be at least 1"),
        ("--methods=mean --workers=-1", "--workers must be at least 0"),
        ("--methods=mean --samples=-1", "--samples must be at least 0"),
        ("--methods=mean --save_every_seconds=nan", "--save_every_seconds must be a finite number"),
        ("--methods=mean --pairing=twice", "should be one of <every_bin|once>"),
        ("--methods=mean --masks=folder:nowhere", "There is no folder 'nowhere'"),
        ("--methods=mean --masks=nonsense", "write generated, freeform or folder:PATH"),
        ("--methods=mean --masks=mixed", "write generated, freeform or folder:PATH"),
        ("--methods=mean --masks=freeform", 'take pairing "once"'),
        ("--methods=mean --masks=folder:{broken}", "Remove or repair the mask file"),
        ("--methods=mean --fid=nowhere.pth", "There is no file nowhere.pth"),
        ("--methods=mean --fid={broken}/photo.png", "does not have the checksum"),
        ("--methods=mean --output={photo}", "correct the path"),
        ("--methods=mean --output={tmp}/" + LONG, "give a shorter name"),
        ("--methods=mean --config=nowhere", "There is no config file 'nowhere'"),
        ("--workdir=nowhere", "nowhere does not exist; give the workdir"),
        ("--workdir={empty}", "holds no config.json; give the workdir"),
        ("--workdir={model},{model}", "or give it once"),
        ("--workdir={model} --sketches={empty}", "{empty}"),
        *((f"--workdir={{{name}}}", DAMAGED[name]) for name in ("config_brace", "checkpoint_empty", "file_renamed")),
        *(
            (f"--methods=mean --resume --output={{{name}}}", "is damaged")
            for name in ("metrics_empty", "metrics_list", "unfinished_empty", "unfinished_text", "unfinished_foreign")
        ),
        ("--methods=mean --output={unfinished_text}", "go on with it by --resume, or delete"),
    ],
    "fill": [
        ("--image=nowhere.png", "There is no photo and no folder nowhere.png; correct --image"),
        ("--image=", "--image is missing"),
        ("--image={empty}", "has no image files"),
        ("--image=" + LONG, "give a shorter name"),
        ("--mask=nowhere.png", "There is no mask nowhere.png; correct --mask"),
        ("--mask={empty}", "correct --mask"),
        ("--mask={tmp}/small.png", "give a mask of the photo's size, or --resize_mask"),
        ("", "give a --mask, or erase the hole"),
        ("--mask={mask} --sketch={mask}", "draw the sketch's lines apart"),
        ("--mask={mask} --sketch={photo}", "draw the sketch's lines apart"),
        ("--mask={mask} --sketch={tmp}/small.png", "leave out --sketch"),
        ("--mask={mask} --output={tmp}/out.docx", "end it in .png"),
        ("--mask={mask} --output={photo}", "give another --output"),
        ("--mask={mask} --output={photo}/out.png", "File exists"),
        ("--mask={mask} --checkpoint=nowhere", "nowhere does not exist; give the workdir"),
        ("--mask={mask} --step=1.5", "a whole number is wanted"),
        ("--mask={mask} --checkpoint={run} --step=77", "has no checkpoint of step 77; it has"),
        ("--mask={mask} --invert_mask=perhaps", "true or false is wanted"),
        ("--mask={mask} stray", "Flags are written --name=value"),
        *((f"--mask={{mask}} --checkpoint={{{name}}}", said) for name, said in DAMAGED.items() if name != "file_step"),
        ("--mask={mask} --step=77", DAMAGED["file_step"]),
    ],
    "sketch": [
        ("--data=nonsense", "write folder:PATH, tfds:NAME:SPLIT or skimage:train"),
        ("--data=folder:", "write folder:PATH"),
        ("--data=folder:nowhere", "There is no folder 'nowhere'"),
        ("--data=", "--data is missing"),
        ("--size=1", "must be at least"),
        ("--threshold=2", "threshold must be at least 0 and below 1"),
        ("--min_size=nan", "--min_size must be a finite number"),
        ("--min_size=-1", "min_size must be at least 0"),
        ("--batch_size=0", "batch_size must be at least 1"),
        ("--workers=-1", "workers must be at least 0"),
        ("--shard_size=0", "shard_size must be at least 1"),
        ("--limit=0", "limit must be at least 1"),
        ("--resize=crop", "should be one of <shortest|stretch>"),
        ("--weights=nowhere.pth", "There is no file nowhere.pth"),
        ("--weights={broken}/photo.png", "use the published file"),
        ("", "get that file on a machine with network and put it at"),
    ],
    "export": [
        ("--output={tmp}/x.safetensors", "--checkpoint is missing"),
        ("--checkpoint=nowhere", "nowhere does not exist; give the workdir"),
        ("--checkpoint={empty}", "holds no config.json; give the workdir"),
        ("--checkpoint={model}", "give the workdir of a training run"),
        ("--checkpoint={run} --step=77", "has no checkpoint of step 77; it has"),
        ("--checkpoint={run} --output={empty}", "correct the path"),
        ("--checkpoint={run} --output={photo}/x", "correct the path"),
        ("--checkpoint={run} --output={tmp}/" + LONG, "give a shorter name"),
        *((f"--checkpoint={{{name}}}", said) for name, said in DAMAGED.items() if not name.startswith("file")),
    ],
    "report": [
        ("", "WORKDIR is missing"),
        ("a b", "what is 'b'?"),
        ("nowhere", "nowhere does not exist; give the workdir"),
        ("{model}", "give the workdir of its training run"),
        ("{empty}", "holds no config.json; give the workdir"),
        ("{metrics_damaged}", "metrics.jsonl is damaged in line 1; remove that line"),
        ("{metrics_nan}", "metrics.jsonl is damaged in line 1; remove that line"),
        ("{metrics_text}", "metrics.jsonl is damaged in line 1; remove that line"),
        ("{run} --evaluation=nowhere", "nowhere holds no finished evaluation; give the --output"),
        ("{run} --evaluation={metrics_list}", "is damaged; run its inpaint-jax evaluate again"),
        ("{run} --output={empty}", "correct the path"),
        ("{run} --output={tmp}/" + LONG, "give a shorter name"),
        (LONG, "give a shorter name"),
        *(
            (f"{{{name}}}", DAMAGED[name])
            for name in DAMAGED
            if name.startswith("config_") and name[7:] in "empty brace"
        ),
        *((f"{{{name}}}", DAMAGED[name]) for name in ("config_list", "config_null", "config_fields")),
    ],
    "demo": [
        ("", "--checkpoint is missing"),
        ("--checkpoint=nowhere", "nowhere does not exist; give the workdir"),
        ("--checkpoint={model} --port=http", "a whole number is wanted"),
        ("--checkpoint={model} --port=99999", "not an integer in the range [0, 65535]"),
        ("--checkpoint={model} --port=-1", "not an integer in the range [0, 65535]"),
        ("--checkpoint={model} --port={taken}", "give another --port"),
        ("--checkpoint={model} --host=no.such.host.invalid", "give another --port or --host"),
        ("--checkpoint={model} --host=" + LONG, "give another --port or --host"),
        ("--checkpoint={model} --pidinet_weights=nowhere.pth", "There is no file nowhere.pth"),
        ("--checkpoint={model} --largest_side=1", "not integer >= 64"),
        ("--checkpoint={model} --max_megabytes=0", "not number >= 0.1"),
        *((f"--checkpoint={{{name}}}", said) for name, said in DAMAGED.items() if name[:4] != "file"),
    ],
}

PROGRAM = """
import contextlib, io, json, sys, traceback
from inpaint_jax.cli import main
for arguments in json.load(sys.stdin):
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(arguments)
        except BaseException:
            code = traceback.print_exc()
    print(json.dumps([code, printed.getvalue()]), flush=True)
"""


def lines(path, *texts):
    path.write_text("".join(f"{text}\n" for text in texts))


@pytest.fixture(scope="module")
def untrained(make_config, tmp_path_factory):
    """A workdir whose checkpoint of step 2 has zeros for parameters: made in a moment."""
    folder, config = tmp_path_factory.mktemp("untrained") / "run", make_config().to_dict()
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    mask = jax.ShapeDtypeStruct((1, 32, 32), np.float32)
    generator = Generator.from_fields(config["model"], np.float32)
    shapes = jax.eval_shape(generator.init, jax.random.key(0), image, mask)["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(2, generator=params, rest={"step": np.int32(2)}, progress={})
    lines(folder / "config.json", json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def places(untrained, photos, tmp_path_factory):
    """Name -> path of all that the rows name."""
    tmp = tmp_path_factory.mktemp("mistakes")
    found = {name: tmp / name for name in ("empty", "broken", *DAMAGED)}
    found |= {"tmp": tmp, "photos": photos, "photo": photos / "val" / "00.png", "run": untrained}
    found["empty"].mkdir()
    found["broken"].mkdir()
    (found["broken"] / "photo.png").write_bytes(b"no photo")
    hole = np.zeros((48, 60), bool)
    hole[10:30, 20:40] = True
    for name, mask in (("mask", hole), ("small", hole[::2, ::2])):
        found[name] = tmp / f"{name}.png"
        Image.fromarray(mask).save(found[name])
    lines(tmp / "syntax.py", "def get_config():", "    return (", "")
    lines(tmp / "no_function.py", "config = 1")
    lines(tmp / "name_error.py", "def get_config():", "    return nothing_of_this_name")

    def copied(name):
        found[name] = tmp / name
        shutil.copytree(untrained, found[name], ignore=shutil.ignore_patterns("events*", "samples"))
        return found[name]

    config = json.loads((untrained / "config.json").read_text())
    for name, text in (("empty", ""), ("brace", "{"), ("list", "[]"), ("null", "null"), ("fields", "{}")):
        lines(copied(f"config_{name}") / "config.json", text)
    others = {
        "width": {"width": 8},
        "heads": {"heads": 4},
        "attention": {"attention": "atma"},
        "skips": {"skips": True},
    }
    for name, fields in {**others, "model": {"width": "wide"}}.items():
        lines(copied(f"config_{name}") / "config.json", json.dumps(config | {"model": config["model"] | fields}))
    for name, keep in (("empty", 0), ("truncated", 40)):
        checkpoints = copied(f"checkpoint_{name}") / "checkpoints"
        for path in [path for path in checkpoints.glob("*/generator/**/*") if path.is_file()]:
            path.write_bytes(path.read_bytes()[:keep])
    lines(copied("metrics_damaged") / "metrics.jsonl", '{"step": 0, "epoch"', "")
    lines(copied("metrics_nan") / "metrics.jsonl", '{"step": NaN, "epoch": 0}')
    lines(copied("metrics_text") / "metrics.jsonl", '{"step": 1, "epoch": 0, "validation/loss": "low"}')

    found["model"] = tmp / "model.safetensors"
    export(untrained, found["model"])
    for name, content in (("empty", b""), ("photo", found["photo"].read_bytes())):
        found[f"file_{name}"].write_bytes(content)
    tensors = safetensors.numpy.load_file(found["model"])
    safetensors.numpy.save_file(tensors, found["file_foreign"])
    _, config, step = read_model(found["model"])
    whole = {"format": "inpaint_jax generator", "format_version": "1", "step": str(step), "config": json.dumps(config)}
    renamed = {
        name.replace("coarse/GatedConv_0/conv/kernel", "coarse/GatedConv_0/conv/kernels"): tensor
        for name, tensor in tensors.items()
    }
    for name, changed, held in (
        ("no_config", {"config": None}, tensors),
        ("broken_config", {"config": "{"}, tensors),
        ("other_config", {"config": json.dumps(config | {"dtype": "float8"})}, tensors),
        ("no_step", {"step": None}, tensors),
        ("renamed", {}, renamed),
    ):
        metadata = {key: value for key, value in (whole | changed).items() if value is not None}
        safetensors.numpy.save_file(held, found[f"file_{name}"], metadata)

    for name, file, content in (
        ("metrics_empty", "metrics.json", b""),
        ("metrics_list", "metrics.json", b"[]"),
        ("unfinished_empty", "unfinished.npz", b""),
        ("unfinished_text", "unfinished.npz", b"no arrays"),
    ):
        found[name] = tmp / name
        found[name].mkdir()
        (found[name] / file).write_bytes(content)
    found["unfinished_foreign"] = tmp / "unfinished_foreign"
    found["unfinished_foreign"].mkdir()
    np.savez(found["unfinished_foreign"] / "unfinished.npz", document=np.array("[]"), scores=np.zeros(3, np.uint8))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found["taken"] = listener.getsockname()[1]
        yield found


@pytest.fixture(scope="module")
def outcomes(places):
    """Command -> (exit code, what it printed) of all its rows."""
    # Nothing can be downloaded here, and nothing was.
    away = {"HTTPS_PROXY": "http://localhost:9", "INPAINT_JAX_CACHE": str(places["tmp"] / "cache")}
    found = {}

    def of(command):
        if command not in found:
            rows = [[command, *(GOOD[command] + row).format(**places).split()] for row, _ in ROWS[command]]
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM],
                input=json.dumps(rows),
                cwd=REPOSITORY,
                env={**os.environ, **away},
                stdout=subprocess.PIPE,
                text=True,
                timeout=300,
            )
            found[command] = [json.loads(line) for line in done.stdout.splitlines()]
        return found[command]

    return of


@pytest.mark.parametrize(
    ("command", "number"),
    [
        pytest.param(command, number, id=f"{command} {row[:60]}")
        for command, rows in ROWS.items()
        for number, (row, _) in enumerate(rows)
    ],
)
def test_a_mistake_is_one_line_that_names_the_cure(outcomes, places, command, number):
    code, printed = outcomes(command)[number]
    cure = ROWS[command][number][1].format(**places)
    assert code == 2, printed
    assert "Traceback" not in printed
    last = printed.strip().splitlines()[-1]
    if " ERROR " in last:  # the log's summary of photos, behind a line for each
        assert cure in printed
    else:
        assert last.startswith(f"inpaint-jax {command}: ")
        assert cure in last
    assert not any(
        (places["tmp"] / name).exists() for name in ("run", "eval", "out.png", "sketches", "out.safetensors")
    )


# Whole processes.


@pytest.mark.parametrize(
    ("way", "command"),
    [
        ("train.py", "train"),
        ("evaluate.py", "evaluate"),
        ("inpaint.py", "fill"),
        ("-m inpaint_jax.demo", "demo"),
        ("-m inpaint_jax.report", "report"),
        ("-m inpaint_jax.sketching", "sketch"),
        ("-m inpaint_jax export", "export"),
    ],
)
def test_every_way_in(way, command):
    done = run(*way.split(), "--nonsense")
    sentence = f"Unknown command line flag 'nonsense'; see inpaint-jax {command} --help."
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"inpaint-jax {command}: {sentence}\n")
    done = run(*way.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"inpaint-jax {command} " in done.stdout.splitlines()[0]


def test_the_commands_are_listed():
    listed = run("-m", "inpaint_jax", "--help")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert all(f"\n  {command} " in listed.stdout for command in GOOD)
    nothing, unknown = run("-m", "inpaint_jax"), run("-m", "inpaint_jax", "nonsense")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (2, "", listed.stdout)
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert unknown.stderr == f"inpaint-jax: There is no command 'nonsense'.\n\n{listed.stdout}"


def test_help_is_quick_and_flags_belong_to_one_command():
    """Nothing heavy is imported for them, nor by the worker processes that import the script again."""
    program = "import sys; from inpaint_jax.cli import main; main(['evaluate', '--help']); main(['train', '--help'])"
    heavy = "print({'jax', 'flax', 'numpy', 'cv2', 'grain'} & sys.modules.keys())"
    done = run("-c", f"{program}; {heavy}")
    evaluate, train = done.stdout.split("Trains a model:")
    assert "--save_images" in evaluate
    assert "--save_images" not in train
    assert done.stdout.splitlines()[-1] == "set()", done.stderr


def test_ctrl_c_ends_quietly(tmp_path):
    flags = ["--data=skimage:train", "--size=256", "--fid=off", "--methods=biharmonic", f"--output={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "inpaint_jax", "evaluate", "--workers=0", *flags],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    printed = ""
    for line in process.stderr:
        printed += line
        if "pairs of image and mask" in line:
            process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130, printed
    assert "Traceback" not in printed


def run(*arguments):
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )
