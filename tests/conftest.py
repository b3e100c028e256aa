"""What all tests share: the platform, the flags, compiled programs, photos, runs, and the folder of shared data."""

import atexit
import fcntl
import functools
import importlib.metadata
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from absl import flags
from beartype import BeartypeConf, beartype
from browser import chromium_page  # noqa: F401 (a fixture)
from PIL import Image

# Before a test imports jax; who wants to run them on another platform sets the variable.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# What one test compiled, the others and the commands that they start take from here. Workers inherit the variable.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="inpaint_jax_programs_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Parameters are drawn by some hundred small programs, and threefry's take three times as long to compile.
os.environ.setdefault("JAX_DEFAULT_PRNG_IMPL", "rbg")
# Arrays of different ranks are broadcast by intent or not at all.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Tiny programs run once or twice: what makes them fast takes longer than it saves. With these a training step compiles
# in 4 s instead of 11.
if os.environ["JAX_PLATFORMS"] == "cpu":
    _QUICK = "--xla_backend_optimization_level=0 --xla_cpu_prefer_vector_width=128"
    _QUICK += " --xla_cpu_parallel_codegen_split_count=1"
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones end at a flag that they do not know
        _QUICK += " --xla_cpu_use_fusion_emitters=false"
    os.environ.setdefault("XLA_FLAGS", _QUICK)

# Shapes and types in the signatures of these modules are checked at every call; not in commands that tests start.
check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand for a float
jaxtyping.install_import_hook(["inpaint_jax.nets", "inpaint_jax.losses", "inpaint_jax.metrics"], "conftest.check_types")
# Each worker, and what it starts, keeps to its share of the cores: XLA would start threads for all of them in each.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if _WORKER and hasattr(os, "sched_setaffinity"):
    _CORES = sorted(os.sched_getaffinity(0))
    _COUNT = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    if len(_CORES) >= _COUNT:
        os.sched_setaffinity(0, _CORES[int(_WORKER.removeprefix("gw")) :: _COUNT])

# grain's worker processes read absl flags, which only an absl app would have parsed.
flags.FLAGS.mark_as_parsed()

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests come first, so that no worker is left with one of them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def several_devices(count: int) -> dict[str, str]:
    """The environment of a process that is to see so many CPU devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    return {"XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={count}"}


def shared_folder() -> Path:
    """Where the shared data is, if it is anywhere: `INPAINT_JAX_SHARED`, else ../shared."""
    return Path(os.environ.get("INPAINT_JAX_SHARED") or REPOSITORY.parent / "shared")


def saved_state(workdir: Path, step: int) -> dict:
    """Everything in a checkpoint, as numpy arrays."""
    import jax
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        return {
            item: jax.tree.map(np.asarray, checkpointer.restore(workdir / "checkpoints" / str(step) / item))
            for item in ("generator", "rest")
        }


@pytest.fixture
def own_checks() -> Iterator[None]:
    """Leaves wrong arguments to the library, whose errors speak to users; the checks of jaxtyping would come first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photos, masks, weights and reference outputs (`INPAINT_JAX_SHARED`, else ../shared), or a skip."""
    folder = shared_folder()
    if not folder.is_dir():
        pytest.skip(f"shared data not found at {folder}; set INPAINT_JAX_SHARED to its folder")
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Calls give the folder of a name, made by the first caller of all workers; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    if _WORKER:
        base = base.parent  # of all workers

    def once(name: str, make: Callable[[Path], None]) -> Path:
        folder = base / name
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (made := base / f"{name}.made").exists():
                shutil.rmtree(folder, ignore_errors=True)  # what another left that failed
                make(folder)
                made.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def photos(made_once) -> Path:
    """A folder with train/ (10 photos) and val/ (5), cut from the photos inside scikit-image."""

    def cut(folder: Path) -> None:
        from inpaint_jax.data.sources import open_source

        for split, name, count in (("train", "skimage:train", 10), ("val", "skimage:validation", 5)):
            (folder / split).mkdir(parents=True)
            source = open_source(name)
            for i in range(count):
                photo = Image.fromarray(np.asarray(source[i])).resize((60, 48))
                photo.save(folder / split / f"{i:02d}.png")

    return made_once("photos", cut)


@pytest.fixture(scope="session")
def make_config(photos):
    """Calls give a config that trains in seconds: 32 x 32, four channels. Arguments are fields, with __ for dots."""
    from configs import default

    def make(**fields):
        config = default.get_config()
        config.name = "tiny"
        config.batch_size = 4
        config.data.train = f"folder:{photos}/train"
        config.data.validation = f"folder:{photos}/val"
        config.data.image_size = 32
        config.data.workers = 0
        config.model.width = 4
        config.model.discriminator_width = 4
        config.model.discriminator_features = 16
        config.loss.perceptual_weight = 0.0
        config.train.max_steps = 12
        config.train.validate_every_epochs = 2.4  # 6 steps
        config.train.checkpoint_every_steps = 3
        config.train.log_every_steps = 1
        config.train.samples = 2
        config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
        return config

    return make


@pytest.fixture(scope="session", autouse=True)
def one_system_of_each_kind() -> Iterator[None]:
    """Runs of this process whose systems would be equal share one, whose programs are then traced and loaded once."""
    from inpaint_jax.training import loop

    make, made = loop.make_system, {}

    def make_once(config):
        optimizer, train = config.optimizer, config.train
        end = train.max_steps if optimizer.schedule == "cosine" else None
        side = config.data.image_size
        extra = (train.guesses, train.freeze_encoder_statistics, end)
        key = (config.system, config.dtype, config.seed, side, config.model, config.loss, optimizer, *extra)
        return made[key] if key in made else made.setdefault(key, make(config))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loop, "make_system", make_once)
        patched.setattr(loop._Programs, "of", functools.cache(loop._Programs.of))
        yield


@pytest.fixture(scope="session")
def tiny_workdir(make_config, made_once) -> Path:
    """The workdir of a run of two steps."""
    from inpaint_jax.training import loop

    config = make_config(train__max_steps=2, train__samples=0)
    return made_once("tiny", lambda folder: loop.train(config, folder / "run")) / "run"


@pytest.fixture(scope="session")
def finished(make_config, made_once) -> Path:
    """The workdir of a run of twelve steps that nothing disturbed; leave it as it is."""
    from inpaint_jax.training import loop

    return made_once("finished", lambda folder: loop.train(make_config(), folder / "run")) / "run"


@pytest.fixture(scope="session")
def quickstart_workdir(made_once) -> Path:
    """The workdir of the quickstart, trained for 60 steps; its config lies beside it.

    Most of a minute, for tests that are marked slow.
    """

    def train(folder: Path) -> None:
        folder.mkdir()
        (folder / "short.py").write_text(
            "from configs import quickstart\n\n\ndef get_config(variant=None):\n"
            "    config = quickstart.get_config(variant)\n    config.train.max_steps = 60\n    return config\n"
        )
        command = [sys.executable, "train.py", f"--config={folder / 'short.py'}", f"--workdir={folder / 'run'}"]
        subprocess.run(command, cwd=REPOSITORY, check=True, timeout=900)

    return made_once("quickstart", train) / "run"


@pytest.fixture(scope="session")
def guided_workdir(make_config, shared, made_once) -> Path:
    """The workdir of a run of six steps that is guided by sketches, which it made itself."""
    from inpaint_jax.features import pidinet
    from inpaint_jax.training import loop

    weights = shared / "weights" / pidinet.PIDINET.name
    if not weights.exists():
        pytest.skip(f"no weights of PiDiNet at {weights}")
    config = make_config(name="guided", model__sketch=True, data__pidinet_weights=str(weights), train__max_steps=6)
    return made_once("guided", lambda folder: loop.train(config, folder / "run")) / "run"


@pytest.fixture(scope="session")
def inception_state(shared) -> dict[str, np.ndarray]:
    """A state_dict of FID's Inception with reproducible pseudo-random weights, those of the reference outputs."""
    recipe = runpy.run_path(str(shared / "reference" / "fid_random_weights_recipe.py"))
    with np.load(shared / "reference" / "fid_architecture_random_weights.npz") as reference:
        names, shapes = reference["keys"], reference["shapes"]
    shapes = [tuple(int(n) for n in shape.split(",")) for shape in shapes]
    return {str(name): recipe["tensor"](str(name), shape) for name, shape in zip(names, shapes)}
