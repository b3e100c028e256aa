"""When what happens in a run, in steps; and how fast it learns at each of them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import optax


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When to stop, validate, save and log.

    Attributes:
        steps_per_epoch: a pass over the data need not be a whole number of steps.
        max_steps: inf for no limit.
        patience: steps without a better validation before the run stops.
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

    @classmethod
    def from_epochs(
        cls,
        steps_per_epoch: float,
        *,
        max_steps: int | None,
        patience_epochs: float,
        patience_steps: int | None,
        validate_every_epochs: float,
        checkpoint_every_steps: int,
        log_every_steps: int,
    ) -> "Schedule":
        """Turns the fields of `config.train` into steps."""
        return cls(
            steps_per_epoch=steps_per_epoch,
            max_steps=math.inf if max_steps is None else max_steps,
            patience=min(patience_epochs * steps_per_epoch, math.inf if patience_steps is None else patience_steps),
            validate_every=max(1, round(validate_every_epochs * steps_per_epoch)),
            checkpoint_every=checkpoint_every_steps,
            log_every=log_every_steps,
        )


def learning_rate(config: Mapping[str, Any], peak: float) -> optax.ScalarOrSchedule:
    """The learning rate by the number of updates, by `config.optimizer.schedule` and `.warmup_steps`.

    Args:
        config: of the run; "cosine" needs its train.max_steps.
        peak: the rate after the warm-up.
    """
    warmup = config["optimizer"]["warmup_steps"]
    if config["optimizer"]["schedule"] == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, config["train"]["max_steps"])
    return optax.linear_schedule(0.0, peak, warmup) if warmup else peak
