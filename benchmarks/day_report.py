"""What a day on a GPU leaves: gpu_day.py's figures, tables and pictures in a handful of files."""

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What the day is to reach, and what the paper reports of two RTX 3090 (training) and one (filling).
GOALS = {
    "training, images a second": ("at least 600", "19.1"),
    "training, share of the matrix product's peak": ("at least 35 %", ""),
    "filling 256 x 256, milliseconds": ("at most 2", "100"),
    "filling 1024 x 1024, seconds": ("at most 0.3", ""),
}
_TAIL = 60  # lines of a job's output in the summary
_ZIP_SIZE = 14 * 2**20  # bytes of pictures, whose newest count most; all else is small


class Report:
    """Collects what the jobs did, and writes it all after every one.

    Args:
        output: the folder that is handed out.
        work: the folder with one for every stage, where each job has NAME.txt, NAME.log and maybe NAME.json.
        rehearsal: whether the numbers mean nothing.

    Attributes:
        boxes: stage -> its seconds.
        device: what it ran on.
        run: workdir of the training.
    """

    def __init__(self, output: Path, work: Path, *, rehearsal: bool):
        self.output, self._work, self._rehearsal = output.resolve(), work, rehearsal
        self.boxes: dict[str, float] = {}
        self.device: dict[str, Any] = {}
        self.run: Path | None = None
        self._entries: list[dict[str, Any]] = []
        self.output.mkdir(parents=True, exist_ok=True)

    def add(self, stage: str, job: str, status: str, seconds: float, trace: str = "") -> None:
        """Notes how a job ended: "ok", "cut off", "skipped: …" or "failed: …"."""
        if trace:
            (self._work / stage).mkdir(exist_ok=True)
            with (self._work / stage / f"{job}.log").open("a") as log:
                log.write(trace)
        self._entries.append({"stage": stage, "job": job, "status": status, "seconds": round(seconds, 1)})

    def failures(self) -> list[str]:
        """Names of the jobs that failed; one that was cut off did not."""
        return [entry["job"] for entry in self._entries if entry["status"].startswith("failed")]

    def images_per_second(self) -> float | None:
        """Of the training step in bfloat16, if it was measured."""
        return self._reached().get("training, images a second")

    def publish(self) -> None:
        """Writes all files of the output, each in one piece."""
        stages = [path for path in self._work.iterdir() if any(e["stage"] == path.name for e in self._entries)]
        figures = {e["job"]: found for e in self._entries if (found := self._figures(e["stage"], e["job"]))}
        summary = {
            "rehearsal": self._rehearsal,
            "device": self.device,
            "boxes": self.boxes,
            "jobs": self._entries,
            "reached": self._reached(),
            "figures": figures,
            "training": self._training_lines(),
        }
        _write(self.output / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
        _write(self.output / "summary.md", self.text().encode())
        for stage in stages:
            if stage.name != "setup":
                _write(self.output / f"{stage.name}.zip", self._zip(stage))
        if sheets := self._sheets():
            _write(self.output / "sheet.jpg", _as_jpeg(sheets[-1]))
        if self.run and (self.run / "curves.png").exists():
            _write(self.output / "curves.png", (self.run / "curves.png").read_bytes())

    def text(self) -> str:
        """The summary in Markdown."""
        kind = "A rehearsal: the numbers mean nothing. " if self._rehearsal else ""
        boxes = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in self.boxes.items())
        lines = ["# A day on a GPU", "", f"{kind}Device: {self.device.get('device', 'unknown')}. Time: {boxes}.", ""]
        lines += ["| | goal | paper | here |", "|---|---|---|--:|"]
        reached = self._reached()
        lines += [f"| {name} | {goal} | {paper} | {reached.get(name, '')} |" for name, (goal, paper) in GOALS.items()]
        lines += ["", "| stage | job | status | seconds |", "|---|---|---|--:|"]
        lines += [f"| {e['stage']} | {e['job']} | {e['status']} | {e['seconds']} |" for e in self._entries]
        for row in self._training_lines():
            lines += ["", f"Validation at step {row['step']}: {json.dumps(row)}"]
        for entry in self._entries:
            ending = ".log" if entry["status"].startswith("failed") else ".txt"
            file = self._work / entry["stage"] / f"{entry['job']}{ending}"
            shown = file.read_text(errors="replace").splitlines()[-_TAIL:] if file.exists() else []
            if shown:
                lines += ["", f"## {entry['stage']}: {entry['job']}", "", "```", *shown, "```"]
        return "\n".join(lines) + "\n"

    def _reached(self) -> dict[str, float]:
        """The figures beside `GOALS`, as far as they were measured."""
        found = {}
        steps = self._figures("speed", "step_bfloat16").get("rows", [])
        if steps:
            best = max(steps, key=lambda row: row["images_per_second"])
            names = [*GOALS]
            found |= {names[0]: best["images_per_second"], names[1]: best["share_of_matrix_peak"]}
        for job in ("filling_bfloat16", "filling_large"):
            for row in self._figures("speed", job).get("sizes", []):
                median = row["seconds"]["median"]
                if (row["size"], row["batch_size"]) == ("256x256", 1):
                    found["filling 256 x 256, milliseconds"] = round(1000 * median, 2)
                if row["size"] == "1024x1024":
                    found["filling 1024 x 1024, seconds"] = median
        return found

    def _training_lines(self) -> list[dict[str, Any]]:
        """The first and the last validation of the training."""
        file = self.run / "metrics.jsonl" if self.run else None
        if not file or not file.exists():
            return []
        text = file.read_text()
        rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        rows = [row for row in rows if "validation/loss" in row]
        return rows[:1] + rows[1:][-1:]

    def _figures(self, stage: str, job: str) -> dict[str, Any]:
        file = self._work / stage / f"{job}.json"
        try:
            return json.loads(file.read_text()) if file.exists() else {}
        except ValueError:  # cut off while it was written
            return {}

    def _sheets(self) -> list[Path]:
        return sorted((self.run / "samples").glob("*.png")) if self.run else []

    def _zip(self, stage: Path) -> bytes:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(file for file in stage.rglob("*") if file.is_file() and _is_small(file, stage)):
                archive.write(file, file.relative_to(stage))
            if self.run and stage == self.run.parent:
                size = 0
                for sheet in self._newest_first():
                    picture = _as_jpeg(sheet)
                    if (size := size + len(picture)) > _ZIP_SIZE:
                        break
                    archive.writestr(f"samples/{sheet.stem}.jpg", picture)
        return content.getvalue()

    def _newest_first(self) -> Iterator[Path]:
        """The first sheet, then the others from the last one on."""
        sheets = self._sheets()
        yield from sheets[:1] + sheets[:0:-1]


def _is_small(file: Path, stage: Path) -> bool:
    """Neither checkpoints nor TensorBoard's events, and no sheet, which would be a PNG."""
    parts = file.relative_to(stage).parts
    return not {"checkpoints", "samples"} & set(parts) and "tfevents" not in file.name


def _as_jpeg(picture: Path) -> bytes:
    from PIL import Image  # --list_wheels needs nothing but Python

    content = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").save(content, "JPEG", quality=88)
    return content.getvalue()


def _write(path: Path, content: bytes) -> None:
    """In one piece: the day may end in the midst of it."""
    fresh = path.with_name(f".{path.name}.tmp")
    fresh.write_bytes(content)
    os.replace(fresh, path)
