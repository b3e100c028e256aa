"""Figures show the data that they were given."""

import io

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from inpaint_jax import visualize
from inpaint_jax.visualize import attention, style


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def drawn(figure):
    """A figure as pixels, which also proves that it can be drawn."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=60)
    return np.asarray(Image.open(file).convert("RGB"))


def test_sheets_take_masks_and_enlarge(rng):
    photos, masks = rng.integers(0, 256, (2, 6, 40, 3), np.uint8), rng.random((2, 6, 40)) < 0.5
    sheet = visualize.image_sheet({"photo": photos, "mask": masks}, scale=3)
    found = sheet[22 : 22 + 18, 4 : 4 + 120]
    np.testing.assert_array_equal(found[::3, ::3], photos[0])
    np.testing.assert_array_equal(found[2::3, 2::3], photos[0])
    below = sheet[22 + 22 : 22 + 40, 4 + 124 : 4 + 244]
    np.testing.assert_array_equal(below[::3, ::3], 255 * np.repeat(masks[1][..., None], 3, axis=-1))
    with pytest.raises(ValueError, match="one shape"):
        visualize.image_sheet({"photo": photos, "mask": masks[:1]})


def test_trajectory_runs_from_the_best_match_to_the_mean(rng):
    known = rng.normal(size=(30, 12)) * np.arange(1, 13)
    temperatures = np.geomspace(1e-3, 10, 9)
    share = np.linspace(0, 1, 9)[:, None]
    refined = (1 - share) * known[7] + share * known.mean(axis=0)
    figure = visualize.trajectory(
        known, refined, temperatures, best=7, learned=refined[3], learned_temperature=temperatures[3]
    )
    background, way, points, best, mean, learned = figure.axes[0].collections
    assert len(background.get_offsets()) == 30
    places = points.get_offsets()
    np.testing.assert_allclose(places[0], background.get_offsets()[7])
    np.testing.assert_allclose(places[0], best.get_offsets()[0])
    np.testing.assert_allclose(places[-1], mean.get_offsets()[0], atol=1e-9)
    np.testing.assert_allclose(places[3], learned.get_offsets()[0])
    np.testing.assert_allclose(points.get_array(), temperatures)
    assert len(way.get_segments()) == 8
    # The plane of the largest variance: no other two directions hold as much.
    centred = known - known.mean(axis=0)
    assert np.var(background.get_offsets(), axis=0).sum() >= np.var(centred[:, -2:], axis=0).sum()
    assert drawn(figure).std() > 10


def test_refined_maps_share_one_basis(rng):
    embedded = [rng.normal(size=(8, 10, 5)), rng.normal(size=(8, 10, 5))]
    refined = [np.stack([each, np.broadcast_to(each.mean(axis=(0, 1)), each.shape)]) for each in embedded]
    mask = np.zeros((8, 10), bool)
    mask[2:4, 3:6] = True
    figure = visualize.refined_maps(embedded, refined, np.array([0.01, 1.0]), mask, learned=[0.011, 3.0])
    panels = np.array(figure.axes).reshape(2, 3)
    for row in panels:
        same, cold, warm = (np.asarray(axes.images[0].get_array()) for axes in row)
        np.testing.assert_allclose(cold, same)
        assert same.std() > 0.1
        assert np.ptp(warm, axis=(0, 1)).max() < 1e-6
    assert "learned: 0.011" in panels[0, 1].get_title()
    assert "learned: 3" in panels[1, 2].get_title()
    assert drawn(figure).std() > 10


def test_attended_lights_up_where_the_weights_are(rng):
    image = rng.integers(0, 256, (32, 40, 3), np.uint8)
    mask = np.zeros((32, 40), bool)
    mask[8:16, 12:28] = True
    weights = np.zeros((8, 10))
    weights[6, 2], weights[0, 9] = 0.75, 0.25
    figure = visualize.attended(image, mask, (3, 5), [weights, weights.T[:8, :8]], ["a", "b"], patch_size=3)
    photo, first, _ = figure.axes
    np.testing.assert_array_equal(photo.images[0].get_array(), image)
    overlay = np.asarray(first.images[1].get_array())
    assert overlay[6, 2, 3] == 1
    assert overlay[0, 9, 3] == pytest.approx(np.sqrt(1 / 3))
    assert np.count_nonzero(overlay[..., 3]) == 2
    assert tuple(first.images[1].get_extent()) == (0, 40, 32, 0)
    assert first.get_title() == "a\nlargest 0.75, spread over 1.8"
    frame = first.patches[0]
    assert (frame.get_x(), frame.get_y(), frame.get_width()) == (16, 8, 12)


def test_spread_counts_equal_weights():
    assert attention.spread(np.full((4, 5), 0.05)) == pytest.approx(20)
    assert attention.spread(np.full((4, 5), 0.01)) == pytest.approx(20)
    assert attention.spread(np.array([1.0, 0.0])) == pytest.approx(1)
    assert attention.spread(np.zeros(2)) == 0


def test_attended_tells_what_lies_in_the_padding(rng):
    image, mask = rng.integers(0, 256, (8, 8, 3), np.uint8), np.zeros((8, 8), bool)
    weights = [np.zeros((2, 2)), np.full((2, 2), 0.2), np.full((2, 2), 0.249)]
    figure = visualize.attended(image, mask, (0, 0), weights, ["a", "b", "c"], patch_size=3)
    assert [axes.get_title() for axes in figure.axes[1:]] == [
        "a\nlargest 0, spread over 0\n100% in the padding",
        "b\nlargest 0.2, spread over 4\n20% in the padding",
        "c\nlargest 0.25, spread over 4",
    ]
    assert not np.isnan(np.asarray(figure.axes[1].images[1].get_array())).any()


def test_principal_components_of_points_on_a_line():
    points = np.outer(np.arange(-2, 3), [3.0, 4.0, 0.0]) + 1
    centre, directions, shares = attention.principal_components(points, 4)
    np.testing.assert_allclose(centre, 1)
    np.testing.assert_allclose(directions[0], [0.6, 0.8, 0])
    np.testing.assert_allclose(shares, [1, 0, 0, 0], atol=1e-12)


def test_outline_is_the_border_of_the_hole():
    mask = np.zeros((6, 7), bool)
    mask[1:4, 2:6] = True
    mask[0, 6] = True
    figure, panels = style.picture_panels(1, 1)
    style.outline(panels[0, 0], mask, cell=4)
    segments = np.array(panels[0, 0].collections[0].get_segments())
    assert len(segments) == 2 * (3 + 4) + 4
    assert np.abs(np.diff(segments, axis=1)).sum() == 4 * len(segments)
    assert segments[..., 0].min() == 8
    assert segments[..., 1].max() == 16
    style.outline(panels[0, 0], np.zeros((6, 7), bool))
    assert drawn(figure).size


def test_temperature_distribution_shows_every_image(rng):
    ratios = np.repeat([0.05, 0.15, 0.1], 4)  # 0.1 belongs to the first tenth
    temperatures = np.stack([np.linspace(0.01, 0.02, 12), np.linspace(0.1, 0.3, 12)], axis=1)
    figure = visualize.temperature_distribution(ratios, temperatures)
    scatter, histogram = figure.axes
    for head in range(2):
        np.testing.assert_allclose(
            scatter.collections[head].get_offsets(), np.stack([ratios, temperatures[:, head]], axis=1)
        )
        x, y = scatter.lines[head].get_data()
        np.testing.assert_allclose(x, [0.05, 0.15])
        np.testing.assert_allclose(y[1], np.median(temperatures[4:8, head]))
        np.testing.assert_allclose(y[0], np.median(temperatures[[0, 1, 2, 3, 8, 9, 10, 11], head]))
    assert scatter.get_yscale() == "log"
    assert sum(bar.get_width() for bar in histogram.patches) == 24
    assert visualize.temperature_distribution(ratios, -temperatures).axes[0].get_yscale() == "symlog"
    assert drawn(figure).std() > 10


def test_temperatures_below_zero_are_shown_and_missing_ones_passed_over():
    """Both occur: a LeakyReLU may end below zero, and what is not finite is written as null."""
    name = "temperature/head_0"
    warm = [{"step": step, name: 0.5 / (step + 1)} for step in range(3)]
    lost = [*warm, {"step": 3, name: None}]
    cold = [*warm, {"step": 3, name: -0.2}]
    for rows, scale in ((warm, "log"), (lost, "log"), (cold, "symlog")):
        for axes in (visualize.training_curves(rows).axes[3], visualize.temperature_curves({"run": rows}).axes[0]):
            assert axes.get_yscale() == scale
            shown = [row[name] for row in rows if row[name] is not None]
            assert axes.lines[0].get_ydata() == pytest.approx(shown)
            low, high = axes.get_ylim()
            assert low < min(shown)
            assert high > max(shown)
    nothing = visualize.temperature_curves({"run": [{"step": 0, name: None}]})
    assert drawn(nothing).size


def test_psnr_by_temperature():
    figure = visualize.psnr_by_temperature(np.array([0.01, 0.1]), np.array([15.0, 16.0]), np.array([0.02, 0.5]), 15.5)
    by_hand, own, *heads = figure.axes[0].lines
    np.testing.assert_allclose(by_hand.get_data(), [[0.01, 0.1], [15, 16]])
    assert own.get_ydata()[0] == 15.5
    assert [line.get_xdata()[0] for line in heads] == [0.02, 0.5]
    assert drawn(figure).std() > 10


def test_ratio_histogram_says_mean_and_range():
    figure = visualize.ratio_histogram({"small": np.linspace(0, 0.2, 101), "large": np.linspace(0.3, 0.5, 101)})
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == ["small: mean 0.10, 5–95 % 0.01–0.19", "large: mean 0.40, 5–95 % 0.31–0.49"]
    assert drawn(figure).std() > 5


def test_sequential_colours_rise_in_lightness():
    """So that weights and temperatures also read in grey."""
    colours = colormaps[visualize.SEQUENTIAL](np.linspace(0, 1, 16))[:, :3]
    assert np.diff(colours @ [0.2126, 0.7152, 0.0722]).min() > 0
