"""Places2 (Places365-Standard), the paper's settings.

    python train.py --config=configs/places2.py

Hardware in the paper: two RTX 3090, about 10 days (some 1,030,000 steps of 16). Score in the paper by mask ratio:
Table IV, for example PSNR 24.66 dB and FID 39.41 for ratios in (0.2, 0.3].

TFDS downloads places365_small (256 x 256) by itself. One epoch is 112,716 steps, so it validates every twentieth.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """See the top of the file."""
    config = default.get_config()
    config.name = "places2"
    config.data.train = "tfds:places365_small:train"
    config.data.validation = "tfds:places365_small:validation[:2000]"
    config.data.test = "tfds:places365_small:validation"
    config.data.workers = 8
    config.data.validation_limit = 500
    config.train.validate_every_epochs = 0.05
    config.train.patience_epochs = 1.5  # 30 validations
    return config
