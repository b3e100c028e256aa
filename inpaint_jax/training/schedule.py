"""When what happens in a run, in steps."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Schedule:
    """When to stop, validate, save and log.

    Attributes:
        steps_per_epoch: a pass over the data need not be a whole number of steps.
        max_steps: inf for no limit.
        patience: steps without a better validation loss before the run stops.
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
        """Turns the fields of `config.train` into steps.

        Raises:
            ValueError: an interval is not positive.
        """
        intervals = {
            "validate_every_epochs": validate_every_epochs,
            "checkpoint_every_steps": checkpoint_every_steps,
            "log_every_steps": log_every_steps,
        }
        for name, value in intervals.items():
            if value <= 0:
                raise ValueError(f"train.{name} must be positive, not {value}.")
        return cls(
            steps_per_epoch=steps_per_epoch,
            max_steps=max_steps or math.inf,
            patience=min(patience_epochs * steps_per_epoch, patience_steps or math.inf),
            validate_every=max(1, round(validate_every_epochs * steps_per_epoch)),
            checkpoint_every=checkpoint_every_steps,
            log_every=log_every_steps,
        )
