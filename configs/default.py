"""The paper's settings (Section IV-B) at 256 x 256, without data; inpaint_jax/config.py says what each field means.

--config=configs/places2.py:sketch (and every other file) makes a model that is guided by sketches (Section IV-F): it
has a fifth input channel. Sketches of data sets come from `inpaint-jax sketch`, in the folders that data.sketches and
data.validation_sketches name; without these, training starts by making them in its workdir.
"""

from ml_collections import ConfigDict

from inpaint_jax.config import Config, to_config_dict


def get_config(variant: str | None = None, name: str = "default") -> ConfigDict:
    """The paper's settings, without data.

    Args:
        variant: what stands behind the colon in --config=configs/places2.py:sketch; "sketch" or nothing.
        name: of the config.

    Raises:
        ValueError: there is no such variant.
    """
    if variant not in (None, "", "sketch"):
        raise ValueError(f"There is no variant {variant!r}; leave it out, or take :sketch.")
    config = to_config_dict(Config())
    config.name = f"{name}_{variant}" if variant else name  # names the default workdir, runs/<name>
    config.model.sketch = variant == "sketch"
    return config
