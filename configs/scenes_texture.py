"""Texture for the model of configs/scenes.py: it goes on from there, against a critic that judges every patch.

    inpaint-jax train --config=configs/scenes_texture.py \\
        --config.data.train=folder:PATH/TO/train --config.data.validation=folder:PATH/TO/val

15 images/s on one of two CPU cores: 45 minutes. The distance to the photo grows meanwhile, which is the price of
texture: the best checkpoint is the last one. Scores and pictures: docs/models.md.
"""

from ml_collections import ConfigDict

from configs import scenes


def get_config(variant: str | None = None) -> ConfigDict:
    """The config, see the top of the file."""
    config = scenes.get_config(variant)
    config.name = config.name.replace("scenes", "scenes_texture")
    if not config.model.sketch:
        config.data.zoom = 4.0
    config.model.discriminator = "patch"
    config.model.discriminator_width = 32
    config.loss.adversarial_weight = 0.02
    config.loss.feature_matching_weight = 0.1
    config.optimizer.generator_learning_rate = 3e-4
    config.optimizer.discriminator_learning_rate = 5e-4
    config.optimizer.warmup_steps = 50
    config.train.init_from = "scenes"  # :sketch needs the --init_from of a guided model
    config.train.select_by = "last"
    config.train.max_steps = 5000
    return config
