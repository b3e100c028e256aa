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
from mistakes import DAMAGED, GOOD, ROWS
from PIL import Image
from torch_files import write_zip

from inpaint_jax.checkpoints import Checkpoints
from inpaint_jax.config import Config
from inpaint_jax.models import export, read_model
from inpaint_jax.systems.mhtma import make_generator

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
    generator = make_generator(Config.read(config))
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

    for name, saved in (
        ("foreign", {"G": {"weight": np.ones(3, np.float32)}}),
        ("tensor", np.ones(3, np.float32)),
    ):
        found[name] = tmp / f"{name}.pth"
        write_zip(found[name], saved)

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
        ("-m inpaint_jax import", "import"),
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
