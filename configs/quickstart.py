"""A small model on photos that ship with scikit-image: minutes on two CPU cores, no download.

    inpaint-jax train --config=configs/quickstart.py

It takes four minutes on two CPU cores: 64 x 64, a third of the paper's channels, the settings of small_budget.py. Nine
photos, three of them textures, teach little that holds for other photos. Nearly all that makes this model better than
the classical methods is the fill that it starts from. It shows that everything works; it is no measure of the method.
"""

from ml_collections import ConfigDict

from configs import default, small_budget


def get_config(variant: str | None = None) -> ConfigDict:
    """The config, see the top of the file."""
    config = default.get_config(variant, "quickstart")
    small_budget.apply(config)
    config.batch_size = 8
    config.data.train = "skimage:train"
    config.data.validation = "skimage:validation"
    config.data.test = "skimage:validation"
    config.data.image_size = 64
    if not config.model.sketch:
        config.data.zoom = 2.0  # the tiles have 128 to 256 pixels
    # Three of the nine photos are textures. By area they would have most of the weight, and the others would get worse.
    config.loss.l1 = "relative"
    config.train.select_by = "loss"
    # On so few photos the slower optimizer of small_budget.py overfits before it has learned anything.
    config.optimizer.generator_learning_rate = 3e-3
    config.optimizer.beta2 = 0.9
    config.optimizer.clip_norm = 0.0
    config.train.max_steps = 900
    config.train.validate_every_epochs = 0.6
    config.train.log_every_steps = 25
    return config
