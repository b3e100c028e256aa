"""The one way in: inpaint-jax prepare | train | evaluate | fill | sketch | demo | export | import | models | report.

Every command is a module here. Its docstring is what --help shows; `define(values)` defines its flags, REQUIRED and
POSITIONAL name what has to be given, and `run(values, *positional)` hands it to one call of the library and returns the
exit code, None for 0. Modules are imported by the first argument, and import what takes seconds only when they run:
--help is quick, and so are the worker processes of a training, which import the script that was started once more.

What went wrong is one line and exit code 2 where the user can mend it, see `errors.UserError`, and a traceback where it
is a bug.
"""

import errno
import importlib
import logging
import math
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType

from absl import flags

from inpaint_jax.errors import UserError

PROGRAM = "inpaint-jax"
COMMANDS = {
    "prepare": "Prepares a TFDS data set for training.",
    "train": "Trains a model, or goes on with a run.",
    "evaluate": "Makes tables of models and classical methods by mask ratio.",
    "fill": "Fills the holes of photos.",
    "sketch": "Makes the sketches of a data set, for training.",
    "demo": "Shows a web page to fill holes on.",
    "export": "Writes the generator of a run into one file.",
    "import": "Makes a model of weights that were published for another system.",
    "models": "Lists the models that are there.",
    "report": "Makes one HTML page of a run.",
}
_HELP = ("--help", "-h", "-help")

# What the system says of paths, permissions and full disks, and what helps; other OSErrors are bugs.
_CURES = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP), "correct the path"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or give another path"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there, or give another path"),
    errno.ENAMETOOLONG: "give a shorter name",
}

# How absl and Python say that the value of a flag is of another type, and what we say.
_WANTED = {
    r"literal for int\(\)": "a whole number",
    "convert string to float": "a number",
    "Non-boolean": "true or false",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: name of the command and its flags; those of the process by default.

    Returns:
        the exit code: 0; 2 for what the user can mend; 130 after Ctrl-C; or what the command says.
    """
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or [""]
    if name in _HELP:
        print(_overview())
        return 0
    if name not in COMMANDS:
        print((f"{PROGRAM}: There is no command {name!r}.\n\n" if name else "") + _overview(), file=sys.stderr)
        return 2
    # What messages tell to type again, and where the flags of a config are looked for.
    sys.argv = [PROGRAM, name, *rest]
    command = importlib.import_module(f"{__name__}.{name}")
    try:
        values = flags.FlagValues()
        command.define(values)
        if not set(rest).isdisjoint(_HELP):
            print(_help(command, values))
            return 0
        positional = _parse(name, command, values, rest)
        _set_up_logging()
        from inpaint_jax.compilation import keep_programs

        keep_programs()
        code = command.run(values, *positional) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except UserError as error:
        sentence = str(error)
    except OSError as error:
        if error.errno not in _CURES:
            raise
        what = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
        sentence = f"{what}; {_CURES[error.errno]}."
    except KeyboardInterrupt:
        return 130
    print(f"{PROGRAM} {name}: {sentence}", file=sys.stderr)
    return 2


def _parse(name: str, command: ModuleType, values: flags.FlagValues, arguments: list[str]) -> list[str]:
    """Parses the flags; gives the positional arguments, as many as the command's POSITIONAL has."""
    values.set_gnu_getopt(True)
    try:
        _, *positional = values([PROGRAM, *arguments])
    except flags.Error as error:
        if isinstance(error.__context__, UserError):
            raise error.__context__ from None
        text = str(error).rstrip(" .")
        for theirs, ours in _WANTED.items():
            text = re.sub(f": .*{theirs}.*", f": {ours} is wanted", text)
        raise UserError(f"{text}; see {PROGRAM} {name} --help.") from error
    wanted = getattr(command, "POSITIONAL", ())
    for flag in values:
        if values[flag].value == "":
            values[flag].unparse()  # an empty path would be the working directory
    if extra := positional[len(wanted) :]:
        raise UserError(f"Flags are written --name=value; what is {extra[0]!r}?")
    missing = [*wanted[len(positional) :], *(f"--{flag}" for flag in command.REQUIRED if values[flag].value is None)]
    if missing:
        raise UserError(f"{missing[0]} is missing; see {PROGRAM} {name} --help.")
    for flag in values:
        value = values[flag].value
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{flag} must be a finite number, not {value}.")
    return positional


def _set_up_logging() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S", force=True)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("inpaint_jax").setLevel(logging.INFO)


def _overview() -> str:
    lines = "\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items())
    return f"Image inpainting in JAX. Commands:\n\n{lines}\n\n{PROGRAM} COMMAND --help shows the flags of one."


def _help(command: ModuleType, values: flags.FlagValues) -> str:
    lines = [f"{(command.__doc__ or '').strip()}\n"]
    for flag in values:
        default = values[flag].default
        shown = "" if default is None or default is False or default == [] else f" [{default}]"
        needed = " (needed)" if flag in command.REQUIRED else ""
        lines.append(f"  --{flag}{needed}{shown}\n        {values[flag].help}")
    return "\n".join(lines)
