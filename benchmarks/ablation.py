"""Trains the paper's model and its siblings with equal budgets, evaluates them together, and writes the comparison.

    python benchmarks/ablation.py --train=folder:PHOTOS/train --validation=folder:PHOTOS/val --output=runs/ablation
        [--study=attention|recipe] [--masks=folder:MASKS] [--vgg-weights=FILE] [--variants=mhtma,contextual,...]
        [--seeds=0,1] [--steps=400]
        [--size=96] [--width=8] [--batch-size=8] [--json=FILE]

Each run is train.py with a few fields changed, in OUTPUT/VARIANT_SEED; a command that was stopped goes on where it was.
OUTPUT then holds table.md, ablation.json, temperatures.png (Fig. 6) and the evaluation of all runs. With `--steps`
raised later, runs go on from where they ended.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hardware import describe

from inpaint_jax.runs import read_config
from inpaint_jax.visualize import temperature_curves
from inpaint_jax.writers import best_validation, read_metrics

REPOSITORY = Path(__file__).resolve().parents[1]

# What each variant changes, and the table of the paper that it answers; and what each part of the settings for small
# budgets is worth.
STUDIES = {
    "attention": {
        "mhtma": {},
        "single": {"model.attention": "single"},
        "contextual": {"model.attention": "contextual"},  # Table I
        "atma": {"model.attention": "atma"},  # Table I
        "leaky_relu": {"model.temperature_activation": "leaky_relu"},  # Fig. 6
        "wgan_gp": {"loss.adversarial": "wgan_gp"},  # Table II
    },
    "recipe": {
        "recipe": {},
        "constant_fill": {"model.fill": "constant"},
        "image_output": {"model.output": "image"},
        "no_skips": {"model.skips": False},
        "l1_relative": {"loss.l1": "relative"},
        "l1_mean": {"loss.l1": "mean"},
        "freeform_masks": {"data.masks": "freeform"},  # its hole PSNR is of such masks, too
        "no_zoom": {"data.zoom": 1.0},
        "no_average": {"optimizer.ema_decay": 0.0},
        "constant_rate": {"optimizer.schedule": "constant"},
        "no_clip": {"optimizer.clip_norm": 0.0},
        "fast_rate": {"optimizer.generator_learning_rate": 3e-3, "optimizer.beta2": 0.9, "optimizer.clip_norm": 0.0},
        "constant_temperature": {"model.constant_temperature": 0.7},
        "cold": {"model.constant_temperature": 0.001},  # where the temperatures of a long run end
        "critic": {"loss.adversarial_weight": 0.001},
    },
}
CONFIGS = {"attention": "configs/paris_streetview.py", "recipe": "configs/scenes.py"}

COMMON = {
    "data.workers": 1,
    "model.discriminator_width": 8,
    "model.discriminator_features": 128,
    "optimizer.discriminator_learning_rate": 1e-3,
    "train.checkpoint_every_steps": 100,
}
# As in docs/street.md: chosen there by shorter runs of the MHTMA model alone.
COMMONS = {
    "attention": COMMON | {"optimizer.generator_learning_rate": 1e-3, "loss.adversarial_weight": 0.001},
    "recipe": COMMON | {"optimizer.ema_decay": 0.99, "optimizer.warmup_steps": 50, "train.guesses": 0.0},
}
FIGURES = ("mae", "psnr", "ssim")


def main() -> None:
    """Runs everything that is missing, and writes the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--train", required=True, help="photos to train on, as in config.data.train")
    parser.add_argument("--validation", required=True, help="photos to validate and to evaluate on")
    parser.add_argument("--masks", default="generated", help="of the evaluation, as in evaluate.py")
    parser.add_argument("--vgg-weights", help="a file; '' trains without the perceptual loss")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--study", choices=STUDIES, default="attention")
    parser.add_argument("--variants", help="of the study, all by default")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    known = STUDIES[arguments.study]
    variants = arguments.variants.split(",") if arguments.variants else list(known)
    if unknown := set(variants) - set(known):
        parser.error(f"there is no variant {min(unknown)!r}; choose from {', '.join(known)}")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]

    names = [f"{variant}_{seed}" for seed in seeds for variant in variants]
    for name in names:
        train(name, arguments)
    evaluate(names, arguments)
    rows = summarise({variant: known[variant] for variant in variants}, seeds, arguments.output)
    table = to_markdown(rows)
    print(table)
    (arguments.output / "table.md").write_text(table)
    settings = {name: getattr(arguments, name) for name in ("steps", "size", "width", "batch_size")}
    settings |= COMMONS[arguments.study]
    result = {**describe(("jax", "flax")), "settings": settings, "seeds": seeds, "rows": rows}
    for path in (arguments.output / "ablation.json", arguments.json):
        if path:
            path.write_text(json.dumps(result, indent=2) + "\n")
    runs = {name: read_metrics(arguments.output / name) for name in names}
    temperature_curves(runs).savefig(arguments.output / "temperatures.png", dpi=80)


def train(name: str, arguments: argparse.Namespace) -> None:
    """One run by train.py; returns at once if it is complete."""
    variant, _, seed = name.rpartition("_")
    fields = {
        **COMMONS[arguments.study],
        **STUDIES[arguments.study][variant],
        "name": name,
        "seed": seed,
        "batch_size": arguments.batch_size,
        "data.train": arguments.train,
        "data.validation": arguments.validation,
        "data.test": arguments.validation,
        "data.image_size": arguments.size,
        "model.width": arguments.width,
        "train.max_steps": arguments.steps,
        "train.log_every_steps": min(10, arguments.steps),
    }
    if arguments.vgg_weights:
        fields["loss.vgg_weights"] = arguments.vgg_weights
    elif arguments.vgg_weights == "":
        fields["loss.perceptual_weight"] = 0.0
    call("train.py", f"--workdir={arguments.output / name}", f"--config={CONFIGS[arguments.study]}", **fields)


def evaluate(names: Sequence[str], arguments: argparse.Namespace) -> None:
    """All runs on the same photos and masks, by evaluate.py."""
    workdirs = ",".join(str(arguments.output / name) for name in names)
    # Other runs or more steps are another evaluation, which --resume must not take for this one.
    which = hashlib.sha256(" ".join([*names, str(arguments.steps)]).encode()).hexdigest()[:8]
    output = arguments.output / f"evaluation_{which}"
    flags = (f"--workdir={workdirs}", f"--output={output}", f"--data={arguments.validation}")
    call("evaluate.py", *flags, f"--masks={arguments.masks}", "--fid=off", "--resume", "--methods=mean")
    (arguments.output / "metrics.json").write_text((output / "metrics.json").read_text())


def call(script: str, *flags: str, **fields: Any) -> None:
    """Runs an entry script of the repository, and fails with it."""
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    subprocess.run([sys.executable, str(REPOSITORY / script), *flags, *overrides], cwd=REPOSITORY, check=True)


def summarise(variants: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], output: Path) -> list[dict[str, Any]]:
    """A row for every variant with what each seed gave, all of it of the best checkpoint."""
    evaluated = json.loads((output / "metrics.json").read_text())["rows"]
    overall = {row["method"]: row for row in evaluated if row["bin"] == "all"}
    rows = []
    for variant, changes in variants.items():
        runs = [f"{variant}_{seed}" for seed in seeds]
        best = {run: _best(output / run) for run in runs}
        each = {figure: [overall[run][figure] for run in runs] for figure in FIGURES}
        each["step"] = [best[run]["step"] for run in runs]
        each["hole_psnr"] = [best[run]["validation/hole_psnr"] for run in runs]
        each["temperatures"] = [
            [value for name, value in sorted(best[run].items()) if name.startswith("validation/temperature/")]
            for run in runs
        ]
        rows.append({"variant": variant, "changes": changes, **each})
    return rows


def _best(workdir: Path) -> Mapping[str, Any]:
    """The row of the checkpoint that evaluate.py takes."""
    return best_validation(read_metrics(workdir), read_config(workdir).train.select_by)


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of docs/: means over the seeds, with the range in brackets."""
    lines = [
        "| variant | PSNR ↑ | hole PSNR ↑ | SSIM ↑ | MAE ↓ | temperatures | of step |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [
            _cell(row["psnr"], "{:.3f}"),
            _cell(row["hole_psnr"], "{:.3f}"),
            _cell(row["ssim"], "{:.4f}"),
            _cell(row["mae"], "{:.4f}"),
        ]
        temperatures = "; ".join(", ".join(f"{t:.2g}" for t in run) for run in row["temperatures"])
        steps = ", ".join(str(step) for step in row["step"])
        lines.append(f"| {row['variant']} | {' | '.join(cells)} | {temperatures} | {steps} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float], form: str) -> str:
    mean = form.format(statistics.mean(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({form.format(min(values))} – {form.format(max(values))})"


if __name__ == "__main__":
    main()
