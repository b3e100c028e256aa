"""How far a run has come by its validations: what early stopping and resuming go by."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass
class Progress:
    """Saved with every checkpoint.

    Attributes:
        best_score: the lowest score of a validation so far (see config.train.select_by), None before the first one.
        best_step: the step that it is of.
        validated_step: the last step that was validated; a restarted run does not validate it again.
    """

    best_score: float | None = None
    best_step: int = 0
    validated_step: int = -1

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Progress":
        """The progress among what was saved with a checkpoint."""
        return cls(**{field.name: saved[field.name] for field in dataclasses.fields(cls)})

    def update(self, step: int, score: float) -> bool:
        """Takes a validation into account.

        Args:
            step: that was validated.
            score: lower is better.

        Returns:
            whether it is the best so far.
        """
        self.validated_step = step
        if self.best_score is not None and score >= self.best_score:
            return False
        self.best_score, self.best_step = score, step
        return True
