"""The optimizers of config.optimizer, which all systems share."""

import optax

from inpaint_jax.config import Config


def make_optimizer(config: Config, peak: float) -> optax.GradientTransformation:
    """Adam by config.optimizer, for a network whose learning rate is at most `peak`."""
    adam = optax.adam(learning_rate(config, peak), b1=config.optimizer.beta1, b2=config.optimizer.beta2)
    if not config.optimizer.clip_norm:
        return adam
    return optax.chain(optax.clip_by_global_norm(config.optimizer.clip_norm), adam)


def learning_rate(config: Config, peak: float) -> optax.ScalarOrSchedule:
    """The learning rate by the number of updates: `peak` after the warm-up; "cosine" ends at config.train.max_steps."""
    warmup = config.optimizer.warmup_steps
    if config.optimizer.schedule == "cosine":
        assert config.train.max_steps is not None  # `Config.read` demands it
        return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, config.train.max_steps)
    return optax.linear_schedule(0.0, peak, warmup) if warmup else peak
