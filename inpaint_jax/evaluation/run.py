"""The run over a data set: every image with its mask through every method, and the results.

    data + masks -> pairs in bins -> each method -> scores of each image -> means by bin -> tables, plot, sheet

The work goes bin by bin and batch by batch. Its state is kept in unfinished.npz, so that a stopped run continues after
the last batch that was saved.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from inpaint_jax import __version__, metrics, visualize
from inpaint_jax.config import Config, Data
from inpaint_jax.data.images import Resize, UnreadableImage, crop_corner, cut_square, resize_only
from inpaint_jax.data.pipeline import Batch, NoReadableImages, check_readable, evaluation_batches
from inpaint_jax.data.sketches import sketch_square
from inpaint_jax.data.sources import ImageSource, open_source
from inpaint_jax.errors import UserError
from inpaint_jax.evaluation import fid, output, tables
from inpaint_jax.evaluation.methods import NAMES as METHOD_NAMES
from inpaint_jax.evaluation.methods import Methods
from inpaint_jax.evaluation.methods import check as check_method
from inpaint_jax.evaluation.pairs import Bin, ChosenImages, ChosenSketches, Pairing, fingerprint, pair
from inpaint_jax.evaluation.scores import ALL, summarise
from inpaint_jax.evaluation.state import RunState
from inpaint_jax.features import inception
from inpaint_jax.features.weights import WeightsUnavailable
from inpaint_jax.inference.inpainter import Inpainter
from inpaint_jax.metrics import GaussianStatistics
from inpaint_jax.models import find_model, model_name
from inpaint_jax.nets.fill import HOLE_COLOUR
from inpaint_jax.sketching.store import SketchStore

_log = logging.getLogger("inpaint_jax")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to evaluate on, and how.

    Attributes:
        data: Photos, as in configs; None takes config.data.test.
        masks: "folder:PATH", "generated" (strokes that hit the bins' ratios) or "freeform" (training masks).
        pairing: "every_bin", each image once in each bin; or "once", each image with one mask.
        classical: names of classical methods to run beside the models.
        size: side of the images; None takes config.data.image_size.
        sketches: Folder of `inpaint-jax sketch` with the sketches of `data`, for models that are guided by sketches.
            None or "none" runs them without; that is an error for a model that was never trained without sketches.
        retouch: whether models fill as users' photos are filled, see `inference.retouching`, without sketches.
        limit: take only the first images.
        seed: Seed of the masks and of the choice of pictures.
        fid: "auto", with the Inception weights of the cache or a download; "off"; or the path of the weights.
        batch_size: Images at a time.
        workers: Processes that read images, and as many again for classical methods.
        samples: Rows of the picture sheet.
        save_images: Whether to write every completed image.
        resume: Continue a run that was stopped.
        save_every_seconds: How often to save the state for a resume.
    """

    data: str | None = None
    masks: str = "generated"
    pairing: Pairing = "every_bin"
    classical: Sequence[str] = ()
    size: int | None = None
    sketches: str | None = None
    retouch: bool = False
    limit: int | None = None
    seed: int = 0
    fid: str = "auto"
    batch_size: int = 8
    workers: int = 2
    samples: int = 6
    save_images: bool = False
    resume: bool = False
    save_every_seconds: float = 60.0


def evaluate(
    models: Sequence[str | Path],
    output_dir: str | Path,
    settings: Settings,
    config: Config | None = None,
    inception_params: Any = None,
) -> list[dict[str, Any]]:
    """Evaluates trained models and classical methods on the same images and masks.

    Args:
        models: Workdirs of training runs, or exported files; empty to evaluate classical methods only.
        output_dir: Folder for metrics.json, metrics.csv, table.md, images.csv (every image's scores),
            metrics_by_ratio.png, sheet.png and, if asked for, images/.
        settings: What to evaluate on, and how.
        config: Names data and size if the settings do not; that of the first model by default.
        inception_params: Parameters of `features.inception`, in place of those that `settings.fid` names. The distance
            is the FID of the literature only with the published weights.

    Returns:
        The rows of metrics.json: method, bin, count, mae (percent), mae_relative, psnr (dB), psnr_infinite, ssim,
        fid, fid_note.

    Raises:
        UserError: Settings make no sense; a model, images, masks, sketches or the Inception weights are missing or
            damaged, which may show only during the run; or output_dir holds another evaluation, or an unfinished one
            without `resume`.
    """
    output_dir = Path(output_dir)
    plan = _prepare(models, settings, config, inception_params)
    unfinished = output_dir / "unfinished.npz"
    if settings.resume and not unfinished.exists() and output.is_finished(output_dir, plan.identity):
        _log.info("Nothing to do: %s holds this evaluation, finished.", output_dir)
        return output.read_rows(output_dir)
    state = RunState.open(unfinished, plan.identity, settings.resume)
    output.check_not_of_another(output_dir, plan.identity)
    output_dir.mkdir(parents=True, exist_ok=True)

    settings = plan.settings
    output.withdraw(output_dir)
    with (
        Methods(settings.classical, plan.models, settings.workers, as_photos=settings.retouch) as methods,
        logging_redirect_tqdm(),
    ):
        run = _Run(plan, methods, state, output_dir)
        rows = run.to_the_end()
        samples = run.samples()
    sheet = visualize.image_sheet(samples) if samples else None
    output.write(output_dir, plan.identity, rows, state.scores, sheet)
    state.forget()
    _log.info("%s\n%s", output_dir / "table.md", tables.to_markdown(rows))
    return rows


@dataclasses.dataclass(frozen=True)
class _FullSettings(Settings):
    """Settings with data and size filled in; the defaults are there because those of a base class cannot be undone."""

    data: str = ""
    size: int = 0


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Everything that a run works with, opened and checked.

    Attributes:
        settings: What to evaluate on, and how.
        resize: How images are brought to the size.
        source: All images.
        bins: The pairs of image and mask.
        models: name -> Inpainter.
        sketches: Sketches of all images, or None.
        features: Features of the FID, or None.
        fid_note: Why there are no features.
        identity: All that the figures depend on, in JSON types.
    """

    settings: _FullSettings
    resize: Resize
    source: ImageSource
    bins: Sequence[Bin]
    models: Mapping[str, Inpainter]
    sketches: SketchStore | None
    features: fid.FeatureExtractor | None
    fid_note: str | None
    identity: dict[str, Any]


def _prepare(models: Sequence[str | Path], settings: Settings, config: Config | None, inception_params: Any) -> _Plan:
    inpainters = _load(models)
    if config is None and inpainters:
        config = next(iter(inpainters.values())).config
    data = Data() if config is None else config.data
    settings = _complete(settings, data, known=config is not None)
    for name in settings.classical:
        check_method(name)
    if not inpainters and not settings.classical:
        raise UserError("There is nothing to evaluate; give a --workdir, or --methods.")
    if settings.retouch and (not inpainters or settings.sketches not in (None, "none")):
        raise UserError("--retouch is for models (--workdir) without --sketches; leave it out.")
    if inception_params is None:
        features, fid_note = _open_inception(settings.fid)
    else:
        features, fid_note = fid.FeatureExtractor(inception_params), None
    source = open_source(settings.data)
    check_readable(source, settings.limit)
    bins = pair(
        source,
        settings.masks,
        size=settings.size,
        seed=settings.seed,
        pairing=settings.pairing,
        limit=settings.limit,
        progress=lambda items: tqdm(items, desc="measuring masks", unit="mask", disable=None, leave=False),
    )
    resize = data.resize
    identity = _identity(settings, resize, inpainters, source, bins, features)
    sketches = _open_sketches(settings, resize, inpainters, source)
    if settings.retouch:
        identity["retouch"] = True
    if sketches is not None:  # no entry without sketches, so that old evaluations keep their identity
        identity["sketches"] = {**sketches.settings, "digest": sketches.digest}
    return _Plan(settings, resize, source, bins, inpainters, sketches, features, fid_note, identity)


class _Run:
    """The loop over bins and batches."""

    def __init__(self, plan: _Plan, methods: Methods, state: RunState, output_dir: Path):
        self.settings = plan.settings
        self.resize: Resize = plan.resize
        self.source = plan.source
        self.bins = plan.bins
        self.sketches = plan.sketches
        self.features = plan.features
        self.fid_note = plan.fid_note
        self.methods = methods
        self.state = state
        self.output_dir = output_dir
        self._skipped: dict[str, str] = {}

    def to_the_end(self) -> list[dict[str, Any]]:
        """Does the remaining work, and returns the table."""
        if self.features and not self.state.truth:
            self.state.truth = self._truth(self.features)
        total = sum(len(part.images) for part in self.bins)
        _log.info(
            "%d pairs of image and mask in %d bins; methods: %s", total, len(self.bins), ", ".join(self.methods.names)
        )
        state = self.state
        done = sum(len(part.images) for part in self.bins[: state.bin]) + state.batches * self.settings.batch_size
        with tqdm(initial=min(done, total), total=total, unit="pair", disable=None) as bar:
            while state.bin < len(self.bins):
                part = self.bins[state.bin]
                bar.set_description(part.label)
                try:
                    self._one_bin(part, bar)
                except NoReadableImages as error:
                    _log.warning("Bin %s stays empty: %s", part.label, error)
                self._close_bin(part)
                _log.info("Bin %s done.", part.label)
        labels = [part.label for part in self.bins]
        if self._skipped:
            _log.warning("%d unreadable image(s) left out: %s", len(self._skipped), ", ".join(self._skipped))
        distances = dict(state.distances)
        if state.truth:
            for name in self.methods.names:
                distances[name, ALL] = fid.distance(state.statistics_of(name, ALL), state.truth)
        unknown = {"fid": None, "fid_note": self.fid_note}
        distances = {
            (name, label): distances.get((name, label), unknown)
            for name in self.methods.names
            for label in (*labels, ALL)
        }
        return summarise(state.scores, self.methods.names, labels, distances)

    def samples(self) -> dict[str, np.ndarray]:
        """Truth, input and every method for a seeded choice of pairs, spread over the bins; empty for no samples."""
        rng = np.random.default_rng(self.settings.seed)
        chosen = []
        scored = {row["bin"] for row in self.state.scores.rows}
        bins = [part for part in self.bins if part.label in scored]
        for number in range(self.settings.samples):
            part = bins[number * len(bins) // self.settings.samples]
            for index in rng.permutation(len(part.images)).tolist():
                try:
                    image, sketch = self._sample(part, index)
                except UnreadableImage:
                    continue
                chosen.append((image, part.masks.draw(rng, index).mask, sketch))
                break
        if not chosen:
            return {}
        images, masks, sketches = (np.stack(parts) for parts in zip(*chosen))
        sketches = None if self.sketches is None else sketches
        hole = np.rint(255 * np.array(HOLE_COLOUR)).astype(np.uint8)
        return {
            "truth": images,
            "input": visualize.network_input(images, masks, hole, sketches),
            **self.methods(images, masks, sketches),
        }

    def _sample(self, part: Bin, index: int) -> tuple[np.ndarray, np.ndarray]:
        """An image of a bin, uint8 [size, size, 3], and its sketch, bool [size, size], blank if there is none.

        Raises:
            UnreadableImage: The image cannot be read.
        """
        size = self.settings.size
        image = resize_only(part.images[index], size, self.resize)
        shape = image.shape[:2]
        corner = crop_corner(shape, size)
        if self.sketches is None:
            sketch = np.zeros((size, size), bool)
        else:
            sketch = sketch_square(self.sketches, part.images.numbers[index], shape, size, corner)
        return cut_square(image, size, corner), sketch

    def _truth(self, features: fid.FeatureExtractor) -> GaussianStatistics:
        count = min(len(self.source), self.settings.limit or len(self.source))
        images = ChosenImages(self.source, tuple(range(count)))
        return fid.truth_statistics(
            features,
            images,
            size=self.settings.size,
            resize=self.resize,
            batch_size=self.settings.batch_size,
            workers=self.settings.workers,
            progress=lambda items, what: tqdm(items, desc=what, unit="batch", disable=None, leave=False),
        )

    def _one_bin(self, part: Bin, bar: tqdm) -> None:
        batches = evaluation_batches(
            part.images,
            part.masks,
            size=self.settings.size,
            batch_size=self.settings.batch_size,
            seed=self.settings.seed,
            resize=self.resize,
            start_step=self.state.batches,
            sketches=None if self.sketches is None else ChosenSketches(self.sketches, part.images.numbers),
            workers=self.settings.workers,
            skipped=self._skipped,
        )
        try:
            for batch in batches:
                self._one_batch(part, batch)
                self.state.batches += 1
                self.state.save_now_and_then(self.settings.save_every_seconds)
                bar.update(int((batch["index"] >= 0).sum()))
        except KeyboardInterrupt:
            _log.info("Stopped. Continue with the same command and --resume.")
            raise
        finally:
            batches.close()

    def _one_batch(self, part: Bin, batch: Batch) -> None:
        images, masks, valid = batch["image"], batch["mask"], batch["weight"] > 0
        ratios = masks.mean(axis=(1, 2))
        completed = self.methods(images, masks, batch.get("sketch"))
        found = {name: jax.device_get(_score(results, images)) for name, results in completed.items()}
        for row in np.flatnonzero(valid):
            index = int(batch["index"][row])
            common = {"bin": part.label, "image": part.images.numbers[index], "name": part.images.name(index)}
            for name, values in found.items():
                numbers = {metric: float(each[row]) for metric, each in values.items()}
                self.state.scores.add(method=name, **common, mask_ratio=float(ratios[row]), **numbers)
            if self.settings.save_images:
                pictures = {name: results[row] for name, results in completed.items()}
                output.save_images(self.output_dir, common, images[row], masks[row], pictures)
        if self.features:
            for name, results in completed.items():
                self.state.statistics_of(name, part.label).update(self.features(results)[valid])

    def _close_bin(self, part: Bin) -> None:
        """Computes the bin's FID, and drops its statistics."""
        state = self.state
        if state.truth:
            for name in self.methods.names:
                statistics = state.statistics_of(name, part.label)
                if self.settings.pairing == "every_bin":
                    state.distances[name, part.label] = fid.distance(statistics, state.truth)
                else:  # other images in each bin, not the method, would make most of the distance
                    note = "by bin only where every bin holds all images (pairing every_bin)."
                    state.distances[name, part.label] = {"fid": None, "fid_note": note}
                state.statistics_of(name, ALL).merge(statistics)
                del state.statistics[name, part.label]
        state.bin, state.batches = state.bin + 1, 0
        state.save()


@jax.jit
def _score(completed: jax.Array, truth: jax.Array) -> dict[str, jax.Array]:
    """Two uint8 [B, H, W, 3] -> metric -> [B], on the pixels as they would be saved."""
    completed, truth = (images.astype(jnp.float32) / 255 for images in (completed, truth))
    return {
        "mae": metrics.mean_absolute_error(completed, truth),
        "mae_relative": metrics.relative_mean_absolute_error(completed, truth),
        "psnr": metrics.psnr(completed, truth),
        "ssim": metrics.ssim(completed, truth),
    }


def _load(models: Sequence[str | Path]) -> dict[str, Inpainter]:
    """Models by the name of their folder or file, or by the whole path where names are equal."""
    names = [model_name(model) for model in models]
    if _clash(names):
        names = [str(find_model(model).resolve()) for model in models]
    if _clash(names):
        raise UserError(f"Models need names of their own, not {', '.join(names)}; rename a folder, or give it once.")
    return {name: Inpainter.load(model) for name, model in zip(names, models)}


def _clash(names: Sequence[str]) -> bool:
    """Whether names would share a folder of pictures or a column with each other or with something else."""
    plain = {output.plain(name) for name in names}
    return len(plain) < len(names) or not plain.isdisjoint((*METHOD_NAMES, *output.RESERVED))


def _complete(settings: Settings, data: Data, known: bool) -> _FullSettings:
    """Fills in what a config's `data` says, where there is one."""
    photos = settings.data or data.test
    size = settings.size or (data.image_size if known else None)
    if not photos:
        raise UserError("No images to evaluate on; give --data=folder:PATH or --config.data.test=folder:PATH.")
    if not size:
        raise UserError("No size to evaluate at; give --size=256, or a --config or --workdir that has one.")
    settings = _FullSettings(**vars(settings) | {"data": photos, "size": size})
    if settings.limit is not None and settings.limit < 1:
        raise UserError(f"--limit must be at least 1, not {settings.limit}.")
    at_least = {"batch_size": 1, "size": 11, "workers": 0, "samples": 0, "seed": 0}  # 11: the window of SSIM
    for name, least in at_least.items():
        if getattr(settings, name) < least:
            raise UserError(f"--{name} must be at least {least}, not {getattr(settings, name)}.")
    return settings


def _open_sketches(
    settings: _FullSettings, resize: Resize, inpainters: Mapping[str, Inpainter], source: ImageSource
) -> SketchStore | None:
    """The sketches of the images, checked, or None."""
    if settings.sketches in (None, "none"):
        for name, inpainter in inpainters.items():
            if inpainter.needs_sketch:
                raise UserError(
                    f"The model {name} was never trained without a sketch; give those of {settings.data} as "
                    f"--sketches, a folder that inpaint-jax sketch makes with --size={settings.size} "
                    f"--resize={resize}."
                )
        return None
    if not any(inpainter.guided for inpainter in inpainters.values()):
        raise UserError("No model here is guided by sketches; leave out --sketches.")
    store = SketchStore.open(settings.sketches)
    store.check(source, size=settings.size, resize=resize, limit=settings.limit)
    return store


def _open_inception(choice: str) -> tuple[fid.FeatureExtractor | None, str | None]:
    """The features, or why there are none."""
    if choice == "off":
        return None, "switched off."
    try:
        return fid.FeatureExtractor(inception.load(None if choice == "auto" else choice)), None
    except WeightsUnavailable as error:
        if choice != "auto":
            raise
        _log.warning("No FID: %s", error)
        return None, f"no weights of the Inception network; the file is {inception.FID_INCEPTION.url}."


def _identity(
    settings: Settings,
    resize: Resize,
    inpainters: Mapping[str, Inpainter],
    source: ImageSource,
    bins: Sequence[Bin],
    features: fid.FeatureExtractor | None,
) -> dict[str, Any]:
    """All that the figures depend on, in JSON types."""
    return {
        "data": settings.data,
        "images": len(source),
        "size": settings.size,
        "resize": resize,
        "masks": settings.masks,
        "pairing": settings.pairing,
        "limit": settings.limit,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "pairs": {part.label: len(part.images) for part in bins},
        "files": fingerprint(bins),
        "save_images": settings.save_images,
        "samples": settings.samples,
        "version": __version__,
        "classical": list(settings.classical),
        "models": {
            name: {"step": inpainter.step, "parameters": fid.checksum(inpainter.params)[:16]}
            for name, inpainter in inpainters.items()
        },
        "inception": features.checksum[:16] if features else None,
    }
