"""Paris StreetView, the paper's settings.

    inpaint-jax train --config=configs/paris_streetview.py \\
        --config.data.train=folder:PATH/TO/paris_train --config.data.validation=folder:PATH/TO/paris_val

Hardware in the paper: two RTX 3090, about 6 days (71.8 batches of 16 a minute, some 620,000 steps). The paper gives
no table for this data set. Its only split has 100 photos besides the training set: they decide when to stop, and test
the result. --config=configs/paris_streetview.py:sketch is guided by sketches (Section IV-F), see default.py.

The authors of the photos (936 x 537) send them on request. Any other folder of photos works too.
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str | None = None) -> ConfigDict:
    """The config, see the top of the file."""
    config = default.get_config(variant, "paris_streetview")
    config.data.train = "folder:data/paris_streetview/train"
    config.data.validation = "folder:data/paris_streetview/val"
    config.data.test = "folder:data/paris_streetview/val"
    return config
