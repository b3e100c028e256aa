"""The page: one HTML document that holds everything, runs no scripts and loads nothing."""

import importlib.resources
import itertools
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from inpaint_jax import __version__, visualize
from inpaint_jax.files import write_file
from inpaint_jax.report.facts import Evaluation, Run, gather, thin_out
from inpaint_jax.report.pictures import Picture, panels, photo_sheet

_log = logging.getLogger("inpaint_jax")

_SHEETS = 9
_VALIDATIONS = 12
_STARTS = 8
_VALIDATION_COLUMNS = {
    "validation/loss": ("loss", "{:.4f}"),
    "validation/psnr": ("PSNR (dB)", "{:.2f}"),
    "validation/hole_psnr": ("in the hole", "{:.2f}"),
    "validation/hole_psnr_coarse": ("coarse stage", "{:.2f}"),
    "validation/hole_psnr_unguided": ("without sketches", "{:.2f}"),
    "validation/mae": ("MAE (%)", "{:.3f}"),
}
# The page may use its own style and pictures, and may load nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(workdir: str | Path, output: str | Path | None = None, evaluations: Sequence[str | Path] = ()) -> Path:
    """Writes the report of a run.

    Args:
        workdir: Workdir of the run.
        output: File to write; WORKDIR/report.html by default.
        evaluations: see `facts.gather`.

    Returns:
        Path of the file.

    Raises:
        UserError: See `facts.gather`.
        OSError: The file cannot be written.
    """
    output = Path(output) if output else Path(workdir) / "report.html"
    run = gather(workdir, evaluations)
    content = render(run).encode("utf-8", "replace")  # a file name may hold what UTF-8 cannot
    write_file(output, content)
    _log.info(
        "Wrote %s (%.1f MiB): %d log lines, %d evaluation(s).",
        output,
        len(content) / 2**20,
        len(run.rows),
        len(run.evaluations),
    )
    return output


def render(run: Run) -> str:
    """The report as one HTML document.

    Args:
        run: The run, see `facts.gather`. Its files are opened for the pictures.
    """
    sections = {
        "curves": ("Curves", _curves(run)),
        "validation": ("Validation", _validation(run)),
        "evaluation": ("Evaluation", _evaluations(run)),
        "config": ("Config", _config(run)),
        "environment": ("Hardware and versions", _environments(run)),
    }
    title = escape(f"{run.name} · {run.folder}" if run.name != run.folder else run.name)
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, (heading, _) in sections.items())
    body = "\n".join(
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{heading}</h2>\n{content}\n</section>'
        for name, (heading, content) in sections.items()
    )
    style = importlib.resources.files("inpaint_jax.report").joinpath("style.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{escape(run.state())}</p>
<nav aria-label="Sections">{links}</nav>
{_tiles(run)}
</header>
<main>
{body}
</main>
<footer><p class="soft">Written by inpaint_jax {escape(__version__)} from the files of the workdir.</p></footer>
</body>
</html>
"""


def _tiles(run: Run) -> str:
    """The figures that a reader looks for first."""
    tiles = []
    if run.rows:
        last = run.rows[-1]
        tiles.append(("steps", f"{last['step']:,}", f"epoch {last['epoch']:.1f}"))
    if best := run.best:
        which = {"loss": "lowest", "last": "last"}.get(run.select_by, f"best by {run.select_by}")
        at = f"at step {best['step']:,}, the {which}"
        tiles.append(("validation loss", f"{best['validation/loss']:.4f}", at))
        if (psnr := best.get("validation/hole_psnr")) is not None:
            bar = best.get("validation/hole_psnr_mean_fill")
            tiles.append(
                (
                    "PSNR in the hole",
                    f"{psnr:.2f} dB",
                    f"at that step; mean colour {bar:.2f} dB" if bar is not None else "at that step",
                )
            )
    if heads := next((found for row in reversed(run.rows) if (found := _temperatures(row))), None):
        tiles.append(
            ("temperatures", " · ".join(f"{value:.3g}" for value in heads.values()), "of the heads, last logged")
        )
    if (seconds := run.training_seconds()) is not None:
        tiles.append(("time of the steps", _duration(seconds), f"{run.speed():.3g} images/s, median"))
    if (peak := run.memory_peak()) is not None:
        tiles.append(("host memory", f"{peak:.1f} GiB", "peak of the main process"))
    for network, count in run.parameters.items():
        tiles.append((network.lower(), f"{count / 1e6:.2f} M", "parameters"))
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd>{escape(note)}</dd></div>"
        for name, value, note in tiles
    )
    return f'<dl class="tiles">{cells}</dl>' if tiles else ""


def _temperatures(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name.startswith("temperature/") and value is not None}


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _curves(run: Run) -> str:
    pictures = panels(visualize.training_curves(run.rows)) if run.rows else []
    return _plots(pictures) if pictures else _nothing("No step is logged yet.")


def _validation(run: Run) -> str:
    if not run.validations and not run.sheets:
        return _nothing("The run has not been validated yet.")
    return _validation_table(run) + _sheets(run)


def _validation_table(run: Run) -> str:
    rows = run.validations
    columns = {field: about for field, about in _VALIDATION_COLUMNS.items() if any(field in row for row in rows)}
    if not columns:
        return ""
    best = [] if run.best is None else [rows.index(run.best)]
    chosen = thin_out(len(rows), _VALIDATIONS, always=best)
    lines = []
    for position in chosen:
        row = rows[position]
        cells = {field: _number(row.get(field), form) for field, (_, form) in columns.items()}
        if position in best:
            cells["validation/loss"] = f"<strong>{cells['validation/loss']}</strong>"
        step = f"{row['step']:,}" + (" (best)" if position in best else "")
        lines.append(_table_row(step, [f"{row['epoch']:.1f}", *cells.values()]))
    head = _table_head("step", ["epoch", *(heading for heading, _ in columns.values())])
    return _table("Validation over training", head, lines) + _left_out(len(chosen), len(rows), "validations")


def _sheets(run: Run) -> str:
    """The sheets over time, and the names of those that cannot be read."""
    if not run.sheets:
        return ""
    losses = {row["step"]: row for row in run.validations}
    steps = [step for step, _ in run.sheets]
    best = run.best["step"] if run.best else None
    always = [steps.index(best)] if best in steps else []
    chosen = thin_out(len(steps), _SHEETS, always)
    figures, broken = [], []
    for position in chosen:
        step, path = run.sheets[position]
        alt = f"Validation photos at step {step:,}: input with its holes, coarse result, completed image, truth"
        if (picture := photo_sheet(path, alt)) is None:
            broken.append(path.name)
            continue
        caption = f"<strong>step {step:,}</strong>"
        if psnr := losses.get(step, {}).get("validation/hole_psnr"):
            caption += f", {psnr:.2f} dB in the hole"
        figures.append(_figure(picture, caption + (" (best)" if step == best else "")))
    text = f'<h3>Sheets</h3>\n<div class="sheets">{"".join(figures)}</div>'
    text += _left_out(len(chosen), len(steps), "sheets", ", all of them in samples/")
    return text + (_nothing(f"Unreadable: {', '.join(broken)}.") if broken else "")


def _left_out(shown: int, count: int, what: str, where: str = "") -> str:
    if shown == count:
        return ""
    return _nothing(
        f"{shown} of {count} {what} are shown, more of them from the start{where}; {count - shown} left out."
    )


def _evaluations(run: Run) -> str:
    text = "".join(_evaluation(evaluation) for evaluation in run.evaluations)
    text = text or _nothing("No finished evaluation (inpaint-jax evaluate --workdir=… --output=…) was found.")
    return text + "".join(_nothing(remark) for remark in run.remarks)


def _evaluation(evaluation: Evaluation) -> str:
    blocks = []
    for heading, block in itertools.groupby(evaluation.lines, key=lambda line: line.heading):
        lines = []
        for line in block:
            cells = [
                "–" if text is None else f"<strong>{escape(text)}</strong>" if text == line.best else escape(text)
                for text in line.cells.values()
            ]
            lines.append(_table_row(line.bin, [str(line.count), *cells], "all" if line.bin == "all" else ""))
        head = _table_head("mask ratio", ["images", *line.cells])
        blocks.append(_table(heading, head, lines))
    parts = [f"<h3>{escape(evaluation.name)}</h3>", f"<p>{escape(evaluation.about)}.</p>"]
    parts.append(f'<div class="tables">{"".join(blocks)}</div>')
    parts += [_nothing(note) for note in evaluation.notes]
    if any(row["bin"].startswith("(") for row in evaluation.rows):
        parts.append(_plots(panels(visualize.metrics_by_ratio(evaluation.rows))))
    methods = ", ".join(dict.fromkeys(str(row["method"]) for row in evaluation.rows))
    alt = f"Photos of the evaluation: truth, input with its hole, and completed by {methods}"
    sheet = evaluation.folder / "sheet.png"
    if sheet.exists() and (picture := photo_sheet(sheet, alt)):
        parts.append(f'<div class="wide">{_figure(picture, "Truth, input, and every method.")}</div>')
    return "\n".join(parts)


def _config(run: Run) -> str:
    return _fields({section or "general": fields for section, fields in run.config.items() if fields})


def _environments(run: Run) -> str:
    """Every environment once, with the steps at which the run was started in it."""
    starts: dict[str, list[Mapping[str, Any]]] = {}
    for line in run.environments:
        same = {name: value for name, value in line.items() if name not in ("step", "time")}
        starts.setdefault(json.dumps(same), []).append(line)
    if not starts:
        return _nothing("Not recorded: the run has not started, or did so before environment.jsonl was written.")
    groups = {}
    for text, lines in starts.items():
        steps = ", ".join(f"{line['step']:,}" for line in lines[:_STARTS]) + (" …" if len(lines) > _STARTS else "")
        environment = json.loads(text)
        versions = environment.pop("versions", {})
        groups[f"from step {steps}"] = {"first started": lines[0].get("time")} | environment | versions
    return _fields(groups)


def _fields(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """Names and values, with a box for each group."""
    boxes = []
    for heading, fields in groups.items():
        pairs = "".join(f"<dt>{escape(str(name))}</dt><dd>{_value(value)}</dd>" for name, value in fields.items())
        boxes.append(f"<section><h3>{escape(str(heading))}</h3><dl>{pairs}</dl></section>")
    return f'<div class="fields">{"".join(boxes)}</div>'


def _value(value: Any) -> str:
    if value is None:
        return '<span class="soft">none</span>'
    return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _plots(pictures: Iterable[Picture]) -> str:
    return f'<div class="plots">{"".join(_figure(picture) for picture in pictures)}</div>'


def _figure(picture: Picture, caption: str = "") -> str:
    """A figure; the caption is HTML."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    size = f'width="{picture.width}" height="{picture.height}"'
    return f'<figure><img src="{picture.uri}" alt="{escape(picture.alt)}" {size}>{below}</figure>\n'


def _table(caption: str, head: str, lines: Sequence[str]) -> str:
    # A wide table scrolls in its box, also by keyboard; the page itself never scrolls sideways.
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption>{head}<tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def _table_head(first: str, others: Iterable[str]) -> str:
    cells = "".join(f'<th scope="col">{escape(text)}</th>' for text in (first, *others))
    return f"<thead><tr>{cells}</tr></thead>"


def _table_row(first: str, cells: Iterable[str], kind: str = "") -> str:
    """A row of a table; the cells are HTML."""
    marked = f' class="{kind}"' if kind else ""
    return f'<tr{marked}><th scope="row">{escape(first)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'


def _nothing(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>\n'
