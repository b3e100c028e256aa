"""Places2 (Places365-Standard), the paper's settings.

    inpaint-jax train --config=configs/places2.py

Hardware in the paper: two RTX 3090, about 10 days (some 1,030,000 steps of 16). Its scores by mask ratio are in
Table IV, for example PSNR 24.66 dB and FID 39.41 for ratios in (0.2, 0.3].

Prepare the data once (photos of 256 x 256; 31.4 GB to download, and about as much to write). It needs the extra
`tensorflow`, training does not. A copy that TFDS prepared in its default format is converted, without a download:

    inpaint-jax prepare tfds:places365_small

One epoch is 112,716 steps, and the paper's ten days are nine epochs, so its patience of 30 "epochs" must mean
validations. Here a validation comes every twentieth of an epoch, and the patience is 30 of them. Validation and test
photos are disjoint. The paper tests on 2,000 photos of the validation split and does not say which.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str | None = None) -> ConfigDict:
    """The config, see the top of the file."""
    config = default.get_config(variant, "places2")
    config.data.train = "tfds:places365_small:train"
    config.data.validation = "tfds:places365_small:validation[:500]"
    config.data.test = "tfds:places365_small:validation[500:2500]"
    config.data.workers = 8
    config.train.validate_every_epochs = 0.05
    config.train.patience_epochs = 1.5  # 30 validations
    return config
