"""Lists the models that are there: inpaint-jax models. Give a name to --checkpoint or --workdir.

First those that come with the package, then those of the Hugging Face Hub in the cache, then the systems whose
published weights inpaint-jax import reads.
"""

import hashlib

from absl import flags

REQUIRED = ()


def define(values: flags.FlagValues) -> None:
    """The flag."""
    flags.DEFINE_string("card", None, "Prints the model card of this one.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Prints size, training, checksum, scores and terms of every model, or one model's card."""
    from inpaint_jax import hub, models

    if values.card:
        path = models.find_model(values.card)
        models.read_model(path)  # says what is wrong with it
        print(models.read_text(path, "card") or f"{values.card} has no model card.")
        return
    for name, path in (models.shipped_models() | hub.cached()).items():
        _, config, step = models.read_model(path)
        size, side = path.stat().st_size / 2**20, config["data"]["image_size"]
        print(f"{name}: {size:.1f} MiB, trained at {side} x {side} for {step} steps.")
        print(f"    SHA-256: {hashlib.sha256(path.read_bytes()).hexdigest()}")
        if summary := models.summary(path):
            print(f"    {summary}")
        if terms := models.read_text(path, "terms"):
            print(f"    Terms: {terms}")
    for system, terms in models.importable_weights().items():
        print(f"inpaint-jax import --system={system}\n    {terms}")
