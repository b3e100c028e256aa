"""Some minutes of a GPU as tables, pictures and weights: checks, timings, then a training, each in a time box.

    python benchmarks/gpu_day.py --minutes=10 --photos=PACK --output=DIR [--wheels=FOLDER]
        [--stages=checks,speed,training] [--init_from=MODEL] [--vgg_weights=FILE] [--rehearsal]
    python benchmarks/gpu_day.py --list_wheels > wheels.txt

PACK comes from pack_photos.py. --init_from goes on training from the weights of an earlier day. --rehearsal does all of
it on a CPU with small networks, and proves the script, not the numbers. docs/gpu.md has the commands of the day.

Stages stand in order of worth, and so do the jobs of a stage (the tables in day_plan.py). A job is a process
that is ended when its time or that of its stage is up. One that fails leaves its traceback in its log and in
the summary; the others go on, and the exit code is 1. The training has whatever the others leave.

DIR holds at most these eight files, none above 16 MiB, rewritten after every job, so that a run which is cut off still
counts: summary.md and summary.json (all tables and figures), checks.zip, speed.zip, training.zip (logs, JSON, plots,
metrics.jsonl, sample sheets as JPEG), sheet.jpg, curves.png, and weights.safetensors (the averaged weights, float16).
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import day_plan
import day_report
from day_plan import BENCHMARKS, ENDING, SHORTEST, STAGES, Job, Scale

REPOSITORY = Path(__file__).resolve().parents[1]

# What training, evaluation and export of photos in a folder import, besides jax, flax, optax, orbax, OpenCV, Pillow,
# scikit-image, safetensors, matplotlib and what these need: 5.1 MB for Python 3.12, Linux, x86-64. What the machine has
# already is not installed. TFDS, h5py and requests are for data and weights that the day does without.
WHEELS = {
    "grain": "0.2.18",
    "array_record": "0.8.6",
    "cloudpickle": "3.1.3",
    "portpicker": "1.6.0",
    "clu": "0.0.12",
    "ml_collections": "1.1.0",
    "pooch": "1.9.0",
    "platformdirs": "4.14.8",
    "tensorboardX": "2.6.5",
    "jaxtyping": "0.3.11",
    "wadler_lindig": "0.1.8",
    "tqdm": "4.70.1",
}

LAST = 5.0  # seconds, to write what there is
# What is not installed should be known before minutes have gone, but after the device.
LOOK = """
import hardware, jax, json
seen = {**hardware.describe_devices(), **hardware.describe(("jax", "jaxlib", "flax", "numpy"))}
print(json.dumps({**seen, "platform": jax.default_backend()}), flush=True)
import inpaint_jax.training.loop, inpaint_jax.models
"""
CURVES = (
    "from inpaint_jax import visualize, writers; "
    "visualize.training_curves(writers.read_metrics('{0}')).savefig('{0}/curves.png', dpi=100)"
)
TERMS = "for research, not for commercial use: it was trained on photos whose terms say so."


def main() -> int:
    """Reads the command; gives the exit code."""
    arguments = _arguments()
    if arguments.list_wheels:
        print("\n".join(f"{name}=={version}" for name, version in WHEELS.items()))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing it started goes on without it
    day = Day(arguments, day_plan.REHEARSAL if arguments.rehearsal else day_plan.DAY)
    try:
        return run(day, arguments)
    finally:
        day.close()


def run(day: "Day", arguments: argparse.Namespace) -> int:
    """Runs the stages on a day; gives the exit code."""
    boxes = day_plan.divide(day.left(), arguments.stages, day.scale)
    print(", ".join(f"{name} {seconds:.0f} s" for name, seconds in boxes.items()), flush=True)
    day.report.boxes = boxes
    if not day.prepare():
        return 2
    for stage in arguments.stages:
        try:
            if stage == "training":
                day.train(day.deadline)
            else:
                day.jobs(stage, min(day.deadline, time.monotonic() + boxes[stage]))
        except Exception:  # the other stages are run all the same
            day.report.add(stage, stage, "failed", 0, traceback.format_exc())
        day.report.publish()
    print(day.report.text(), flush=True)
    return 1 if day.report.failures() else 0


class Day:
    """The clock, the folders, and what runs.

    Args:
        arguments: of the command.
        scale: how large everything is.
    """

    def __init__(self, arguments: argparse.Namespace, scale: Scale):
        self.deadline = time.monotonic() + 60 * arguments.minutes - LAST
        self.arguments, self.scale = arguments, scale
        self.work = Path(tempfile.mkdtemp(prefix="gpu_day_"))
        self._started: list[subprocess.Popen] = []
        self._exported: int | None = None  # the step of the last weights
        self.report = day_report.Report(arguments.output, self.work, rehearsal=arguments.rehearsal)
        paths = [str(REPOSITORY), str(BENCHMARKS), str(self.work / "site"), os.environ.get("PYTHONPATH")]
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PYTHONUNBUFFERED": "1",
            "INPAINT_JAX_CACHE": str(self.work / "cache"),
            # What one process compiled, the next ones need not.
            "JAX_COMPILATION_CACHE_DIR": str(self.work / "programs"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
        }
        if arguments.rehearsal:
            # To compile takes longer than to run what is so small.
            self.environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}

    def left(self) -> float:
        """Seconds until all has to be over."""
        return self.deadline - time.monotonic()

    def prepare(self) -> bool:
        """Installs the wheels that the machine lacks, and looks for a device. Without one nothing is worth its time."""
        if missing := [name for name in WHEELS if not _installed(name)]:
            if self.arguments.wheels is None:
                print(f"not installed: {', '.join(missing)}; give their --wheels", file=sys.stderr)
            else:
                where = (f"--find-links={self.arguments.wheels}", f"--target={self.work / 'site'}")
                pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", *where, *missing)
                self.run("setup", Job("wheels", 60, pip))
        sound = self.run("setup", Job("device", 90, (sys.executable, "-c", LOOK)))
        output = (self.work / "setup" / "device.txt").read_text()
        if not sound or not output:
            log = (self.work / "setup" / "device.log").read_text()
            print(
                "jax finds no device, or a package is missing; install what this names:", log, sep="\n", file=sys.stderr
            )
            return False
        self.report.device = json.loads(output.splitlines()[-1])
        print(output, flush=True)
        if self.report.device["platform"] == "cpu" and not self.arguments.rehearsal:
            print("jax sees a CPU alone; install its CUDA plugin, or say --rehearsal", file=sys.stderr)
            return False
        return True

    def jobs(self, stage: str, end: float) -> None:
        """Runs the jobs of a stage until its time is up."""
        given = self.arguments.photos.resolve(), self.scale
        rows = day_plan.checks(*given) if stage == "checks" else day_plan.speed(*given, self.arguments.vgg_weights)
        for job in rows:
            if (seconds := min(job.seconds, end - time.monotonic())) < SHORTEST:
                self.report.add(stage, job.name, "skipped: no time left", 0)
            else:
                self.run(stage, dataclasses.replace(job, seconds=seconds))
            self.report.publish()

    def run(self, stage: str, job: Job) -> bool:
        """Runs a job to its end, or until its time is up; gives whether it ended well."""
        begin = time.monotonic()
        process = self.start(stage, job)
        try:
            code = process.wait(max(job.seconds, 0))
            status = "ok" if code == 0 else f"failed: exit code {code}"
        except subprocess.TimeoutExpired:
            status = "cut off"
            _end(process, signal.SIGTERM, 3)
        self.report.add(stage, job.name, status, time.monotonic() - begin)
        print(f"{stage}: {job.name} {status}, {self.left():.0f} s left", flush=True)
        return status == "ok"

    def start(self, stage: str, job: Job) -> subprocess.Popen:
        """Starts a job, with NAME.txt and NAME.log of its stage's folder for what it prints and complains of."""
        folder = self.work / stage
        folder.mkdir(exist_ok=True)
        command = [part.replace("{folder}", str(folder)) for part in job.command]
        environment = self.environment | ({"JAX_PLATFORMS": job.platform} if job.platform else {})
        environment["XLA_FLAGS"] = " ".join([environment.get("XLA_FLAGS", ""), *job.xla_flags]).strip()
        with (folder / f"{job.name}.txt").open("a") as out, (folder / f"{job.name}.log").open("a") as log:
            # A session of its own, so that whatever it starts ends with it.
            process = subprocess.Popen(
                command, cwd=folder, stdout=out, stderr=log, env=environment, start_new_session=True
            )
        self._started.append(process)
        return process

    def close(self) -> None:
        """Ends what is still running, and removes what is not in the output."""
        for process in self._started:
            if process.poll() is None:
                _end(process, signal.SIGKILL, 0)
        shutil.rmtree(self.work, ignore_errors=True)

    def train(self, end: float) -> None:
        """Trains by the real command until the end, and exports the averaged weights on the way."""
        begin, run = time.monotonic(), self.work / "training" / "run"
        self.report.run = run
        given = self.arguments.photos.resolve(), self.scale, run, self.arguments.init_from
        process = self.start("training", day_plan.training(*given, self.report.images_per_second()))
        exported = begin
        try:
            while process.poll() is None and time.monotonic() < end - ENDING:
                time.sleep(0.5)
                if time.monotonic() - exported > self.scale.export_every and self._export(run, end - ENDING):
                    exported = time.monotonic()
            ended_early = process.poll() is not None
            _end(process, signal.SIGTERM, max(1.0, end - time.monotonic() - ENDING / 2))
        finally:
            if process.poll() is None:
                _end(process, signal.SIGKILL, 0)
        status = "ok" if process.returncode == 0 else f"failed: exit code {process.returncode}"
        if ended_early and process.returncode == 0:
            status = "failed: it ended before its time"
        self.report.add("training", "train", status, time.monotonic() - begin)
        self._export(run, end, ended=True)

    def _export(self, run: Path, end: float, *, ended: bool = False) -> bool:
        """Writes weights and curves, on the CPU as the training holds the GPU's memory; gives whether there were any.

        While the run goes on, those of its best checkpoint, which export looks up when it reads it: others come and go.
        In the end those of the last one, some seconds further than what was validated.
        """
        steps = [int(path.name) for path in (run / "checkpoints").glob("[0-9]*") if path.name.isdigit()]
        if not steps or (limit := end - time.monotonic()) < SHORTEST or (max(steps) == self._exported and not ended):
            return False
        flags = (f"--checkpoint={run}", f"--output={self.report.output}/weights.safetensors", "--dtype=float16")
        flags += (f"--terms={TERMS}", *((f"--step={max(steps)}",) if ended else ()))
        command = (sys.executable, "-m", "inpaint_jax", "export", *flags)
        if self.run("training", Job(f"export_{max(steps)}", limit, command, platform="cpu")):
            self._exported = max(steps)
        # At its end the run draws them itself.
        if not ended and (limit := min(30, end - time.monotonic())) > SHORTEST:
            self.run("training", Job("curves", limit, (sys.executable, "-c", CURVES.format(run)), platform="cpu"))
        self.report.publish()
        return True


def _end(process: subprocess.Popen, number: int, patience: float) -> None:
    """Sends a signal to a job, and after so many seconds ends it with all that it started."""
    if process.poll() is None:
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    with contextlib.suppress(ProcessLookupError):  # none of them is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="until everything has to be over")
    parser.add_argument("--photos", type=Path, help="a pack of pack_photos.py")
    parser.add_argument("--output", type=Path, help="a folder, which is made; see the top of the file for what it gets")
    parser.add_argument("--wheels", type=Path, help="folder of the wheels that --list_wheels names")
    parser.add_argument("--stages", type=lambda text: text.split(","), default=list(STAGES), help="in this order")
    parser.add_argument("--init_from", type=Path, help="weights.safetensors of an earlier day")
    parser.add_argument(
        "--vgg_weights", type=Path, help=".npz or .h5, so that timed steps have the paper's perceptual loss"
    )
    parser.add_argument("--rehearsal", action="store_true", help="on a CPU, everything small")
    parser.add_argument("--list_wheels", action="store_true", help="print what to carry, for pip download, and stop")
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"there is no stage {min(unknown)!r}; choose from {', '.join(STAGES)}")
    if not arguments.list_wheels:
        for name in ("photos", "output"):
            if getattr(arguments, name) is None:
                parser.error(f"--{name} is missing")
        for part in ("train", "val"):
            if not (arguments.photos / part).is_dir():
                parser.error(f"{arguments.photos} has no {part}/; give a pack of pack_photos.py")
        for name in ("wheels", "init_from", "vgg_weights"):
            if (path := getattr(arguments, name)) is not None:
                if not path.exists():
                    parser.error(f"--{name}: there is no {path}")
                setattr(arguments, name, path.resolve())
    return arguments


if __name__ == "__main__":
    sys.exit(main())
