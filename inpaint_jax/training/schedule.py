"""When what happens in a run, in steps."""

import dataclasses
import math

from inpaint_jax.config import Train


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
    def of(cls, fields: Train, steps_per_epoch: float) -> "Schedule":
        """Turns the fields of `config.train` into steps."""
        return cls(
            steps_per_epoch=steps_per_epoch,
            max_steps=fields.max_steps or math.inf,
            patience=min(fields.patience_epochs * steps_per_epoch, fields.patience_steps or math.inf),
            validate_every=max(1, round(fields.validate_every_epochs * steps_per_epoch)),
            checkpoint_every=fields.checkpoint_every_steps,
            log_every=fields.log_every_steps,
        )
