"""Image quality, one number per image, and the distance between two sets of images, from features.

Images are in [0, 1]. In masks, 1 (or True) = missing.
"""

import functools
import operator
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, Float, Float64, Shaped

from inpaint_jax.arrays import AnyArray

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_JOINED_TOGETHER = 256  # feature vectors


def mean_absolute_error(
    prediction: Float[AnyArray, "B H W 3"], target: Float[AnyArray, "B H W 3"]
) -> Float[Array, "B"]:
    """Mean of |prediction - target| in percent of the range."""
    return 100 * jnp.mean(jnp.abs(prediction - target), axis=(-3, -2, -1))


def relative_mean_absolute_error(
    prediction: Float[AnyArray, "B H W 3"], target: Float[AnyArray, "B H W 3"]
) -> Float[Array, "B"]:
    """Sum of |prediction - target| over sum of (prediction + target): what EdgeConnect and WaveFill print as MAE.

    It lies in [0, 1], and is 0 where both images are black.
    """
    axes = (-3, -2, -1)
    difference, total = jnp.sum(jnp.abs(prediction - target), axis=axes), jnp.sum(prediction + target, axis=axes)
    return difference / jnp.where(total > 0, total, 1)


def psnr(prediction: Float[AnyArray, "B H W 3"], target: Float[AnyArray, "B H W 3"]) -> Float[Array, "B"]:
    """Peak signal-to-noise ratio, -10 log10(mean squared error), over all pixels and channels, in dB.

    It is inf where the images are equal.
    """
    return -10 * jnp.log10(jnp.mean(jnp.square(prediction - target), axis=(-3, -2, -1)))


def ssim(prediction: Float[AnyArray, "B H W 3"], target: Float[AnyArray, "B H W 3"]) -> Float[Array, "B"]:
    """Structural similarity (Wang et al., IEEE TIP 2004), per channel, then averaged.

        SSIM = (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2)),  C1 = 0.01^2, C2 = 0.03^2

    Means m, variances s^2 and the covariance s_xy are local, under an 11 x 11 Gaussian window of sigma 1.5; windows
    that stick out of the image do not count. As scikit-image's structural_similarity with gaussian_weights=True,
    use_sample_covariance=False, data_range=1.

    Args:
        prediction: H and W at least 11.
        target: the truth.

    Returns:
        at most 1, and 1 where the images are equal.

    Raises:
        ValueError: the images are smaller than the window.
    """
    if min(prediction.shape[-3:-1]) < _SSIM_WINDOW:
        height, width = prediction.shape[-3:-1]
        raise ValueError(
            f"SSIM needs images of at least {_SSIM_WINDOW} x {_SSIM_WINDOW} pixels, not {height} x {width}."
        )
    # Second moments about the middle of the range lose fewer digits in float32 when the mean is subtracted below.
    x, y = prediction.astype(jnp.float32) - 0.5, target.astype(jnp.float32) - 0.5
    mean_x, mean_y, xx, yy, xy = jnp.split(_gaussian_window(jnp.concatenate([x, y, x * x, y * y, x * y], -1)), 5, -1)
    covariance = xy - mean_x * mean_y
    variances = (xx - mean_x**2) + (yy - mean_y**2)
    mean_x, mean_y = mean_x + 0.5, mean_y + 0.5
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return jnp.mean(luminance * structure, axis=(-3, -2, -1))


def hole_psnr(
    prediction: Float[AnyArray, "#B #H #W 3"], target: Float[AnyArray, "B H W 3"], mask: Shaped[AnyArray, "B H W"]
) -> Float[Array, "B"]:
    """Peak signal-to-noise ratio of the missing pixels alone: does not flatter small holes, as `psnr` does.

    Args:
        prediction: may also be what broadcasts to an image, as one colour does.
        target: the truth.
        mask: of the hole.

    Returns:
        in dB; inf where the holes are equal, nan where nothing is missing.
    """
    hole = (mask > 0.5).astype(target.dtype)[..., None]
    square = jnp.sum(hole * jnp.square(prediction - target), axis=(-3, -2, -1))
    return -10 * jnp.log10(square / (3 * jnp.sum(hole, axis=(-3, -2, -1))))


def _gaussian_window(maps: Float[Array, "B H W C"]) -> Float[Array, "B H-10 W-10 C"]:
    """Weighted means over all windows inside the map, rows first, then columns."""
    offsets = np.arange(_SSIM_WINDOW) - _SSIM_WINDOW // 2
    weights = np.exp(-0.5 * (offsets / _SSIM_SIGMA) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (-3, -2):
        length = maps.shape[axis] - _SSIM_WINDOW + 1
        shifted = (jax.lax.slice_in_dim(maps, d, d + length, axis=axis) for d in range(_SSIM_WINDOW))
        maps = functools.reduce(operator.add, (weight * part for weight, part in zip(weights, shifted)))
    return maps


class GaussianStatistics:
    """Mean and covariance of feature vectors that come in batches; in float64, without keeping the vectors.

    Batches are joined by the update of Chan, Golub and LeVeque (1983), which subtracts no large sums from each other:
    the result is that of np.mean and np.cov over all vectors, up to rounding, however they were cut and ordered.

    Vectors wait until there are some hundred, because joining a batch costs as much as the [D, D] matrix is large.

    Args:
        size: D.
    """

    def __init__(self, size: int):
        self._size = size
        self._count = 0
        self._mean = np.zeros(size)
        self._second_moment = np.zeros((size, size))
        self._waiting: list[np.ndarray] = []

    @property
    def count(self) -> int:
        """Vectors so far."""
        return self._count + sum(map(len, self._waiting))

    @property
    def mean(self) -> Float64[np.ndarray, "D"]:
        """Of the vectors so far."""
        self._join_waiting()
        return self._mean

    @property
    def second_moment(self) -> Float64[np.ndarray, "D D"]:
        """Sum of (x - mean)(x - mean)^T."""
        self._join_waiting()
        return self._second_moment

    @property
    def covariance(self) -> Float64[np.ndarray, "D D"]:
        """The unbiased estimate (as np.cov); of rank count - 1 at most.

        Raises:
            ValueError: there are fewer than two vectors.
        """
        if self.count < 2:
            raise ValueError(f"A covariance needs two feature vectors, here are {self.count}.")
        return self.second_moment / (self.count - 1)

    def update(self, features: Float[AnyArray, "N D"]) -> None:
        """Adds a batch, which may be empty.

        Raises:
            ValueError: features are not of size D, or not all finite (nothing was added).
        """
        features = np.asarray(features, np.float64)
        if features.ndim != 2 or features.shape[1] != self._size:
            raise ValueError(f"Give features as [N, {self._size}], not {features.shape}.")
        if not np.isfinite(features).all():
            bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
            raise ValueError(f"Features of {bad.size} images are not finite (of this batch: {bad[:8].tolist()}).")
        if len(features):
            self._waiting.append(features)
        if sum(map(len, self._waiting)) >= _JOINED_TOGETHER:
            self._join_waiting()

    def merge(self, other: "GaussianStatistics") -> None:
        """Adds what another one has gathered; `other` stays as it is.

        Raises:
            ValueError: the sizes of the feature vectors differ.
        """
        if other._size != self._size:
            raise ValueError(f"Statistics of {self._size} and of {other._size} features do not merge.")
        self._join_waiting()
        if other.count:
            self._join(other.count, other.mean, other.second_moment)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as plain arrays (count, mean, second_moment, waiting), to be saved; see `from_arrays`."""
        return {
            "count": np.array(self._count),
            "mean": self._mean.copy(),
            "second_moment": self._second_moment.copy(),
            "waiting": np.concatenate([np.zeros((0, self._size)), *self._waiting]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "GaussianStatistics":
        """The statistics that `to_arrays` took apart; they go on to the same bits.

        Raises:
            ValueError: an array is missing or does not fit the others.
        """
        missing = {"count", "mean", "second_moment", "waiting"} - set(arrays)
        if missing:
            raise ValueError(f"These are no saved statistics, they lack {', '.join(sorted(missing))}.")
        mean, second_moment, waiting = (
            np.array(arrays[name], np.float64) for name in ("mean", "second_moment", "waiting")
        )
        shapes = {name: np.shape(arrays[name]) for name in ("count", "mean", "second_moment", "waiting")}
        size = mean.size
        if shapes != {
            "count": (),
            "mean": (size,),
            "second_moment": (size, size),
            "waiting": (*waiting.shape[:1], size),
        }:
            raise ValueError(f"These are no saved statistics: {shapes}.")
        statistics = cls(size)
        statistics._count, statistics._mean, statistics._second_moment = int(arrays["count"]), mean, second_moment
        statistics._waiting = [waiting] if len(waiting) else []
        return statistics

    def _join_waiting(self) -> None:
        if self._waiting:
            features = np.concatenate(self._waiting)
            self._waiting = []
            mean = features.mean(axis=0)
            centred = features - mean
            self._join(len(features), mean, centred.T @ centred)

    def _join(self, count: int, mean: Float64[np.ndarray, "D"], second_moment: Float64[np.ndarray, "D D"]) -> None:
        total = self._count + count
        difference = mean - self._mean
        self._second_moment += second_moment
        self._second_moment += np.outer(difference * (self._count * count / total), difference)
        self._mean = self._mean + difference * (count / total)
        self._count = total


def frechet_distance(
    mean_a: Float[AnyArray, "D"],
    cov_a: Float[AnyArray, "D D"],
    mean_b: Float[AnyArray, "D"],
    cov_b: Float[AnyArray, "D D"],
) -> float:
    """Fréchet distance of two Gaussians; of `features.inception.pool3` it is the FID (Heusel et al., arXiv 1706.08500).

        |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

    With C = F F^T the trace of the root is the sum of the singular values of F_a^T F_b. That stays real and exact where
    the covariances are singular (fewer images than features), and costs little there, which a matrix root does not.

    Args:
        mean_a: any float type; computed in float64.
        cov_a: symmetric and positive semi-definite, as np.cov gives it.
        mean_b: of the other.
        cov_b: likewise.

    Returns:
        The distance, >= 0; 0 up to rounding for equal Gaussians. It depends on the number of images (it falls as that
        rises), so compare only figures of equally many.

    Raises:
        ValueError: the shapes do not fit each other, values are not finite, or a covariance cannot be one.
    """
    mean_a, cov_a, mean_b, cov_b = (np.asarray(array, np.float64) for array in (mean_a, cov_a, mean_b, cov_b))
    size = mean_a.size
    shapes = [array.shape for array in (mean_a, mean_b, cov_a, cov_b)]
    if shapes != [(size,), (size,), (size, size), (size, size)]:
        raise ValueError(f"Give means [D] and covariances [D, D] of the same D, not {shapes}.")
    if not all(np.isfinite(array).all() for array in (mean_a, cov_a, mean_b, cov_b)):
        raise ValueError("The means and covariances hold values that are not finite.")
    product = _covariance_factor(cov_a).T @ _covariance_factor(cov_b)
    root_trace = np.linalg.svd(product, compute_uv=False).sum() if product.size else 0.0
    distance = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * root_trace
    return max(float(distance), 0.0)  # rounding may leave -1e-14 of equal ones


def _covariance_factor(covariance: Float64[np.ndarray, "D D"]) -> Float64[np.ndarray, "D rank"]:
    """F with F F^T = covariance, by Cholesky decomposition with pivoting, which singular ones have too."""
    factor, pivots, rank, _ = scipy.linalg.lapack.dpstrf(covariance, lower=1)  # pyright: ignore[reportAttributeAccessIssue]
    result = np.zeros((len(covariance), rank))
    result[pivots - 1] = np.tril(factor)[:, :rank]
    if not np.allclose(result @ result.T, covariance, rtol=0, atol=1e-4 * np.abs(covariance).max(initial=0)):
        raise ValueError("A covariance is not symmetric and positive semi-definite.")
    return result
