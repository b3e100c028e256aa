"""What gpu_day.py runs: stages with their boxes of time, and their jobs in order of worth, at two scales."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parent

STAGES = ("checks", "speed", "training")
SHORTEST = 5.0  # seconds; nothing is begun for less
PEAK = "--peak={folder}/peak.json"  # of the job with this name, so that nothing is measured twice
ENDING = 40.0  # seconds in which a training saves, and its weights are exported


@dataclasses.dataclass(frozen=True)
class Job:
    """A process with a limit of its own.

    Attributes:
        name: of its files.
        seconds: that it may take, if its stage has so many left.
        command: to run; {folder} is that of its stage.
        xla_flags: besides those of the environment.
        platform: that jax is told to use; the best one by default.
    """

    name: str
    seconds: float
    command: tuple[str, ...]
    xla_flags: tuple[str, ...] = ()
    platform: str | None = None


@dataclasses.dataclass(frozen=True)
class Scale:
    """How large everything is: the day's, and the rehearsal's."""

    shares: dict[str, float]  # of the whole time, at most `boxes`
    boxes: dict[str, float]
    patience: float = 1.0  # times the limits of the jobs
    size: int = 256
    width: int = 24
    batch: int = 32
    maps: str = "64"
    paper_batch: int = 16  # of the timed steps; the training reports its own speed
    batches: str = "16,1"
    inference: tuple[str, ...] = ("256x256,256x256x16", "1024x1024,512x512,2048x2048")
    repeats: int = 20
    validate_every: float = 20.0  # seconds
    export_every: float = 120.0
    images_per_second: float = 300.0  # before anything was measured


DAY = Scale(shares={"checks": 0.15, "speed": 0.25}, boxes={"checks": 90, "speed": 150})
REHEARSAL = Scale(
    shares={"checks": 0.4, "speed": 0.4},
    boxes={"checks": 1e9, "speed": 1e9},
    patience=5.0,
    size=64,
    width=8,
    batch=4,
    maps="16",
    paper_batch=2,
    batches="2,1",
    inference=("64x64,64x64x2", "128x128"),
    repeats=2,
    validate_every=4.0,
    export_every=20.0,
    images_per_second=10.0,
)


def divide(seconds: float, stages: Sequence[str], scale: Scale) -> dict[str, float]:
    """Seconds of every stage; the training has what the others leave. Without one they share all of it.

    Raises:
        SystemExit: there is too little for the training to begin and end.
    """
    if "training" not in stages:
        return {name: seconds * scale.shares[name] / sum(scale.shares[each] for each in stages) for name in stages}
    boxes = {name: min(scale.boxes[name], scale.shares[name] * seconds) for name in stages if name != "training"}
    boxes["training"] = seconds - sum(boxes.values())
    if boxes["training"] < 1.5 * ENDING:
        raise SystemExit(f"A training needs {1.5 * ENDING:.0f} s of its own; give more --minutes or fewer --stages.")
    return boxes


def checks(photos: Path, scale: Scale) -> list[Job]:
    """By gpu_checks.py."""
    command = (sys.executable, str(BENCHMARKS / "gpu_checks.py"), f"--photos={photos}")

    def job(name: str, seconds: float, *xla_flags: str) -> Job:
        flags = (f"--checks={name}", f"--json={{folder}}/{name}.json")
        return Job(name, scale.patience * seconds, (*command, *flags), xla_flags)

    # Which algorithm is fastest need not be tried out for a few steps.
    quick = "--xla_gpu_autotune_level=0"
    return [job("attention", 45), job("step", 60, quick), job("resume", 90, quick, "--xla_gpu_deterministic_ops=true")]


def speed(photos: Path, scale: Scale, vgg_weights: Path | None) -> list[Job]:
    """By the other benchmarks, of whose settings each job has few, so that little is lost with one that is cut off."""

    def job(name: str, seconds: float, script: str, *flags: str) -> Job:
        flags += (f"--json={{folder}}/{name}.json",) if name == "peak" else (f"--json={{folder}}/{name}.json", PEAK)
        return Job(name, scale.patience * seconds, (sys.executable, str(BENCHMARKS / script), *flags))

    photo = f"--photo={min((photos / 'val').iterdir())}"
    step = (f"--folder={photos / 'train'}", f"--vgg-weights={vgg_weights or ''}", f"--size={scale.size}")
    step += (f"--batch-sizes={scale.paper_batch}", f"--width={scale.width}", "--rounds=1", f"--steps={scale.repeats}")
    if scale is REHEARSAL:
        step += ("--discriminator-width=8", "--discriminator-features=64")
    fill = (photo, f"--width={scale.width}", f"--repeats={scale.repeats}", "--time-limit=60")
    maps = (f"--sizes={scale.maps}", f"--batches={scale.batches}", f"--repeats={scale.repeats}")
    return [
        job("peak", 40, "machine_peak.py"),
        job("step_bfloat16", 90, "train_step.py", "--dtypes=bfloat16", *step),
        job("filling_bfloat16", 50, "inpainting.py", "--dtype=bfloat16", f"--sizes={scale.inference[0]}", *fill),
        job("attention_bfloat16", 50, "attention.py", "--dtype=bfloat16", *maps, "--plot={folder}/attention.png"),
        job("filling_large", 60, "inpainting.py", "--dtype=bfloat16", f"--sizes={scale.inference[1]}", *fill),
        job("step_losses", 90, "train_step.py", "--adversarial=hinge,wgan_gp", *step),
        job("attention_float32", 50, "attention.py", *maps),
        job("filling_float32", 60, "inpainting.py", f"--sizes={scale.inference[0]}", *fill),
    ]


def training(photos: Path, scale: Scale, run: Path, init_from: Path | None, images_per_second: float | None) -> Job:
    """The real command with the recipe of configs/scenes.py at the day's size; how long it takes is not its own matter.

    The recipe's cosine needs to know the last step from the start, which nobody does before the speed of a compiled
    step is known; a second start with the right number would compile all of it once more. So the rate stays constant
    after its warm-up, and the average over some thousand steps takes the place of a falling one. That also lets a
    later day go on.

    Args:
        photos: a pack.
        scale: how large everything is.
        run: the workdir.
        init_from: weights to start from.
        images_per_second: as measured; it only decides how often the run validates.
    """
    steps_per_second = (images_per_second or scale.images_per_second) / scale.batch
    count = sum(1 for _ in (photos / "train").iterdir())
    every = max(1, round(scale.validate_every * steps_per_second))
    fields = {
        "name": "gpu_day",
        "dtype": "bfloat16",
        "batch_size": scale.batch,
        "data.train": f"folder:{photos / 'train'}",
        "data.validation": f"folder:{photos / 'val'}",
        "data.test": f"folder:{photos / 'val'}",
        "data.image_size": scale.size,
        "data.zoom": 1.06,  # up to the 272 pixels of the photos
        "data.workers": max(1, min(14, (os.cpu_count() or 2) - 2)),
        "data.validation_limit": min(64, 4 * scale.batch),
        "model.width": scale.width,
        "optimizer.schedule": "constant",
        "optimizer.warmup_steps": 200,
        "optimizer.ema_decay": 0.999,
        "train.max_steps": 10**9,  # the time ends it
        "train.patience_epochs": 1e9,
        "train.validate_every_epochs": every * scale.batch / count,
        "train.checkpoint_every_steps": every,
        "train.log_every_steps": max(1, every // 10),
        "train.samples": 4,
    }
    command = (sys.executable, "-m", "inpaint_jax", "train", "--config=scenes", f"--workdir={run}")
    start = (f"--init_from={init_from}",) if init_from else ()
    return Job("train", 0, (*command, *start, *(f"--config.{name}={value}" for name, value in fields.items())))
