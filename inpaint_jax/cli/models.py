"""Lists the models that are there: inpaint-jax models. Give a name to --checkpoint or --workdir.

First those that come with the package, then those of the Hugging Face Hub in the cache, then the systems whose
published weights inpaint-jax import reads.
"""

import hashlib
import json

from absl import flags

from inpaint_jax.errors import UserError

REQUIRED = ()


def define(values: flags.FlagValues) -> None:
    """The flag."""
    flags.DEFINE_string("card", None, "Prints the model card of this one.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Prints size, training, checksum, scores and terms of every model, or one model's card."""
    from inpaint_jax import hub, models

    if values.card:
        card = models.read_metadata(models.find_model(values.card)).get("card")
        print(card or f"{values.card} has no model card.")
        return
    shipped = models.shipped_models()
    for name, path in (shipped | hub.cached()).items():
        try:
            metadata = models.read_metadata(path)
        except UserError:
            if name in shipped:
                raise
            continue  # of another library, in the cache of the hub
        size, side = path.stat().st_size / 2**20, json.loads(metadata["config"])["data"]["image_size"]
        print(f"{name}: {size:.1f} MiB, trained at {side} x {side} for {metadata['step']} steps.")
        print(f"    SHA-256: {hashlib.sha256(path.read_bytes()).hexdigest()}")
        if card := metadata.get("card"):
            print(f"    {models.summary(card)}")
        if terms := metadata.get("terms"):
            print(f"    Terms: {terms}")
    for system, terms in models.importable_weights().items():
        print(f"inpaint-jax import --system={system}\n    {terms}")
