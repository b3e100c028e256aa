"""Paris StreetView, the paper's settings.

    python train.py --config=configs/paris_streetview.py \\
        --config.data.train=folder:PATH/TO/paris_train --config.data.validation=folder:PATH/TO/paris_val

Hardware in the paper: two RTX 3090, about 6 days (71.8 batches of 16 a minute, some 620,000 steps). The paper gives
no table for this data set. The photos (936 x 537) are handed out by their authors on request; any folder will do.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """See the top of the file."""
    config = default.get_config()
    config.name = "paris_streetview"
    config.data.train = "folder:data/paris_streetview/train"
    config.data.validation = "folder:data/paris_streetview/val"
    config.data.test = "folder:data/paris_streetview/val"
    return config
