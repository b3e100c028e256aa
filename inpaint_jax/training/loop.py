"""Training from a config to a workdir: `train` sets everything up, `_Run` is the loop.

    photos -> feed -> steps (D and G) -> meter -> writers
                        |-> every epoch: validation -> early stopping -> checkpoints, sample sheet

The order within a step: validate if due, save if due, leave if asked, next batch, step, log. A checkpoint of step k
thus holds all that happened before step k + 1, and its number is also the position in the data.
"""

import dataclasses
import json
import logging
import math
import resource
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from inpaint_jax import devices
from inpaint_jax.checkpoints import Checkpoints
from inpaint_jax.config import check_config
from inpaint_jax.data.masks import local_crop_side, open_masks
from inpaint_jax.data.pipeline import Batches, check_readable
from inpaint_jax.data.sketches import UnusableSketches
from inpaint_jax.data.sources import open_source
from inpaint_jax.errors import UserError
from inpaint_jax.features import vgg
from inpaint_jax.losses import LossWeights
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator
from inpaint_jax.nets.generator import Generator
from inpaint_jax.runs import check_workdir, claim_workdir, flatten
from inpaint_jax.sketching import plan as sketches
from inpaint_jax.sketching.store import SketchStore
from inpaint_jax.systems import steps
from inpaint_jax.systems.state import TrainState, create_state
from inpaint_jax.training.environment import describe_environment
from inpaint_jax.training.feed import Feed
from inpaint_jax.training.interrupts import StopRequest
from inpaint_jax.training.meter import Meter, TrainingDivergedError
from inpaint_jax.training.progress import Progress
from inpaint_jax.training.schedule import Schedule, learning_rate
from inpaint_jax.training.validation import sample_sheet, validate
from inpaint_jax.visualize import training_curves
from inpaint_jax.writers import RunWriter, read_metrics

_log = logging.getLogger("inpaint_jax")

SKETCH_ERRORS = (UserError,)
"""For train.py."""


def train(config: ConfigDict, workdir: str | Path, hosts: tuple[str, int, int] | None = None) -> Path:
    """Trains until the step limit or early stopping; goes on where an interrupted run in the workdir stopped.

    Args:
        config: see configs/default.py.
        workdir: config.json, parameters.txt, metrics.jsonl, environment.jsonl (hardware and versions of every start),
            TensorBoard events, samples/, curves.png and checkpoints/ go there; and sketches/, if the model needs some
            and the config names none.
        hosts: host:port of process 0, number of processes, and which of them this is, to train on several hosts.

    Returns:
        the workdir.

    Raises:
        ValueError: a field of the config makes no sense, the data holds no image, the sketches are of other data or
            cannot be made, or the workdir belongs to another config.
        data.sketches.UnusableSketches: they are damaged, which may come up in the midst of the run, or not there, or
            differ in their settings from each other, from those that the run began with, or from those of another host.
        features.weights.WeightsUnavailable: the perceptual loss has a weight, and VGG's weights are nowhere.
        TrainingDivergedError: a loss or gradient is not finite.
    """
    workdir = Path(workdir)
    if hosts:
        devices.join_hosts(devices.Hosts(*hosts))
        if jax.process_index() > 0:
            _log.setLevel(logging.WARNING)  # process 0 speaks for all

    # What can be wrong with config, weights and data is found before anything is written or compiled.
    check_config(config.to_dict())
    if jax.process_index() == 0:
        check_workdir(workdir, config.to_dict())
    devices.check_batch_size(config.batch_size)
    weights = LossWeights(
        l1=config.loss.l1,
        hole=config.loss.hole_weight,
        coarse=config.loss.coarse_weight,
        refined=config.loss.refined_weight,
        perceptual=config.loss.perceptual_weight,
        adversarial=config.loss.adversarial_weight,
    )
    vgg_params = vgg.load(config.loss.vgg_weights) if weights.perceptual else None
    feed, plan = _open_feed(config, workdir)
    schedule = Schedule.from_epochs(
        feed.steps_per_epoch, **{k: v for k, v in config.train.items() if k not in ("samples", "select_by")}
    )
    dtype = jnp.dtype(config.dtype)
    generator = Generator.from_fields(config.model, dtype)
    discriminator = GlobalLocalDiscriminator(
        config.model.discriminator_width,
        config.model.discriminator_features,
        dtype=dtype,
        spectral_norm=config.loss.adversarial == "hinge",
    )
    optimizers = tuple(
        optax.adam(learning_rate(config, peak), b1=config.optimizer.beta1, b2=config.optimizer.beta2)
        for peak in (config.optimizer.generator_learning_rate, config.optimizer.discriminator_learning_rate)
    )
    average = config.optimizer.ema_decay > 0
    crop_size = local_crop_side(feed.size, feed.size)
    _check_same_on_all_hosts(plan.found)

    def new_state(key: jax.Array) -> TrainState:
        sizes = {"image_size": feed.size, "crop_size": crop_size}
        return create_state(
            key, generator, discriminator, *optimizers, **sizes, sketch=config.model.sketch, average=average
        )

    # rbg: the parameters are drawn by some hundred small programs, and threefry takes three times as long to compile.
    key = jax.random.key(config.seed, impl="rbg")
    shapes = jax.eval_shape(new_state, key)
    if jax.process_index() == 0:
        claim_workdir(workdir, config.to_dict())
    devices.wait_for_all_hosts("workdir")
    stores = plan.make(workdir)
    feed = dataclasses.replace(feed, **{f"{role}_sketches": store for role, store in stores.items()})
    samples = feed.samples(config.train.samples) if config.train.samples else None

    mesh = devices.data_mesh()
    everywhere = devices.replicated(mesh)
    train_step = steps.make_train_step(
        generator,
        discriminator,
        *optimizers,
        weights,
        crop_size=crop_size,
        adversarial=config.loss.adversarial,
        gradient_penalty_weight=config.loss.gradient_penalty_weight,
        ema_decay=config.optimizer.ema_decay,
        seed=config.seed,
    )
    functions = _Functions(
        train=jax.jit(train_step, donate_argnums=0, out_shardings=everywhere),
        validate=jax.jit(steps.make_validation_step(generator, weights), out_shardings=everywhere),
        predict=jax.jit(
            lambda params, image, mask, sketch: generator.apply({"params": params}, image, mask, sketch),
            out_shardings=everywhere,
        ),
    )
    _log.info(
        "%d training and %d validation images, %d device(s) (%s), %.1f steps an epoch, workdir %s",
        len(feed.train),
        feed.validation_count,
        jax.device_count(),
        jax.devices()[0].device_kind,
        feed.steps_per_epoch,
        workdir,
    )
    if jax.process_index() == 0:
        _write_parameter_table(workdir, shapes)
    if vgg_params is not None:
        vgg_params = devices.put_everywhere(vgg_params, mesh)
    with Checkpoints(workdir) as checkpoints:
        if (step := checkpoints.latest_step()) is None:
            state, progress, saved_with = jax.jit(new_state, out_shardings=everywhere)(key), Progress(), None
        else:
            state, progress, saved_with = _restore(checkpoints, step, shapes, mesh)
        kept = sketches.fingerprint(stores)
        run = _Run(
            workdir,
            feed,
            schedule,
            functions,
            mesh,
            checkpoints,
            progress,
            vgg_params,
            samples,
            kept,
            config.train.select_by,
        )
        if saved_with:
            _compare(saved_with, run.fingerprint(), workdir)
        run.until_done(state)
    return workdir


@dataclasses.dataclass(frozen=True)
class _Functions:
    """The jitted functions of a run."""

    train: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    validate: Callable[..., dict[str, jax.Array]]
    predict: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class _Run:
    """The loop and what it needs."""

    workdir: Path
    feed: Feed
    schedule: Schedule
    functions: _Functions
    mesh: Mesh
    checkpoints: Checkpoints
    progress: Progress
    vgg_params: Any
    samples: Mapping[str, np.ndarray] | None
    sketches: Mapping[str, Mapping[str, Any]]
    select_by: str

    def until_done(self, state: TrainState) -> None:
        """Trains from the given state until the run is over or asked to stop."""
        step = int(state.step)
        if reason := self._over(step):
            _log.info("Nothing to do: %s", reason)
            return
        with StopRequest() as stop, logging_redirect_tqdm(), _progress_bar(step, self.schedule.max_steps) as bar:
            writer = RunWriter(self.workdir, step) if jax.process_index() == 0 else None
            if writer:
                writer.write_environment(step, describe_environment())
            batches = self.feed.training_batches(step)
            meter = Meter(
                self.schedule.log_every, self.feed.batch_size, lambda at, means: self._log(writer, bar, at, means)
            )
            try:
                step = self._loop(state, step, batches, meter, writer, bar, stop)
            except TrainingDivergedError as error:
                raise TrainingDivergedError(
                    f"{error}. The last good checkpoint is of step {self.checkpoints.latest_step()}, in "
                    f"{self.checkpoints.folder}. Start again in a new --workdir with a lower "
                    "--config.optimizer.generator_learning_rate and --config.optimizer.discriminator_learning_rate."
                ) from None
            finally:
                batches.close()
                if writer:
                    writer.close()
            self.checkpoints.wait()
        self._say_goodbye(step)

    def _loop(
        self,
        state: TrainState,
        step: int,
        batches: Batches,
        meter: Meter,
        writer: RunWriter | None,
        bar: tqdm,
        stop: StopRequest,
    ) -> int:
        schedule, progress = self.schedule, self.progress
        while True:
            due = step % schedule.validate_every == 0 or step >= schedule.max_steps
            if due and progress.validated_step != step:
                meter.flush()
                self._validate(state, step, writer)
            elif step % schedule.checkpoint_every == 0:
                meter.flush()
                self._save(state, step)
            if self._over(step):
                return step
            if stop.granted(at_meeting_point=step % schedule.log_every == 0):
                meter.flush()
                self._save(state, step)
                return step
            batch = devices.put_batch(next(batches), self.mesh)
            state, metrics = self.functions.train(state, batch, self.vgg_params)
            step += 1
            meter.push(step, metrics)
            bar.update()

    def _over(self, step: int) -> str | None:
        """Why there is nothing more to train, if so. A step counts as done once it was validated."""
        if self.progress.validated_step != step:
            return None
        if step >= self.schedule.max_steps:
            return f"the limit of {self.schedule.max_steps} steps is reached (train.max_steps)."
        stale = step - self.progress.best_step
        if stale >= self.schedule.patience:
            return (
                f"the validation's {self.select_by} has not fallen for {stale / self.schedule.steps_per_epoch:.1f} "
                f"epochs since step {self.progress.best_step} (train.patience_epochs, train.patience_steps)."
            )
        return None

    def _validate(self, state: TrainState, step: int, writer: RunWriter | None) -> None:
        batches = self.feed.validation_batches()
        # What the model does where nobody drew: asked of those alone that are trained for it.
        unguided = self.feed.validation_sketches is not None and self.feed.sketch_dropout > 0
        params = getattr(state, state.published)
        means = validate(self.functions.validate, params, batches, self.vgg_params, self.mesh, unguided=unguided)
        score = means[self.select_by]
        if not math.isfinite(score):
            raise TrainingDivergedError(f"the validation's {self.select_by} is {score} at step {step}")
        best = self.progress.update(step, score)
        sheet = None
        if self.samples:
            sheet = sample_sheet(self.functions.predict, params, self.samples, self.mesh)
        if writer:
            validation = {f"validation/{name}": value for name, value in means.items()}
            writer.write(step, step / self.schedule.steps_per_epoch, validation)
            if sheet is not None:
                writer.write_sheet(step, sheet)
        # Last, so that a run killed before this validates once more, and drops the line written above.
        self._save(state, step, score)
        _log.info(
            "step %d: validation %s %.4f%s, PSNR %.2f dB, in the hole %.2f dB (known mean %.2f, fill %.2f)%s",
            step,
            self.select_by,
            score,
            " (best so far)" if best else f" (best {self.progress.best_score:.4f} at step {self.progress.best_step})",
            means["psnr"],
            means["hole_psnr"],
            means["hole_psnr_mean_fill"],
            means["hole_psnr_fill"],
            f", without sketches {means['hole_psnr_unguided']:.2f} dB" if unguided else "",
        )

    def _save(self, state: TrainState, step: int, score: float | None = None) -> None:
        if self.checkpoints.latest_step() == step:
            return  # a resumed run, whose new schedule asks again for what it started from
        self.checkpoints.save(
            step,
            generator=getattr(state, state.published),
            rest=_rest(state),
            progress=dataclasses.asdict(self.progress) | self.fingerprint(),
            score=score,
        )

    def fingerprint(self) -> dict[str, Any]:
        """What a run can only go on exactly with."""
        return {
            "training_images": len(self.feed.train),
            "validation_images": self.feed.validation_count,
            "devices": jax.device_count(),
            **self.sketches,
        }

    def _log(self, writer: RunWriter | None, bar: tqdm, step: int, means: dict[str, float]) -> None:
        means["host_memory_peak_gib"] = _peak_memory()
        if not writer:
            return
        writer.write(step, step / self.schedule.steps_per_epoch, means)
        shown = {"images/s": f"{means['images_per_second']:.1f}"}
        losses = {"G": "loss/generator", "D": "loss/discriminator"}
        shown |= {short: f"{means[name]:.3f}" for short, name in losses.items() if name in means}
        temperatures = [value for name, value in means.items() if name.startswith("temperature/")]
        shown["t"] = "/".join(f"{t:.3g}" for t in temperatures)
        bar.set_postfix(shown, refresh=False)
        if bar.disable:  # no terminal: a line in the log instead of a bar
            _log.info("step %d: %s", step, ", ".join(f"{name} {value}" for name, value in shown.items()))

    def _say_goodbye(self, step: int) -> None:
        if skipped := self.feed.skipped:
            _log.warning("%d unreadable image(s) were skipped: %s", len(skipped), ", ".join(skipped))
        if jax.process_index() == 0:
            training_curves(read_metrics(self.workdir)).savefig(self.workdir / "curves.png", dpi=100)
        if reason := self._over(step):
            _log.info("Done: %s The best checkpoint is of step %d.", reason, self.progress.best_step)
        else:
            command = shlex.join(["python", *sys.argv])
            _log.info("Stopped at step %d, all saved. Go on with the same command: %s", step, command)


def _open_feed(config: ConfigDict, workdir: Path) -> tuple[Feed, sketches.SketchPlan]:
    """Photos and masks, and the plan of their sketches."""
    feed = Feed(
        train=open_source(config.data.train),
        validation=open_source(config.data.validation),
        masks=open_masks(config.data.masks, config.data.image_size),
        size=config.data.image_size,
        batch_size=config.batch_size,
        seed=config.seed,
        workers=config.data.workers,
        resize=config.data.resize,
        crop=config.data.crop,
        flip=config.data.flip,
        zoom=config.data.zoom,
        validation_limit=config.data.validation_limit,
        sketch_dropout=config.data.sketch_dropout,
    )
    check_readable(feed.train)
    check_readable(feed.validation, feed.validation_count)
    if not config.model.sketch:
        return feed, sketches.SketchPlan({}, [])
    feed.samples(max(1, config.train.samples))  # a broken mask should not come up only after hours of sketching
    rule = {"size": feed.size, "resize": feed.resize}
    data = config.data
    photos = [
        sketches.SketchedPhotos("train", "sketches", data.train, feed.train, **rule),
        sketches.SketchedPhotos(
            "validation", "validation_sketches", data.validation, feed.validation, limit=feed.validation_limit, **rule
        ),
    ]
    plan = sketches.plan_sketches(
        photos,
        {each.role: data[each.field] for each in photos},
        workdir,
        weights=data.pidinet_weights,
        workers=data.workers,
        may_make=jax.process_count() == 1,
    )
    return feed, plan


def _check_same_on_all_hosts(stores: Mapping[str, SketchStore]) -> None:
    """Refuses to train with sketches that differ between hosts: each host reads those of its own part of a batch."""
    if jax.process_count() > 1 and not devices.is_same_on_all_hosts(
        json.dumps(sketches.fingerprint(stores), sort_keys=True)
    ):
        raise UnusableSketches(
            "The hosts have different sketches; copy the folders of config.data.sketches and "
            "config.data.validation_sketches from one host to all others."
        )


def _compare(saved_with: Mapping[str, Any], now: Mapping[str, Any], workdir: Path) -> None:
    """Refuses to go on with sketches of other settings, and warns of whatever else is not as it was."""
    sketches.check_same_settings(saved_with, now, workdir)
    old, new = flatten(saved_with), flatten(now)
    # Older checkpoints say less of their sketches, or nothing, which does not make these others.
    new = {name: value for name, value in new.items() if name in old or "_sketches." not in name}
    differing = [
        f"{name}: {old.get(name)!r} then, {new.get(name)!r} now"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    if differing:
        _log.warning("This run goes on, but not exactly as if it had never stopped (%s).", "; ".join(differing))


def _restore(
    checkpoints: Checkpoints, step: int, shapes: TrainState, mesh: Mesh
) -> tuple[TrainState, Progress, dict[str, Any]]:
    """The state, how far the run had come, and what it was saved with."""
    everywhere = devices.replicated(mesh)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), shapes)
    published, rest, progress = checkpoints.restore(step, generator=getattr(like, like.published), rest=_rest(like))
    _log.info("Going on from the checkpoint of step %d.", step)
    # What older checkpoints call otherwise, or lack.
    progress = {"best_score": progress.pop("best_loss", None)} | progress
    names = [field.name for field in dataclasses.fields(Progress)]
    progress, saved_with = {name: progress.pop(name) for name in names}, progress
    return TrainState(**{"average": {}, like.published: published}, **rest), Progress(**progress), saved_with


def _rest(state: TrainState) -> dict[str, Any]:
    """All of the state but the parameters to publish, an item of their own, and the average if none is kept."""
    left_out = (state.published,) if state.average else (state.published, "average")
    names = (field.name for field in dataclasses.fields(state))
    return {name: getattr(state, name) for name in names if name not in left_out}


def _write_parameter_table(workdir: Path, shapes: TrainState) -> None:
    networks = {"Generator": shapes.generator, "Discriminator": shapes.discriminator}
    tables = [
        f"{name}\n{parameter_overview.get_parameter_overview(params, include_stats=False)}"
        for name, params in networks.items()
    ]
    (workdir / "parameters.txt").write_text("\n\n".join(tables) + "\n")
    counts = {name: parameter_overview.count_parameters(params) for name, params in networks.items()}
    _log.info("Parameters: generator %d, discriminator %d; see %s", *counts.values(), workdir / "parameters.txt")


def _progress_bar(step: int, max_steps: float) -> tqdm:
    total = max_steps if math.isfinite(max_steps) else None
    # disable=None: a bar only where standard error is a terminal.
    return tqdm(initial=step, total=total, unit="step", disable=None if jax.process_index() == 0 else True)


def _peak_memory() -> float:
    """The most memory that this process has held so far, in GiB (workers not counted)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
