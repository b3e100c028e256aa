"""Settings for training in minutes or hours instead of days.

This is no config of its own: the small-budget configs call `apply`. docs/recipe.md says what we know of each setting.
"""

from ml_collections import ConfigDict


def apply(config: ConfigDict) -> None:
    """Changes the paper's settings to those for a small budget.

    Args:
        config: A config of configs/default.py, changed in place. The caller must set train.max_steps: the learning rate
            reaches 0 there.
    """
    config.data.masks = "mixed"
    config.data.zoom = 1.5 if not config.model.sketch else 1.0
    config.model.width = 8
    config.model.discriminator_width = 8
    config.model.discriminator_features = 128
    config.model.fill = "tension_spline"
    config.model.output = "residual"
    config.model.skips = True
    config.loss.l1 = "by_area"
    config.loss.hole_weight = 1.0
    config.loss.perceptual_weight = 0.0
    config.loss.adversarial_weight = 0.0
    config.optimizer.generator_learning_rate = 1e-3
    config.optimizer.beta2 = 0.99
    config.optimizer.clip_norm = 0.3  # about three times the usual norm
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 50
    config.optimizer.ema_decay = 0.99
    config.train.select_by = "hole_l1"
