"""Pictures of results and runs, for training, evaluation, reports and notebooks.

Functions take arrays and return arrays or matplotlib figures. They run no network and save nothing. The arrays behind
the figures of the attention come from `inpaint_jax.inspection`.
"""

from inpaint_jax.visualize.attention import attended, refined_maps, trajectory
from inpaint_jax.visualize.curves import (
    metrics_by_ratio,
    psnr_by_temperature,
    ratio_histogram,
    temperature_curves,
    temperature_distribution,
    training_curves,
)
from inpaint_jax.visualize.sheets import image_sheet, network_input
from inpaint_jax.visualize.style import COLOURS, SEQUENTIAL

__all__ = [
    "COLOURS",
    "SEQUENTIAL",
    "attended",
    "image_sheet",
    "metrics_by_ratio",
    "network_input",
    "psnr_by_temperature",
    "ratio_histogram",
    "refined_maps",
    "temperature_curves",
    "temperature_distribution",
    "training_curves",
    "trajectory",
]
