"""DeepFillv2 (Yu et al. 2019) on Places2, as its PyTorch version trains it.

    inpaint-jax train --config=configs/deepfillv2.py

Batches of 16 crops of 256 x 256, Adam at a constant rate, a million steps, no flips; the last state is the result. Both
L1 losses have the weight 1 there, of images in [-1, 1]: that is 2 of images in [0, 1]. Masks are a box of at most half
the side united with strokes (data.masks=deepfillv2); every sample has its own, where the published code draws one for
the batch. It cuts its crops out of Places2's full-size photos; places365_small holds them at 256 x 256.

--config=configs/deepfillv2.py:paper changes the data alone, to those of configs/places2.py, as the paper under study
trained what it compares itself with: "exactly the same dataset setting and mask generation".

We have not run it. To try it: --config.data.train=skimage:train --config.data.validation=skimage:validation
--config.data.image_size=64 --config.train.max_steps=200.
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
    config.name = f"deepfillv2_{variant}" if variant else "deepfillv2"
    config.system = "deepfillv2"
    if not variant:
        config.data.masks = "deepfillv2"
        config.data.flip = 0.0
    config.loss.coarse_weight = config.loss.refined_weight = 2.0
    config.loss.perceptual_weight = 0.0
    config.loss.adversarial_weight = 1.0
    config.optimizer.beta2 = 0.999
    config.train.max_steps = 1_000_000
    config.train.select_by = "last"
    return config
