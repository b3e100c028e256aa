"""Training from a config to a workdir: `train` sets everything up, `_run` is the loop.

    photos -> data.pipeline -> steps (G and D) -> meter -> writers
                                   |-> every epoch: validation -> early stopping -> checkpoints, sample sheet

The order within a step: validate if due, save if due, leave if asked, next batch, step, log. A checkpoint of step k
thus holds all that happened before step k + 1, and its number is also the position in the data.
"""

import dataclasses
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

from inpaint_jax.checkpoints import Checkpoints
from inpaint_jax.data import masks as mask_sources
from inpaint_jax.data import pipeline
from inpaint_jax.data.masks import local_crop_side
from inpaint_jax.data.sources import open_source
from inpaint_jax.features import vgg
from inpaint_jax.losses import LossWeights
from inpaint_jax.nets.discriminator import GlobalLocalDiscriminator
from inpaint_jax.nets.generator import Generator
from inpaint_jax.training import sharding, steps
from inpaint_jax.training.interrupts import StopRequest
from inpaint_jax.training.meter import Meter, TrainingDivergedError
from inpaint_jax.training.progress import Progress
from inpaint_jax.training.state import TrainState, create_state
from inpaint_jax.training.validation import sample_sheet, validate
from inpaint_jax.training.workdir import claim_workdir
from inpaint_jax.visualize import training_curves
from inpaint_jax.writers import RunWriter, read_metrics

_log = logging.getLogger("inpaint_jax")

# Validation and sample masks must not repeat the training masks, whatever the seed.
_VALIDATION_SEED_OFFSET = 1_000_003


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When what happens, in steps.

    Attributes:
        steps_per_epoch: passes over the data need not be whole numbers of steps.
        max_steps: inf for none.
        patience: steps without a better validation loss before the run stops; inf for none.
        validate_every: steps.
        checkpoint_every: steps, besides the checkpoints after validations.
        log_every: steps.
    """

    steps_per_epoch: float
    max_steps: float
    patience: float
    validate_every: int
    checkpoint_every: int
    log_every: int


def train(config: ConfigDict, workdir: str | Path, hosts: tuple[str, int, int] | None = None) -> Path:
    """Trains until the step limit or early stopping; goes on where an interrupted run in the workdir stopped.

    Args:
        config: see configs/default.py.
        workdir: config.json, parameters.txt, metrics.jsonl, TensorBoard events, samples/, curves.png and
            checkpoints/ go there.
        hosts: host:port of process 0, number of processes, and which of them this is, to train on several hosts.

    Returns:
        the workdir.

    Raises:
        ValueError: a field of the config makes no sense, the data holds no image, or the workdir belongs to
            another config.
        features.weights.WeightsUnavailable: the perceptual loss has a weight, and VGG's weights are nowhere.
        TrainingDivergedError: a loss or gradient is not finite.
    """
    workdir = Path(workdir)
    if hosts:
        sharding.join_hosts(sharding.Hosts(*hosts))
    # All that can be wrong with the input is found before anything is compiled or written.
    sharding.check_batch_size(config.batch_size)
    weights = LossWeights(
        coarse=config.loss.coarse_weight,
        refined=config.loss.refined_weight,
        perceptual=config.loss.perceptual_weight,
        adversarial=config.loss.adversarial_weight,
    )
    vgg_params = vgg.load(config.loss.vgg_weights) if weights.perceptual else None
    data = _Data.open(config)
    claim_workdir(workdir, config.to_dict())

    mesh = sharding.data_mesh()
    schedule = _schedule(config, len(data.train))
    _log.info(
        "%d training and %d validation images, %d device(s) (%s), %.1f steps an epoch, workdir %s",
        len(data.train),
        data.validation_count,
        jax.device_count(),
        jax.devices()[0].device_kind,
        schedule.steps_per_epoch,
        workdir,
    )
    dtype = jnp.dtype(config.dtype)
    generator = Generator(config.model.width, config.model.heads, config.model.patch_size, dtype=dtype)
    discriminator = GlobalLocalDiscriminator(
        config.model.discriminator_width, config.model.discriminator_features, dtype=dtype
    )
    betas = {"b1": config.optimizer.beta1, "b2": config.optimizer.beta2}
    generator_optimizer = optax.adam(config.optimizer.generator_learning_rate, **betas)
    discriminator_optimizer = optax.adam(config.optimizer.discriminator_learning_rate, **betas)
    crop_size = local_crop_side(config.data.image_size, config.data.image_size)
    optimizers = (generator_optimizer, discriminator_optimizer)

    everywhere = sharding.replicated(mesh)
    compiled = _Compiled(
        train=jax.jit(
            steps.make_train_step(generator, discriminator, *optimizers, weights, crop_size=crop_size),
            donate_argnums=0,
            out_shardings=everywhere,
        ),
        validate=jax.jit(steps.make_validation_step(generator, weights), out_shardings=everywhere),
        predict=jax.jit(
            lambda params, image, mask: generator.apply({"params": params}, image, mask), out_shardings=everywhere
        ),
    )

    def new_state(key: jax.Array) -> TrainState:
        return create_state(
            key, generator, discriminator, *optimizers, image_size=config.data.image_size, crop_size=crop_size
        )

    if vgg_params is not None:
        vgg_params = sharding.put_everywhere(vgg_params, mesh)
    with Checkpoints(workdir) as checkpoints:
        state, progress = _restore_or_create(checkpoints, new_state, config.seed, mesh)
        if jax.process_index() == 0:
            _write_parameter_table(workdir, state)
        run = _Run(config, workdir, mesh, schedule, compiled, data, vgg_params, checkpoints, progress)
        run.until_done(state)
    return workdir


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """The jitted functions of a run."""

    train: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    validate: Callable[..., dict[str, jax.Array]]
    predict: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class _Data:
    """The photos and masks of a run, and how batches are drawn from them."""

    config: ConfigDict
    train: Any
    validation: Any
    masks: Any

    @classmethod
    def open(cls, config: ConfigDict) -> "_Data":
        for name in ("train", "validation"):
            if not config.data[name]:
                raise ValueError(f"No {name} data; give --config.data.{name}=folder:PATH (or tfds:… or skimage:…).")
        masks = mask_sources.open_masks(config.data.masks, config.data.image_size)
        return cls(config.data, open_source(config.data.train), open_source(config.data.validation), masks)

    @property
    def validation_count(self) -> int:
        return min(len(self.validation), self.config.validation_limit or len(self.validation))

    def training_batches(self, batch_size: int, seed: int, start_step: int) -> pipeline.Batches:
        return pipeline.training_batches(
            self.train,
            self.masks,
            size=self.config.image_size,
            batch_size=batch_size,
            seed=seed,
            start_step=start_step,
            workers=self.config.workers,
            resize=self.config.resize,
            crop=self.config.crop,
            flip=self.config.flip,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def validation_batches(self, batch_size: int, seed: int) -> pipeline.Batches:
        return self._in_order(batch_size, seed, self.validation_count, jax.process_index(), jax.process_count())

    def samples(self, count: int, seed: int) -> Mapping[str, np.ndarray]:
        """The first validation images with their masks, the same on every process."""
        batch = next(self._in_order(min(count, self.validation_count), seed, count, 0, 1))
        readable = batch["weight"] > 0
        return {name: batch[name][readable] for name in ("image", "mask")}

    def _in_order(self, batch_size: int, seed: int, limit: int, process_index: int, process_count: int):
        return pipeline.evaluation_batches(
            self.validation,
            self.masks,
            size=self.config.image_size,
            batch_size=batch_size,
            seed=seed + _VALIDATION_SEED_OFFSET,
            resize=self.config.resize,
            limit=limit,
            process_index=process_index,
            process_count=process_count,
        )


class _Run:
    """The loop and what it needs."""

    def __init__(self, config, workdir, mesh, schedule, compiled, data, vgg_params, checkpoints, progress):
        self.batch_size: int = config.batch_size
        self.seed: int = config.seed
        self.workdir: Path = workdir
        self.mesh: Mesh = mesh
        self.schedule: Schedule = schedule
        self.compiled: _Compiled = compiled
        self.data: _Data = data
        self.vgg_params = vgg_params
        self.checkpoints: Checkpoints = checkpoints
        self.progress: Progress = progress
        self.samples = data.samples(config.train.samples, config.seed) if config.train.samples else None
        self.is_writer = jax.process_index() == 0

    def until_done(self, state: TrainState) -> None:
        """Trains from the given state until the run is over or asked to stop."""
        step = int(state.step)
        if reason := self._over(step):
            _log.info("Nothing to do: %s", reason)
            return
        with StopRequest() as stop, logging_redirect_tqdm(), self._progress_bar(step) as bar:
            writer = RunWriter(self.workdir, step) if self.is_writer else None
            batches = self.data.training_batches(self.batch_size, self.seed, step)
            meter = Meter(self.schedule.log_every, self.batch_size, lambda at, means: self._log(writer, bar, at, means))
            try:
                step = self._loop(state, step, batches, meter, writer, bar, stop)
            except TrainingDivergedError as error:
                raise TrainingDivergedError(
                    f"{error}. The last good checkpoint is of step {self.checkpoints.latest_step()}, in "
                    f"{self.checkpoints.folder}; to go on from it with smaller steps, copy it into a new workdir and "
                    "lower --config.optimizer.generator_learning_rate and …discriminator_learning_rate."
                ) from None
            finally:
                batches.close()
                if writer:
                    writer.close()
        self._say_goodbye(step, batches)

    def _loop(self, state, step, batches, meter, writer, bar, stop) -> int:
        schedule, progress = self.schedule, self.progress
        while True:
            over = step >= schedule.max_steps
            if (step % schedule.validate_every == 0 or over) and progress.validated_step != step:
                meter.flush()
                self._validate(state, step, writer)
            elif step % schedule.checkpoint_every == 0 and self.checkpoints.latest_step() != step:
                meter.flush()
                self._save(state, step)
            if self._over(step):
                return step
            if stop.granted(at_meeting_point=step % schedule.log_every == 0):
                meter.flush()
                if self.checkpoints.latest_step() != step:
                    self._save(state, step)
                return step
            batch = sharding.put_batch(next(batches), self.mesh)
            state, metrics = self.compiled.train(state, batch, self.vgg_params)
            step += 1
            meter.push(step, metrics)
            bar.update()

    def _over(self, step: int) -> str | None:
        """Why there is nothing more to train, if so. A step counts as done once it was validated."""
        if self.progress.validated_step != step:
            return None
        if step >= self.schedule.max_steps:
            return f"the limit of {step} steps is reached (train.max_steps)."
        stale = step - self.progress.best_step
        if stale >= self.schedule.patience:
            return (
                f"the validation loss has not fallen for {stale / self.schedule.steps_per_epoch:.1f} epochs since "
                f"step {self.progress.best_step} (train.patience_epochs, train.patience_steps)."
            )
        return None

    def _validate(self, state: TrainState, step: int, writer: RunWriter | None) -> None:
        batches = self.data.validation_batches(self.batch_size, self.seed)
        means = validate(self.compiled.validate, state.generator, batches, self.vgg_params, self.mesh)
        if not math.isfinite(means["loss"]):
            raise TrainingDivergedError(f"the validation loss is {means['loss']} at step {step}")
        best = self.progress.update(step, means["loss"])
        self._save(state, step, validation_loss=means["loss"])
        sheet = None
        if self.samples:
            sheet = sample_sheet(self.compiled.predict, state.generator, self.samples, self.mesh)
        if writer:
            writer.write(step, step / self.schedule.steps_per_epoch, _prefixed("validation", means))
            if sheet is not None:
                writer.write_sheet(step, sheet)
        _log.info(
            "step %d: validation loss %.4f%s, PSNR %.2f dB, inside the hole %.2f dB (mean colour: %.2f dB)",
            step,
            means["loss"],
            " (best so far)" if best else f" (best {self.progress.best_loss:.4f} at step {self.progress.best_step})",
            means["psnr"],
            means["hole_psnr"],
            means["hole_psnr_mean_fill"],
        )

    def _save(self, state: TrainState, step: int, validation_loss: float | None = None) -> None:
        self.checkpoints.save(
            step,
            generator=state.generator,
            rest=_rest(state),
            progress=dataclasses.asdict(self.progress),
            validation_loss=validation_loss,
        )

    def _log(self, writer: RunWriter | None, bar: tqdm, step: int, means: dict[str, float]) -> None:
        means["host_memory_peak_gib"] = _peak_memory()
        if not writer:
            return
        writer.write(step, step / self.schedule.steps_per_epoch, means)
        shown = {"img/s": f"{means['images_per_second']:.1f}"}
        shown |= {name: f"{means[f'loss/{name}']:.3f}" for name in ("generator", "discriminator")}
        shown |= {
            name.removeprefix("temperature/head_") + ".t": f"{value:.3f}"
            for name, value in means.items()
            if name.startswith("temperature/")
        }
        bar.set_postfix(shown, refresh=False)
        if bar.disable:  # no terminal: a line in the log instead of a bar
            _log.info("step %d: %s", step, ", ".join(f"{name} {value}" for name, value in shown.items()))

    def _progress_bar(self, step: int) -> tqdm:
        total = self.schedule.max_steps if math.isfinite(self.schedule.max_steps) else None
        # disable=None: only where standard error is a terminal.
        return tqdm(initial=step, total=total, unit="step", disable=None if self.is_writer else True)

    def _say_goodbye(self, step: int, batches: pipeline.Batches) -> None:
        if batches.skipped:
            _log.warning("%d unreadable image(s) were skipped: %s", len(batches.skipped), ", ".join(batches.skipped))
        if self.is_writer:
            training_curves(read_metrics(self.workdir)).savefig(self.workdir / "curves.png", dpi=100)
        if reason := self._over(step):
            _log.info("Done: %s Best validation loss at step %d.", reason, self.progress.best_step)
        else:
            _log.info("Stopped at step %d, all saved. Go on with the same command: %s", step, _command())


def _restore_or_create(
    checkpoints: Checkpoints, new_state: Callable[[jax.Array], TrainState], seed: int, mesh: Mesh
) -> tuple[TrainState, Progress]:
    everywhere = sharding.replicated(mesh)
    # rbg: the parameters are drawn by some hundred small programs, and threefry takes three times as long to compile.
    key = jax.random.key(seed, impl="rbg")
    step = checkpoints.latest_step()
    if step is None:
        return jax.jit(new_state, out_shardings=everywhere)(key), Progress()
    shapes = jax.eval_shape(new_state, key)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), shapes)
    generator, rest, progress = checkpoints.restore(step, generator=shapes.generator, rest=_rest(shapes))
    _log.info("Going on from the checkpoint of step %d.", step)
    return TrainState(generator=generator, **rest), Progress(**progress)


def _rest(state: TrainState) -> dict[str, Any]:
    """All of the state but the generator, which is a checkpoint item of its own."""
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state) if field.name != "generator"}


def _schedule(config: ConfigDict, images: int) -> Schedule:
    steps_per_epoch = images / config.batch_size
    patience = [config.train.patience_epochs * steps_per_epoch, config.train.patience_steps or math.inf]
    return Schedule(
        steps_per_epoch=steps_per_epoch,
        max_steps=config.train.max_steps or math.inf,
        patience=min(patience),
        validate_every=max(1, round(config.train.validate_every_epochs * steps_per_epoch)),
        checkpoint_every=config.train.checkpoint_every_steps,
        log_every=config.train.log_every_steps,
    )


def _write_parameter_table(workdir: Path, state: TrainState) -> None:
    tables = [
        f"{name}\n{parameter_overview.get_parameter_overview(params, include_stats=False)}"
        for name, params in (("Generator", state.generator), ("Discriminator", state.discriminator))
    ]
    (workdir / "parameters.txt").write_text("\n\n".join(tables) + "\n")
    _log.info(
        "%d parameters in the generator, %d in the discriminator; see %s",
        parameter_overview.count_parameters(state.generator),
        parameter_overview.count_parameters(state.discriminator),
        workdir / "parameters.txt",
    )


def _prefixed(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in values.items()}


def _peak_memory() -> float:
    """The most memory that this process has held so far, in GiB (workers not counted)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _command() -> str:
    return shlex.join(["python", *sys.argv])
