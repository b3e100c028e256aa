"""A look into a trained model and its inputs: the arrays behind the figures of `visualize`.

The notebooks use these functions. They take an `Inpainter` or photos, run the model where needed, and return arrays.
They draw nothing.
"""

from inpaint_jax.inspection.attention import (
    CELL,
    HeadInputs,
    Sweep,
    attended,
    hole_centre,
    look_into,
    refined_maps,
    sweep,
)
from inpaint_jax.inspection.inputs import (
    Samples,
    evaluation_sketches,
    mask_ratios,
    masks_by_ratio,
    samples,
    sketch_steps,
    training_samples,
)
from inpaint_jax.inspection.model import (
    at_temperatures,
    hole_psnr,
    psnr_by_temperature,
    temperatures_by_ratio,
    with_parts_switched_off,
)

__all__ = [
    "CELL",
    "HeadInputs",
    "Samples",
    "Sweep",
    "at_temperatures",
    "attended",
    "evaluation_sketches",
    "hole_centre",
    "hole_psnr",
    "look_into",
    "mask_ratios",
    "masks_by_ratio",
    "psnr_by_temperature",
    "refined_maps",
    "samples",
    "sketch_steps",
    "sweep",
    "temperatures_by_ratio",
    "training_samples",
    "with_parts_switched_off",
]
