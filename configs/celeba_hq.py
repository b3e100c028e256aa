"""CelebA-HQ, the paper's settings.

    inpaint-jax train --config=configs/celeba_hq.py

Hardware in the paper: two RTX 3090, about 7 days (some 720,000 steps of 16). Score in the paper, random free-form
masks, 2,000 test faces: MAE 1.282 %, PSNR 28.82 dB, SSIM 0.9167, FID 5.147.

Prepare the data once. TFDS makes it of a file that you get by hand, data256x256.tar, which holds the 30,000 faces as
PNG files; put it into ~/tensorflow_datasets/downloads/manual. It needs the extra `tensorflow`, training does not. A
copy that TFDS prepared in its default format is converted, without that file:

    inpaint-jax prepare tfds:celeb_a_hq/256

The paper tests on 1,000 male and 1,000 female faces drawn at random and does not say which, so the last 2,000 stand in
for them, in the order of TFDS, which shuffles. The 500 before these decide when to stop; nothing is trained on them.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str | None = None) -> ConfigDict:
    """The config, see the top of the file."""
    config = default.get_config(variant, "celeba_hq")
    config.data.train = "tfds:celeb_a_hq/256:train[:27500]"
    config.data.validation = "tfds:celeb_a_hq/256:train[27500:28000]"
    config.data.test = "tfds:celeb_a_hq/256:train[28000:]"
    return config
