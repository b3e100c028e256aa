"""Partial convolutions (Liu et al. 2018) on Places2, as their PyTorch version trains them.

    inpaint-jax train --config=configs/parconv.py --workdir=runs/parconv

Batches of 16 photos of 256 x 256, Adam at 2e-4, 500,000 steps, no flips; masks are random walks
(data.masks=random_walk). Then come 500,000 steps at a lower rate that leave the statistics of the encoder's batch
normalisation alone:

    inpaint-jax train --config=configs/parconv.py --workdir=runs/parconv_tuned --init_from=runs/parconv \
        --config.train.freeze_encoder_statistics --config.optimizer.generator_learning_rate=5e-5

The perceptual and style losses need torchvision's VGG-16, a download of 528 MiB at the first use, or
--config.loss.vgg_weights=vgg16-397923af.pth. --config.loss.perceptual_weight=0 --config.loss.style_weight=0 train
without; the log says so.

--config=configs/parconv.py:paper changes the data alone, to those of configs/places2.py, as the paper under study
trained what it compares itself with: "exactly the same dataset setting and mask generation".

We have not run it. To try it: --config.data.train=skimage:train --config.data.validation=skimage:validation
--config.data.image_size=128 --config.model.width=16 --config.train.max_steps=200 with both weights at 0.
"""

from ml_collections import ConfigDict

from configs import places2


def get_config(variant: str | None = None) -> ConfigDict:
    """The config, see the top of the file.

    Raises:
        ValueError: there is no such variant.
    """
    if variant not in (None, "", "paper"):
        raise ValueError(f"There is no variant {variant!r}; leave it out, or take :paper.")
    config = places2.get_config()
    config.name = f"parconv_{variant}" if variant else "parconv"
    config.system = "parconv"
    if not variant:
        config.data.masks = "random_walk"
        config.data.resize = "stretch"
        config.data.flip = 0.0
    config.model.width = 64
    config.loss.perceptual_weight = 0.05
    config.optimizer.generator_learning_rate = 2e-4
    config.optimizer.beta1, config.optimizer.beta2 = 0.9, 0.999
    config.train.max_steps = 500_000
    config.train.select_by = "last"
    return config
