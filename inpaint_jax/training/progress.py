"""How far a run has come by its validation loss: what early stopping and resuming go by."""

import dataclasses


@dataclasses.dataclass
class Progress:
    """Saved with every checkpoint.

    Attributes:
        best_loss: the lowest validation loss so far, None before the first validation.
        best_step: the step that it is of.
        validated_step: the last step that was validated; a restarted run does not validate it again.
    """

    best_loss: float | None = None
    best_step: int = 0
    validated_step: int = -1

    def update(self, step: int, loss: float) -> bool:
        """Takes a validation loss into account.

        Args:
            step: that was validated.
            loss: its validation loss.

        Returns:
            whether it is the best so far.
        """
        self.validated_step = step
        if self.best_loss is not None and loss >= self.best_loss:
            return False
        self.best_loss, self.best_step = loss, step
        return True
