"""A small model for photos of all kinds, 128 x 128, a third of the paper's channels, the settings of small_budget.py.

    inpaint-jax train --config=configs/scenes.py \\
        --config.data.train=folder:PATH/TO/train --config.data.validation=folder:PATH/TO/val

It takes 40 minutes at 3 images/s, on one of two CPU cores beside another run. We have not yet trained it to its end.
For a longer run raise train.max_steps from the start, because the learning rate falls to 0 there.
`benchmarks/ablation.py --study=recipe` starts from this config.
"""

from ml_collections import ConfigDict

from configs import default, small_budget


def get_config(variant: str | None = None) -> ConfigDict:
    """The config, see the top of the file."""
    config = default.get_config(variant, "scenes")
    small_budget.apply(config)
    config.batch_size = 4
    config.data.train = "folder:data/scenes/train"
    config.data.validation = "folder:data/scenes/val"
    config.data.test = "folder:data/scenes/val"
    config.data.image_size = 128
    config.data.workers = 1
    config.optimizer.ema_decay = 0.995
    config.train.max_steps = 1800
    config.train.validate_every_epochs = 0.5
    config.train.checkpoint_every_steps = 100
    return config
