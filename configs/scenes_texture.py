"""Texture for the model of configs/scenes.py: it goes on from there, against a critic that judges every patch.

    inpaint-jax train --config=configs/scenes_texture.py \\
        --config.data.train=folder:PATH/TO/train --config.data.validation=folder:PATH/TO/val

2.3 images/s on one of two busy CPU cores. The distance to the photo grows meanwhile, which is the price of texture: the
best checkpoint is the last one. What we saw of it: docs/recipe.md.
"""

from ml_collections import ConfigDict

from configs import scenes


def get_config(variant: str | None = None) -> ConfigDict:
    """The config, see the top of the file."""
    config = scenes.get_config(variant)
    config.name = config.name.replace("scenes", "scenes_texture")
    config.batch_size = 3
    config.data.image_size = 128
    if not config.model.sketch:
        config.data.zoom = 2.5
    config.model.discriminator = "patch"
    config.model.discriminator_width = 32
    config.loss.adversarial_weight = 0.02
    config.loss.feature_matching_weight = 0.1
    config.optimizer.generator_learning_rate = 2.5e-4
    config.optimizer.discriminator_learning_rate = 5e-4
    config.optimizer.warmup_steps = 20
    config.optimizer.ema_decay = 0.99
    config.train.init_from = "scenes"  # :sketch needs the --init_from of a guided model
    config.train.guesses = 0.0
    config.train.select_by = "last"
    config.train.max_steps = 1000
    config.train.validate_every_epochs = 0.35
    return config
