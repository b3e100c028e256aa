"""Training from a config to a workdir: `train` sets everything up, `_Run` is the loop.

    photos -> feed -> system's train step -> meter -> writers
                        |-> every epoch: validation -> early stopping -> checkpoints, sample sheet

The order within a step: validate if due, save if due, leave if asked, next batch, step, log. A checkpoint of step k
thus holds all that happened before step k + 1, and its number is also the position in the data.
"""

import dataclasses
import logging
import math
import shlex
import sys
from pathlib import Path
from typing import Any

import jax
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from inpaint_jax import devices
from inpaint_jax.checkpoints import Checkpoints, has_checkpoint
from inpaint_jax.config import Config
from inpaint_jax.data.pipeline import Batches
from inpaint_jax.runs import check_workdir, claim_workdir
from inpaint_jax.systems import System, make_system
from inpaint_jax.systems.state import TrainState
from inpaint_jax.training.environment import describe_environment, peak_memory
from inpaint_jax.training.feed import Feed
from inpaint_jax.training.interrupts import StopRequest
from inpaint_jax.training.meter import Meter, TrainingDivergedError
from inpaint_jax.training.pretrained import load_pretrained
from inpaint_jax.training.progress import Progress
from inpaint_jax.training.schedule import Schedule
from inpaint_jax.training.trace import StepTrace
from inpaint_jax.training.validation import sample_sheet, validate
from inpaint_jax.visualize import training_curves
from inpaint_jax.writers import RunWriter, read_metrics

_log = logging.getLogger("inpaint_jax")

# What the log shows of a validation, as far as the system measures it: name -> words.
_SHOWN = {
    "psnr": "whole image",
    "hole_psnr": "hole",
    "hole_psnr_fill": "its fill",
    "hole_psnr_mean_fill": "its mean colour",
    "hole_psnr_unguided": "without sketches",
}


def train(
    fields: ConfigDict,
    workdir: str | Path,
    hosts: tuple[str, int, int] | None = None,
    profile: bool = False,
) -> Path:
    """Trains until the step limit or early stopping; goes on where an interrupted run in the workdir stopped.

    Args:
        fields: see config.py.
        workdir: config.json, parameters.txt, metrics.jsonl, environment.jsonl (hardware and versions of every start),
            TensorBoard events, samples/, curves.png and checkpoints/ go there; and sketches/, if the model needs some
            and the config names none.
        hosts: host:port of process 0, number of processes, and which of them this is, to train on several hosts.
        profile: also write a trace of five steps, into profile/, for TensorBoard's profiler or Perfetto.

    Returns:
        the workdir.

    Raises:
        UserError: the config makes no sense, photos, masks, sketches or weights are missing or damaged (which may come
            up in the midst of the run), or the workdir belongs to another config.
        TrainingDivergedError: a loss or gradient is not finite.
    """
    workdir = Path(workdir)
    if hosts:
        devices.join_hosts(devices.Hosts(*hosts))
        if jax.process_index() > 0:
            _log.setLevel(logging.WARNING)  # process 0 speaks for all
    first_host = jax.process_index() == 0

    # What can be wrong with config, weights and data is found before anything is written or compiled.
    config = Config.read(fields)
    if first_host:
        check_workdir(workdir, config)
    devices.check_batch_size(config.batch_size)
    feed = Feed.open(config)
    system = make_system(config)
    plan = feed.plan_sketches(workdir)
    # rbg: the parameters are drawn by some hundred small programs, and threefry takes three times as long to compile.
    key = jax.random.key(config.seed, impl="rbg")
    programs = _Programs.of(system)
    shapes = programs.start.eval_shape(key)
    pretrained = {}
    if config.train.init_from and not has_checkpoint(workdir):
        pretrained = load_pretrained(config.train.init_from, shapes)

    if first_host:
        claim_workdir(workdir, config)
        _write_parameter_table(workdir, shapes)
    devices.wait_for_all_hosts("workdir")
    feed.sketches = plan.make(workdir)
    _log.info(
        "%d training and %d validation images, %d device(s) (%s), %.1f steps an epoch, workdir %s",
        len(feed.train),
        feed.validation_count,
        jax.device_count(),
        jax.devices()[0].device_kind,
        feed.steps_per_epoch,
        workdir,
    )
    with Checkpoints(workdir) as checkpoints:
        if (restored := _restore(checkpoints, shapes, programs)) is None:
            state, progress = programs.start(key), Progress()
            if pretrained:
                state = dataclasses.replace(state, **devices.put_everywhere(pretrained, programs.mesh))
        else:
            state, saved = restored
            progress = Progress.from_dict(saved)
            feed.check_goes_on({name: saved[name] for name in saved if name not in vars(progress)}, workdir)
        _Run(config, workdir, feed, programs, checkpoints, progress, profile).until_done(state)
    return workdir


@dataclasses.dataclass(frozen=True)
class _Programs:
    """The functions of a system, jitted for the devices at hand.

    Attributes:
        mesh: of all devices.
        frozen: the system's parameters that are never trained, on all devices.
        start: see `System.initial_state`.
        train: see `System.train_step`; it takes the memory of the state that it is given.
        validate: see `System.validation_step`.
        complete: see `System.complete`.
    """

    mesh: Mesh
    frozen: Any
    start: Any
    train: Any
    validate: Any
    complete: Any

    @classmethod
    def of(cls, system: System) -> "_Programs":
        mesh = devices.data_mesh()
        everywhere = devices.replicated(mesh)
        return cls(
            mesh=mesh,
            frozen=devices.put_everywhere(system.frozen, mesh),
            start=jax.jit(system.initial_state, out_shardings=everywhere),
            train=jax.jit(system.train_step, donate_argnums=0, out_shardings=everywhere),
            validate=jax.jit(system.validation_step, out_shardings=everywhere),
            complete=jax.jit(system.complete, out_shardings=everywhere),
        )

    @property
    def everywhere(self) -> jax.sharding.NamedSharding:
        return devices.replicated(self.mesh)


class _Run:
    """The loop and what it needs."""

    def __init__(
        self,
        config: Config,
        workdir: Path,
        feed: Feed,
        programs: _Programs,
        checkpoints: Checkpoints,
        progress: Progress,
        profile: bool,
    ):
        self.config, self.workdir, self.feed = config, workdir, feed
        self.programs, self.checkpoints, self.progress = programs, checkpoints, progress
        self.profile = profile
        self.schedule = Schedule.of(config.train, feed.steps_per_epoch)
        self.bar: tqdm = tqdm(disable=True)
        self.writer: RunWriter | None = None

    def until_done(self, state: TrainState) -> None:
        """Trains from the given state until the run is over or asked to stop."""
        step = int(state.step)
        if reason := self._over(step):
            _log.info("Nothing to do: %s", reason)
            return
        with StopRequest() as stop, logging_redirect_tqdm(), _progress_bar(step, self.schedule.max_steps) as self.bar:
            if jax.process_index() == 0:
                self.writer = RunWriter(self.workdir, step)
                self.writer.write_environment(step, describe_environment())
            batches = self.feed.training_batches(step)
            trace = StepTrace(self.workdir / "profile" if self.profile else None, step)
            try:
                step = self._loop(state, step, batches, stop, trace)
            except TrainingDivergedError as error:
                raise TrainingDivergedError(
                    f"{error}. The last good checkpoint is of step {self.checkpoints.latest_step()}, in "
                    f"{self.checkpoints.folder}. Start again in a new --workdir with a lower "
                    "--config.optimizer.generator_learning_rate and --config.optimizer.discriminator_learning_rate."
                ) from None
            finally:
                trace.close()
                batches.close()
                if self.writer:
                    self.writer.close()
            self.checkpoints.wait()
        self._say_goodbye(step)

    def _loop(self, state: TrainState, step: int, batches: Batches, stop: StopRequest, trace: StepTrace) -> int:
        schedule = self.schedule
        meter = Meter(schedule.log_every, self.config.batch_size, self._log)
        while True:
            due = step % schedule.validate_every == 0 or step >= schedule.max_steps
            if due and self.progress.validated_step != step:
                meter.flush()
                self._validate(state, step)
            elif step % schedule.checkpoint_every == 0:
                meter.flush()
                self._save(state, step)
            if self._over(step):
                return step
            if stop.granted(at_meeting_point=step % schedule.log_every == 0):
                meter.flush()
                self._save(state, step)
                return step
            trace.before(step)
            batch = devices.put_batch(next(batches), self.programs.mesh)
            with jax.transfer_guard("disallow"):  # all that a step needs is on the devices
                state, metrics = self.programs.train(state, batch, self.programs.frozen)
            step += 1
            meter.push(step, metrics)
            self.bar.update()

    def _over(self, step: int) -> str | None:
        """Why there is nothing more to train, if so. A step counts as done once it was validated."""
        if self.progress.validated_step != step:
            return None
        if step >= self.schedule.max_steps:
            return f"the limit of {self.schedule.max_steps} steps is reached (train.max_steps)."
        stale = step - self.progress.best_step
        if stale >= self.schedule.patience:
            return (
                f"the validation's {self.config.train.select_by} has not fallen for "
                f"{stale / self.schedule.steps_per_epoch:.1f} epochs since step {self.progress.best_step} "
                "(train.patience_epochs, train.patience_steps)."
            )
        return None

    def _validate(self, state: TrainState, step: int) -> None:
        programs, selected = self.programs, self.config.train.select_by
        # What the model does where nobody drew: asked of those alone that are trained for it.
        unguided = self.config.model.sketch and self.config.data.sketch_dropout > 0
        means = validate(
            programs.validate,
            state.published,
            self.feed.validation_batches(),
            programs.frozen,
            programs.mesh,
            unguided=unguided,
        )
        shown = "loss" if selected == "last" else selected
        score = -float(step) if selected == "last" else means[selected]
        if not math.isfinite(score):
            raise TrainingDivergedError(f"the validation's {selected} is {score} at step {step}")
        best = self.progress.update(step, score)
        if self.config.train.samples:
            sheet = sample_sheet(programs.complete, state.published, self.feed.samples, programs.mesh)
            if self.writer:
                self.writer.write_sheet(step, sheet)
        if self.writer:
            validation = {f"validation/{name}": value for name, value in means.items()}
            self.writer.write(step, step / self.schedule.steps_per_epoch, validation)
        # Last, so that a run killed before this validates once more, and drops the line written above.
        self._save(state, step, score)
        decibels = {name: f"{value:.2f}" for name, value in means.items() if name in _SHOWN}
        _log.info(
            "step %d: validation %s %.4f (%s); PSNR in dB: %s",
            step,
            shown,
            means[shown],
            "best so far" if best else f"best {self.progress.best_score:.4f} at step {self.progress.best_step}",
            ", ".join(f"{_SHOWN[name]} {decibels[name]}" for name in _SHOWN if name in decibels),
        )

    def _save(self, state: TrainState, step: int, score: float | None = None) -> None:
        progress = dataclasses.asdict(self.progress) | self.feed.fingerprint()
        if self.checkpoints.latest_step() == step:  # a resumed run; it may have been validated since it was saved
            if score is not None:
                self.checkpoints.add_score(step, progress, score)
            return
        generator, rest = state.split()
        self.checkpoints.save(step, generator=generator, rest=rest, progress=progress, score=score)

    def _log(self, step: int, means: dict[str, float]) -> None:
        means["host_memory_peak_gib"] = peak_memory()
        if not self.writer:
            return
        self.writer.write(step, step / self.schedule.steps_per_epoch, means)
        shown = {"images/s": f"{means['images_per_second']:.1f}"}
        losses = {"G": "loss/generator", "D": "loss/discriminator"}
        shown |= {short: f"{means[name]:.3f}" for short, name in losses.items() if name in means}
        if temperatures := [value for name, value in means.items() if name.startswith("temperature/")]:
            shown["t"] = "/".join(f"{t:.3g}" for t in temperatures)
        self.bar.set_postfix(shown, refresh=False)
        if self.bar.disable:  # no terminal: a line in the log instead of a bar
            _log.info("step %d: %s", step, ", ".join(f"{name} {value}" for name, value in shown.items()))

    def _say_goodbye(self, step: int) -> None:
        if skipped := self.feed.skipped:
            _log.warning("%d unreadable image(s) were skipped: %s", len(skipped), ", ".join(skipped))
        if jax.process_index() == 0:
            training_curves(read_metrics(self.workdir)).savefig(self.workdir / "curves.png", dpi=100)
        if reason := self._over(step):
            _log.info("Done: %s The best checkpoint is of step %d.", reason, self.progress.best_step)
        else:
            command = shlex.join(sys.argv)
            _log.info("Stopped at step %d, all saved. Go on with the same command: %s", step, command)


def _restore(
    checkpoints: Checkpoints, shapes: TrainState, programs: _Programs
) -> tuple[TrainState, dict[str, Any]] | None:
    """The state, and what was saved with it: how far the run had come, and what it was fed with. None in a new run."""
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=programs.everywhere), shapes)
    generator, rest = like.split()
    if (found := checkpoints.restore_latest(generator=generator, rest=rest)) is None:
        return None
    step, generator, rest, saved = found
    _log.info("Going on from the checkpoint of step %d.", step)
    return TrainState.join(generator, rest), saved


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
