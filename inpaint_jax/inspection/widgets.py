"""Sliders over the figures of `visualize`, for notebooks; needs ipywidgets (pip install 'inpaint-jax[notebooks]')."""

import functools
import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from inpaint_jax import inspection, visualize
from inpaint_jax.inference.inpainter import Inpainter

if TYPE_CHECKING:
    import ipywidgets


def attention_explorer(inpainter: Inpainter, samples: inspection.Samples) -> "ipywidgets.Widget":
    """Where the heads look: choose a photo, a query and a temperature.

    Args:
        inpainter: the model.
        samples: photos with holes to choose from.

    Returns:
        A widget with a menu of photos, sliders for the query's row and column and for log10 t, and the figure: each
        head at its learned temperature, then each at that of the slider.

    Raises:
        ImportError: ipywidgets is not installed.
    """
    import ipywidgets as widgets

    @functools.cache
    def inputs_of(number: int) -> inspection.HeadInputs:
        return inspection.look_into(inpainter, samples, number)

    first = inputs_of(0)
    row, column = inspection.hole_centre(first) if first.hole.any() else (0, 0)
    photo = widgets.Dropdown(options=range(len(samples)), value=0, description="photo")
    row = widgets.IntSlider(row, 0, first.height - 1, description="query row", continuous_update=False)
    column = widgets.IntSlider(column, 0, first.width - 1, description="column", continuous_update=False)
    log_t = widgets.FloatSlider(-1, min=-4, max=1, step=0.05, description="log10 t", continuous_update=False)
    picture = widgets.Image(format="png")

    def draw(_: object = None) -> None:
        figure = attention_figure(
            inputs_of(photo.value),
            samples.images[photo.value],
            samples.masks[photo.value],
            (row.value, column.value),
            10**log_t.value,
        )
        picture.value = _png(figure)

    for control in (photo, row, column, log_t):
        control.observe(draw, "value")
    draw()
    return widgets.VBox([widgets.HBox([photo, log_t]), widgets.HBox([row, column]), picture])


def attention_figure(
    inputs: inspection.HeadInputs,
    image: np.ndarray,
    mask: np.ndarray,
    query: tuple[int, int],
    temperature: float,
) -> Figure:
    """The figure of `attention_explorer`: each head at its learned temperature, and at another one.

    Args:
        inputs: Inputs of the heads for the photo, see `inspection.look_into`.
        image: uint8 [H, W, 3].
        mask: bool [H, W], True = missing.
        query: row and column on the attention's map.
        temperature: The other temperature.
    """
    heads = range(len(inputs.embedded))
    weights = [inspection.attended(inputs, query, head=head) for head in heads]
    titles = [f"head {head}, learned t = {inputs.temperatures[head]:.2g}" for head in heads]
    weights += [inspection.attended(inputs, query, head=head, temperature=temperature) for head in heads]
    titles += [f"head {head}, t = {temperature:.2g}" for head in heads]
    return visualize.attended(image, mask, query, weights, titles, patch_size=inputs.patch_size, cell=inspection.CELL)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=90)
    return file.getvalue()
