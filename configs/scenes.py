"""The model that comes with the package: photos of all kinds, 64 x 64, half the paper's width, small_budget.py.

    inpaint-jax train --config=configs/scenes.py \\
        --config.data.train=folder:PATH/TO/train --config.data.validation=folder:PATH/TO/val

About 12 images/s on one of two CPU cores: 80 minutes. Scores, and how the model that ships was trained in two runs:
docs/scenes.md. It is trained on small crops at several scales, and used at any size. For a longer run raise
train.max_steps from the start, because the learning rate falls to 0 there. `benchmarks/ablation.py --study=recipe`
starts from this config, without guesses.
"""

from ml_collections import ConfigDict

from configs import default, small_budget


def get_config(variant: str | None = None) -> ConfigDict:
    """The config, see the top of the file."""
    config = default.get_config(variant, "scenes")
    small_budget.apply(config)
    config.batch_size = 8
    config.data.train = "folder:data/scenes/train"
    config.data.validation = "folder:data/scenes/val"
    config.data.test = "folder:data/scenes/val"
    config.data.image_size = 64
    if not config.model.sketch:
        config.data.zoom = 3.0
        config.train.guesses = 0.6
    config.data.workers = 1
    config.model.width = 12
    config.optimizer.warmup_steps = 200
    config.optimizer.ema_decay = 0.998
    config.train.max_steps = 7000
    config.train.validate_every_epochs = 0.95
    config.train.checkpoint_every_steps = 200
    return config
