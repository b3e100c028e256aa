"""One measurement in a process of its own: its peak of memory is its own, and so are its devices."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class MeasurementFailed(RuntimeError):
    """The process ended with an error; the message is its last line."""


def run_alone(script: str, flags: Sequence[str], setting: Any) -> dict[str, Any]:
    """Runs a script of this folder with --one=SETTING, and reads the JSON in the last line that it prints.

    Args:
        script: name of the file.
        flags: of the command.
        setting: what to measure, as JSON.

    Raises:
        MeasurementFailed: it failed, for want of memory for example. What it said goes to stderr.
    """
    command = [sys.executable, str(Path(__file__).parent / script), *flags, f"--one={json.dumps(setting)}"]
    child = subprocess.run(command, capture_output=True, text=True)
    if child.returncode:
        sys.stderr.write(child.stderr)
        lines = child.stderr.strip().splitlines() or [f"exit status {child.returncode}"]
        raise MeasurementFailed(lines[-1])
    return json.loads(child.stdout.splitlines()[-1])
