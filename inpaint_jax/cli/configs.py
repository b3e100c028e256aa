"""The flag --config, and --config.FIELD=VALUE: a file that says what to train, by its path or its name."""

import difflib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

import inpaint_jax
from inpaint_jax.errors import UserError


def define(values: flags.FlagValues, meaning: str) -> None:
    """Defines the flag --config, whose value is the config with all its --config.FIELD=VALUE applied.

    Args:
        values: where to.
        meaning: for --help.
    """
    config_flags.DEFINE_config_file("config", None, meaning, flag_values=values)
    # Theirs puts whole tracebacks into messages, and lets a missing file pass until its fields are looked at.
    values["config"].parser = _ConfigFile()


class _ConfigFile(flags.ArgumentParser):
    """PATH or NAME of a file with a function get_config, and perhaps :ARGUMENT of that function, to its config."""

    def parse(self, argument: str) -> Any:
        name, *variant = argument.split(":", 1)
        path = _find(name)
        # Configs are built on each other: from configs import default.
        if path.resolve().parent.name == "configs":
            sys.path.append(str(path.resolve().parents[1]))
        spec = importlib.util.spec_from_file_location("config_file", path)
        if spec is None or spec.loader is None:
            raise UserError(f"{path} is no Python file; give one whose name ends in .py.")
        try:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            config = module.get_config(*variant)
        except SyntaxError as error:
            raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}.") from error
        except ValueError as error:  # what the file itself says of its argument
            raise UserError(str(error)) from error
        except Exception as error:  # the file is the user's, and any fault in it too
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{last.filename}, line {last.lineno}"
            raise UserError(f"{path} gives no config ({where}: {type(error).__name__}: {error}).") from error
        _check_names(config)
        if hasattr(config, "lock"):
            config.lock()
        return config


def _find(name: str) -> Path:
    """The file of a path, or of the name of one in configs/: here, or beside the package in a checkout."""
    folders = [Path("configs"), Path(inpaint_jax.__file__).parents[1] / "configs"]
    for path in (Path(name), *(folder / f"{name}.py" for folder in folders if Path(name).name == name)):
        if path.is_file():
            return path
    names = sorted(
        {path.stem for folder in folders for path in folder.glob("[!_]*.py") if "def get_config" in path.read_text()}
    )
    raise UserError(f"There is no config file {name!r}; give the path of one, or a name: {', '.join(names)}.")


def _check_names(config: Any) -> None:
    """Refuses --config.FIELD for fields that the config lacks."""
    known = set(_fields(config))
    for argument in sys.argv:
        if match := re.match(r"--?(?:no)?config\.([^=]*)", argument):
            name = match[1]
            if name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {close[0]}?" if close else "its fields are in inpaint_jax/config.py."
                raise UserError(f"The config has no field {name!r}; {hint}")


def _fields(config: Any, prefix: str = "") -> Iterator[str]:
    """Names like data.image_size."""
    for name, value in config.items() if hasattr(config, "items") else vars(config).items():
        if hasattr(value, "items") or hasattr(value, "__dataclass_fields__"):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name
