"""The rules of the house (CONTRIBUTING.md): who may import whom, and who may know which library.

The tables are the rules; below them is the checker, which reads the sources and runs none of them; at the end are tests
of the checker. A new module that no row covers fails: give it a row.
"""

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

# Who may import whom: a part may import itself and what stands to its right. A module belongs to the longest name on
# the left that fits it (training.meter to "training"); a name on the right stands for all modules below it.
MAY_IMPORT = {
    # entry scripts
    "train": "cli",
    "evaluate": "cli",
    "inpaint": "cli",
    "__main__": "cli",
    "demo.__main__": "cli",
    "report.__main__": "cli",
    "sketching.__main__": "cli",
    "configs": "config",
    # the commands
    "cli": "models hub config data training evaluation inference sketching report demo compilation errors",
    "demo": "inference classical data features errors",
    "report": "evaluation runs writers visualize files errors",
    "inspection": "arrays inference sketching config runs data visualize features metrics nets",
    # what commands start
    "training": "systems models sketching devices runs checkpoints data writers visualize config nets features errors",
    "evaluation": "inference classical models sketching config data visualize features metrics nets files errors",
    "inference": "classical models config data nets systems files errors",
    "sketching": "data features files errors",
    # whole models
    "systems": "config data nets losses metrics features errors",
    "models": "hub systems config runs checkpoints files errors",
    "hub": "errors",
    # what talks to the disk, and to the devices
    "runs": "config files errors",
    "config": "losses nets errors",
    "checkpoints": "devices files errors",
    "data": "files errors",
    "writers": "files errors",
    "visualize": "",
    "classical": "errors",
    "compilation": "files",
    "devices": "errors",
    "files": "",
    "errors": "",
    # the ground floor
    "features": "files errors",
    "losses": "arrays",
    "metrics": "arrays",
    "nets": "arrays",
    "arrays": "",
}

FILES = "io os os.path pathlib shutil tempfile glob json csv pickle h5py PIL cv2 pooch requests urllib"


@dataclasses.dataclass(frozen=True)
class Rule:
    """These parts ("*" = all) except those name none of these libraries, and call none of these functions."""

    why: str
    parts: str
    never_import: str
    never_call: str = ""
    except_in: str = ""


RULES = [
    Rule("no I/O in the nets, losses and metrics", "nets losses metrics", FILES, never_call="open print input"),
    Rule(
        "numpy only, worker processes import it again",
        "data classical evaluation.pairs sketching.tasks sketching.store",
        "jax jaxlib flax optax orbax chex clu",
    ),
    Rule("only writers knows TensorBoard", "*", "tensorboardX clu.metric_writers", except_in="writers"),
    Rule("nothing needs TensorFlow", "*", "tensorflow"),
    Rule("only checkpoints knows orbax", "*", "orbax flax.training.checkpoints", except_in="checkpoints"),
    Rule(
        "a ConfigDict stops at the entry of training.loop",
        "*",
        "ml_collections",
        except_in="cli configs config training.loop evaluation",
    ),
    Rule("no torch, no executing of pickled code", "*", "torch pickle joblib dill"),
]

LARGEST_FILE = 24_000  # bytes
PACKAGE = "inpaint_jax"
ENTRY_SCRIPTS = ("train.py", "evaluate.py", "inpaint.py")
SOURCE_FOLDERS = (PACKAGE, "configs", "tests", "benchmarks", "notebooks")


def test_imports_point_downwards():
    assert upward_imports(REPOSITORY) == []


def test_no_permission_is_left_from_before():
    assert unused_permissions(REPOSITORY) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.why)
def test_libraries_stay_where_they_belong(rule):
    assert broken(rule, REPOSITORY) == []


def test_files_are_small_and_named_for_what_they_do():
    assert odd_files(REPOSITORY) == []


# ---------------------------------------------------------------------------------------------------- the checker


@dataclasses.dataclass(frozen=True)
class Source:
    """One file of the package, configs/ or an entry script; `name` as in the tables, "" for the package itself."""

    path: Path
    name: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(), str(self.path))


def sources(root: Path) -> list[Source]:
    """All files that the tables speak of."""
    found = [Source(root / script, script.removesuffix(".py")) for script in ENTRY_SCRIPTS if (root / script).exists()]
    for folder, prefix in ((PACKAGE, ""), ("configs", "configs")):
        for path in sorted((root / folder).rglob("*.py")):
            inner = path.relative_to(root / folder).with_suffix("").parts
            inner = inner[:-1] if inner[-1] == "__init__" else inner
            found.append(Source(path, ".".join(part for part in (prefix, *inner) if part)))
    return found


def imports(source: Source, root: Path) -> Iterator[tuple[int, str]]:
    """(line, full name) of every import in a file, also inside functions; relative ones are resolved."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = source.path.relative_to(root).parts[: -node.level]
                base = ".".join((*package, base) if base else package)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def inside(name: str, parts: str) -> bool:
    """Whether a dotted name is one of the parts or lies below one."""
    return any(name == part or name.startswith(f"{part}.") for part in parts.split())


def part_of(name: str) -> str | None:
    """The row of MAY_IMPORT that a module belongs to."""
    return max((part for part in MAY_IMPORT if inside(name, part)), key=len, default=None)


def imported_part(name: str, root: Path) -> str | None:
    """The row of an imported name; None for other libraries, and for the package itself (its version)."""
    top, _, rest = name.partition(".")
    if top == "configs":
        return "configs"
    if top == PACKAGE:
        first = rest.split(".")[0]
        known = (root / PACKAGE / first).is_dir() or (root / PACKAGE / f"{first}.py").exists()
        return part_of(rest) if first and known else None
    return top if f"{top}.py" in ENTRY_SCRIPTS else None


def upward_imports(root: Path) -> list[str]:
    """What MAY_IMPORT does not allow, as "file:line: part -> part"."""
    faults = []
    for source in sources(root):
        where = source.path.relative_to(root)
        part = part_of(source.name)
        if part is None and source.name:
            faults.append(f"{where}: no row of MAY_IMPORT covers it")
            continue
        for line, name in imports(source, root):
            target = imported_part(name, root)
            if target not in (None, part) and not inside(target, MAY_IMPORT.get(part, "")):
                faults.append(f"{where}:{line}: {part or PACKAGE} -> {target}")
    return faults


def unused_permissions(root: Path) -> list[str]:
    """What MAY_IMPORT allows and nobody does, as "part -> part"."""
    used = {
        (part_of(source.name), imported_part(name, root))
        for source in sources(root)
        for _, name in imports(source, root)
    }
    return [
        f"{part} -> {permitted}"
        for part, row in MAY_IMPORT.items()
        for permitted in row.split()
        if not any(here == part and target and inside(target, permitted) for here, target in used)
    ]


def broken(rule: Rule, root: Path) -> list[str]:
    """Where a rule is broken, as "file:line: name"."""
    faults = []
    for source in sources(root):
        concerned = rule.parts == "*" or inside(source.name, rule.parts)
        if not concerned or inside(source.name, rule.except_in):
            continue
        where = source.path.relative_to(root)
        faults += [f"{where}:{line}: {n}" for line, n in imports(source, root) if inside(n, rule.never_import)]
        for node in ast.walk(source.tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in rule.never_call.split()
            ):
                faults.append(f"{where}:{node.lineno}: {node.func.id}()")
    return faults


def odd_files(root: Path) -> list[str]:
    """Files over the limit, and drawers for everything."""
    paths = [*root.glob("*.py"), *(path for folder in SOURCE_FOLDERS for path in sorted((root / folder).rglob("*.py")))]
    faults = []
    for path in paths:
        if path.stat().st_size > LARGEST_FILE:
            faults.append(f"{path.relative_to(root)}: {path.stat().st_size} bytes, split it")
        if path.stem in ("utils", "util", "helpers", "misc", "common"):
            faults.append(f"{path.relative_to(root)}: name it for what it does")
    return faults


# ---------------------------------------------------------------------------------------------- and its own tests

CLEAN = {
    "train.py": "from inpaint_jax.cli import main\n",
    "configs/places2.py": "import ml_collections\nfrom configs import default\n",
    "inpaint_jax/__init__.py": "__version__ = '1'\n",
    "inpaint_jax/checkpoints.py": "import orbax.checkpoint as ocp\n",
    "inpaint_jax/data/masks.py": "import os\nimport tensorflow_datasets\n",
    "inpaint_jax/data/sources.py": "from . import masks\nfrom .masks import draw\n",
    "inpaint_jax/evaluation/tables.py": "from inpaint_jax.evaluation import run\nfrom inpaint_jax import metrics\n",
    "inpaint_jax/inference/inpainter.py": "from inpaint_jax.nets.layers import GatedConv\n",
    "inpaint_jax/metrics.py": "import jax\n",
    "inpaint_jax/nets/layers.py": "import jax.numpy as jnp\n",
    "inpaint_jax/training/loop.py": "import ml_collections\nfrom inpaint_jax import __version__, writers\n"
    "from inpaint_jax.training import meter\n",
    "inpaint_jax/training/meter.py": "from inpaint_jax.systems.mhtma import step\n",
    "inpaint_jax/systems/mhtma.py": "import inpaint_jax.nets.layers\n",
    "inpaint_jax/writers.py": "def f():\n    from tensorboardX import SummaryWriter\n",
    "tests/test_metrics.py": "import torch\nfrom inpaint_jax.training import loop\n",
}


def build(root: Path, **changes: str) -> Path:
    for name, text in {**CLEAN, **changes}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def all_faults(root: Path) -> list[str]:
    return upward_imports(root) + [fault for rule in RULES for fault in broken(rule, root)] + odd_files(root)


def test_the_checker_accepts_a_clean_house(tmp_path):
    assert all_faults(build(tmp_path)) == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        # who imports whom, in every way of writing it
        ("train.py", "from inpaint_jax.nets import layers", "train -> nets"),
        ("inpaint_jax/inference/export.py", "import inpaint_jax.evaluation.tables", "inference -> evaluation"),
        ("inpaint_jax/inference/export.py", "from inpaint_jax import training", "inference -> training"),
        ("inpaint_jax/evaluation/run.py", "from inpaint_jax.training.meter import M", "evaluation -> training"),
        ("inpaint_jax/metrics.py", "from .data.masks import draw", "metrics -> data"),
        ("inpaint_jax/nets/layers.py", "def f():\n    from inpaint_jax import metrics", "nets -> metrics"),
        ("inpaint_jax/nets/layers.py", "if 0:\n    import train", "nets -> train"),
        ("inpaint_jax/checkpoints.py", "from ..inpaint_jax.systems.mhtma import S", "checkpoints -> systems"),
        ("inpaint_jax/data/__init__.py", "from configs import places2", "data -> configs"),
        ("inpaint_jax/__init__.py", "from inpaint_jax.inference import Inpainter", "inpaint_jax -> inference"),
        ("inpaint_jax/novelty.py", "", "no row of MAY_IMPORT covers it"),
        # who may know what
        ("inpaint_jax/nets/layers.py", "from ml_collections import ConfigDict", "ml_collections.ConfigDict"),
        ("inpaint_jax/losses.py", "import os.path", "os.path"),
        ("inpaint_jax/metrics.py", "def f():\n    return open('x')", "open()"),
        ("inpaint_jax/data/masks.py", "import jax.numpy as jnp", "jax.numpy"),
        ("inpaint_jax/data/masks.py", "from flax import linen", "flax.linen"),
        ("inpaint_jax/training/loop.py", "from clu import metric_writers", "clu.metric_writers"),
        ("inpaint_jax/visualize.py", "import tensorflow as tf", "tensorflow"),
        ("inpaint_jax/training/state.py", "from flax.training import checkpoints", "flax.training.checkpoints"),
        ("inpaint_jax/inference/export.py", "import orbax.checkpoint", "orbax.checkpoint"),
        ("inpaint_jax/systems/mhtma.py", "import ml_collections", "ml_collections"),
        ("inpaint_jax/features/pidinet.py", "import torch", "torch"),
        # files
        ("inpaint_jax/data/utils.py", "", "name it for what it does"),
        ("benchmarks/attention.py", "#" * 24_001, "24001 bytes, split it"),
    ],
)
def test_the_checker_finds(tmp_path, file, text, fault):
    faults = all_faults(build(tmp_path, **{file: text}))
    assert len(faults) == 1
    assert faults[0].startswith(file)
    assert faults[0].endswith(fault)
