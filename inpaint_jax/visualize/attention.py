"""What the temperatures do: the paper's Figs. 1c and 1d, and where the heads look.

Maps are those of the attention, at a quarter of the photo's size; a cell of a map is 4 x 4 pixels of the photo.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from inpaint_jax.visualize.style import COLOURS, SEQUENTIAL, number, outline, picture_panels, show


def trajectory(
    known: np.ndarray,
    refined: np.ndarray,
    temperatures: np.ndarray,
    *,
    best: int,
    learned: np.ndarray,
    learned_temperature: float,
) -> Figure:
    """The path of a refined query patch through a sweep of temperatures, among the known patches (Fig. 1c).

    The plane is that of the first two principal components of the known patches. From cold to warm, the path leads
    from the most similar known patch to the mean of all, where the components are zero.

    Args:
        known: [N, D] the valid key patches of an image.
        refined: [T, D] the query's refined patch at each temperature.
        temperatures: [T], rising.
        best: Number of the key that is most similar to the query.
        learned: [D] the refined patch at the learned temperature.
        learned_temperature: The learned temperature.

    Returns:
        A figure of one panel. Each axis names its share of the variance of the patches.
    """
    centre, axes_of, shares = principal_components(known, 2)
    known, refined = (known - centre) @ axes_of.T, (refined - centre) @ axes_of.T
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.scatter(*known.T, s=14, color=COLOURS[5], alpha=0.7, linewidths=0, label="known patches")
    scale = LogNorm(temperatures[0], temperatures[-1])
    way = LineCollection([*np.stack([refined[:-1], refined[1:]], axis=1)], cmap=SEQUENTIAL, norm=scale, linewidths=2)
    way.set_array(np.sqrt(temperatures[:-1] * temperatures[1:]))
    axes.add_collection(way)
    points = axes.scatter(
        *refined.T, c=temperatures, cmap=SEQUENTIAL, norm=scale, s=26, edgecolors="black", linewidths=0.4, zorder=3
    )
    at = (learned - centre) @ axes_of.T
    marks = (
        (known[best], "s", 210, "none", "most similar known patch"),
        (np.zeros(2), "X", 90, "white", "mean of all known patches"),
        (at, "*", 150, COLOURS[1], f"learned temperature, t = {number(learned_temperature)}"),
    )
    for (x, y), marker, size, colour, label in marks:
        axes.scatter(x, y, s=size, marker=marker, facecolor=colour, edgecolors="black", zorder=4, label=label)
    axes.set(
        title="A refined query patch under rising temperature (Fig. 1c)",
        xlabel=f"first principal component ({shares[0]:.0%} of the variance)",
        ylabel=f"second ({shares[1]:.0%})",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, markerscale=0.6)
    figure.colorbar(points, ax=axes, label="temperature t")
    return figure


def refined_maps(
    embedded: Sequence[np.ndarray],
    refined: Sequence[np.ndarray],
    temperatures: np.ndarray,
    mask: np.ndarray,
    learned: Sequence[float],
) -> Figure:
    """The refined map of each head at each temperature, principal components as colours (Fig. 1d).

    Every row has one basis and one range of colours, those of the embedded features, so that its panels can be
    compared: a smooth panel has lost detail.

    Args:
        embedded: F_e of each head, [H, W, C'].
        refined: F_r of each head, [T, H, W, C'].
        temperatures: [T].
        mask: bool [H, W], True = missing.
        learned: The learned temperature of each head, written over the panel nearest to it.

    Returns:
        A figure with a row for each head: its embedded features, then its refined map at each temperature.
    """
    figure, panels = picture_panels(len(embedded), 1 + len(temperatures), side=1.7)
    for head, row in enumerate(panels):
        to_colours = _colours_of(embedded[head])
        show(row[0], to_colours(embedded[head]), "embedded features")
        row[0].set_ylabel(f"head {head}", fontsize=9)
        nearest = int(np.argmin(np.abs(np.log(temperatures / learned[head])))) if learned[head] > 0 else -1
        for column, (axes, temperature) in enumerate(zip(row[1:], temperatures)):
            show(axes, to_colours(refined[head][column]), f"t = {number(temperature)}")
            if column == nearest:
                title = f"t = {number(temperature)}\n(learned: {number(learned[head])})"
                axes.set_title(title, fontsize=9, fontweight="bold")
        for axes in row:
            outline(axes, mask)
    figure.suptitle("Refined maps, principal components as colours (Fig. 1d)", fontsize=11)
    return figure


def attended(
    image: np.ndarray,
    mask: np.ndarray,
    query: tuple[int, int],
    weights: Sequence[np.ndarray],
    titles: Sequence[str],
    *,
    patch_size: int,
    cell: int = 4,
) -> Figure:
    """Where a query pixel looks: the weights of its keys over the photo, for each head or temperature.

    Every panel has its own scale, from zero to its largest weight. Its title has that weight, and over how many patches
    the weights are spread: exp of their entropy, which is 1 if one key has all the weight. If more than 1 % of the
    weight lies in the padding behind the photo, the title has that share, too.

    Args:
        image: uint8 [H, W, 3].
        mask: bool [H, W], True = missing.
        query: row and column on the map of the attention, whose cells have `cell` pixels a side.
        weights: [h, w] each, with the weight of a key at the centre of its patch and 0 elsewhere. Where a sum is below
            one, the rest lies in the padding.
        titles: Titles of the panels.
        patch_size: s; a frame shows the query's patch.
        cell: Side, in pixels of the photo, of a pixel of the map.

    Returns:
        A figure: the photo with hole and query, then a panel for each entry of `weights`.
    """
    figure, panels = picture_panels(1, 1 + len(weights), side=2.5)
    grey = image.mean(axis=-1, keepdims=True).repeat(3, axis=-1) / 255
    show(panels[0, 0], image, "photo, hole and query")
    for axes, weight, title in zip(panels[0, 1:], weights, titles):
        title = f"{title}\nlargest {weight.max():.2g}, spread over {number(spread(weight))}"
        if (padding := 1 - weight.sum()) > 0.01:
            title += f"\n{padding:.0%} in the padding"
        show(axes, 0.25 + 0.5 * grey, title)
        _overlay(axes, weight / (weight.max() or 1), cell)
    for axes in panels[0]:
        outline(axes, mask)
        top, left = (cell * (at - (patch_size - 1) // 2) for at in query)
        side = cell * patch_size
        axes.add_patch(Rectangle((left, top), side, side, fill=False, edgecolor=COLOURS[1], linewidth=2.2))
        axes.set(xlim=(0, image.shape[1]), ylim=(image.shape[0], 0))
    return figure


def principal_components(points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The directions in which points vary most.

    Args:
        points: [N, D].
        count: Number of directions; if there are fewer, the rest are zero.

    Returns:
        The mean [D], the directions [count, D] of unit length, and the share of the variance of each [count]. The sign
        of a direction makes its largest entry positive, so that figures of the same data look the same.
    """
    centre = points.mean(axis=0)
    _, lengths, directions = np.linalg.svd(points - centre, full_matrices=False)
    shares = lengths**2 / max((lengths**2).sum(), np.finfo(np.float32).tiny)
    largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=1)[:, None], axis=1)
    directions = directions * np.where(largest < 0, -1, 1)
    missing = max(0, count - len(directions))
    return centre, np.pad(directions, ((0, missing), (0, 0)))[:count], np.pad(shares, (0, missing))[:count]


def spread(weights: np.ndarray) -> float:
    """Over how many keys weights of any sum are spread: exp of their entropy, n for n equal weights, 0 for none."""
    positive = weights[weights > 0].astype(np.float64)
    if not positive.size:
        return 0.0
    positive /= positive.sum()
    return float(np.exp(-(positive * np.log(positive)).sum()))


def _overlay(axes: Axes, weight: np.ndarray, cell: int) -> None:
    """Draws weights in [0, 1] over a photo, larger ones more opaque."""
    colours = colormaps[SEQUENTIAL](weight)
    colours[..., 3] = np.sqrt(weight)  # so that small weights show, too
    height, width = weight.shape
    axes.imshow(colours, interpolation="nearest", extent=(0, cell * width, cell * height, 0))


def _colours_of(features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from maps to colours in [0, 1], by the first three principal components of features [H, W, C']."""
    centre, directions, _ = principal_components(features.reshape(-1, features.shape[-1]), 3)
    projected = (features - centre) @ directions.T
    low, high = np.percentile(projected.reshape(-1, 3), (1, 99), axis=0)
    return lambda maps: np.clip(((maps - centre) @ directions.T - low) / np.maximum(high - low, 1e-12), 0, 1)
