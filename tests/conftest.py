"""What all tests share: the platform, the flags, compiled programs, photos, and the folder of shared data."""

import atexit
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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

# What one test compiled, the others and the commands that they start take from here.
_PROGRAMS = tempfile.mkdtemp(prefix="inpaint_jax_programs_")
atexit.register(shutil.rmtree, _PROGRAMS, ignore_errors=True)
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _PROGRAMS)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Tiny programs run once or twice: LLVM's optimisations take longer than they save. XLA's own passes are the same.
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# Shapes and types in the signatures of these modules are checked at every call; not in commands that tests start.
check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand for a float
jaxtyping.install_import_hook(["inpaint_jax.nets", "inpaint_jax.losses", "inpaint_jax.metrics"], "conftest.check_types")

# grain's worker processes read absl flags, which only an absl app would have parsed.
flags.FLAGS.mark_as_parsed()

REPOSITORY = Path(__file__).resolve().parent.parent


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
def photos(tmp_path_factory) -> Path:
    """A folder with train/ (10 photos) and val/ (5), cut from the photos inside scikit-image."""
    from inpaint_jax.data.sources import open_source

    folder = tmp_path_factory.mktemp("photos")
    for split, name, count in (("train", "skimage:train", 10), ("val", "skimage:validation", 5)):
        (folder / split).mkdir()
        source = open_source(name)
        for i in range(count):
            photo = Image.fromarray(np.asarray(source[i])).resize((60, 48))
            photo.save(folder / split / f"{i:02d}.png")
    return folder


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


@pytest.fixture(scope="session")
def tiny_workdir(make_config, tmp_path_factory) -> Path:
    """The workdir of a run of two steps."""
    from inpaint_jax.training import loop

    workdir = tmp_path_factory.mktemp("tiny") / "run"
    loop.train(make_config(train__max_steps=2, train__samples=0), workdir)
    return workdir


@pytest.fixture(scope="session")
def finished(make_config, tmp_path_factory) -> Path:
    """The workdir of a run of twelve steps that nothing disturbed; leave it as it is."""
    from inpaint_jax.training import loop

    workdir = tmp_path_factory.mktemp("finished") / "run"
    loop.train(make_config(), workdir)
    return workdir


@pytest.fixture(scope="session")
def quickstart_workdir(tmp_path_factory) -> Path:
    """The workdir of the quickstart, trained as users do it: minutes, for tests that are marked slow."""
    workdir = tmp_path_factory.mktemp("quickstart") / "run"
    command = [sys.executable, "train.py", "--config=configs/quickstart.py", f"--workdir={workdir}"]
    # With XLA's optimisations.
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, "XLA_FLAGS": ""}, check=True, timeout=1500)
    return workdir


@pytest.fixture(scope="session")
def guided_workdir(make_config, shared, tmp_path_factory) -> Path:
    """The workdir of a run of six steps that is guided by sketches, which it made itself."""
    from inpaint_jax.features import pidinet
    from inpaint_jax.training import loop

    weights = shared / "weights" / pidinet.PIDINET.name
    if not weights.exists():
        pytest.skip(f"no weights of PiDiNet at {weights}")
    workdir = tmp_path_factory.mktemp("guided") / "run"
    config = make_config(name="guided", model__sketch=True, data__pidinet_weights=str(weights), train__max_steps=6)
    loop.train(config, workdir)
    return workdir


@pytest.fixture(scope="session")
def inception_state(shared) -> dict[str, np.ndarray]:
    """A state_dict of FID's Inception with reproducible pseudo-random weights, those of the reference outputs."""
    recipe = runpy.run_path(str(shared / "reference" / "fid_random_weights_recipe.py"))
    with np.load(shared / "reference" / "fid_architecture_random_weights.npz") as reference:
        names, shapes = reference["keys"], reference["shapes"]
    shapes = [tuple(int(n) for n in shape.split(",")) for shape in shapes]
    return {str(name): recipe["tensor"](str(name), shape) for name, shape in zip(names, shapes)}
