"""Pictures of results and runs, for training sheets, evaluation, reports and notebooks alike.

Functions take arrays and return arrays or matplotlib figures; they compute no network and save nothing. What the
figures of the attention are drawn of comes from `inpaint_jax.inspection`.
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
