"""Lists the models that come with the package: inpaint-jax models. Give a name to --checkpoint or --workdir."""

from absl import flags

REQUIRED = ()


def define(values: flags.FlagValues) -> None:
    """It has no flags."""


def run(values: flags.FlagValues) -> None:
    """Prints name, size, training size and terms of every model."""
    from inpaint_jax import models

    for name, path in models.shipped_models().items():
        config, _, step = models.load_model(name)
        size = path.stat().st_size / 2**20
        side = config.data.image_size
        print(f"{name}: {size:.1f} MiB, trained at {side} x {side} for {step} steps. {models.read_terms(path)}")
