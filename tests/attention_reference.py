"""Masked patch attention as the paper writes it (§III-C, eqs. 7-11): float64 numpy, loops, slow on purpose.

Written from the paper, without looking at `inpaint_jax.nets.attention`, which is tested against it.
"""

import numpy as np


def masked_patch_attention(features, mask, temperature, patch_size=3, mask_bias=1e6):
    """Refined features [B, H, W, C'] of features [B, H, W, C'], mask [B, H, W] (1 = missing), temperature [B]."""
    return np.stack(
        [
            _refine_sample(np.asarray(f, np.float64), np.asarray(m), float(t), patch_size, mask_bias)
            for f, m, t in zip(features, mask, temperature)
        ]
    )


def masked_scores(features, mask, temperature, patch_size=3, mask_bias=1e6):
    """S_m of eq. (9) for one sample: [N_q, N_k]."""
    height, width, _ = features.shape
    s = patch_size

    queries = [_normalise(_padded_patch(features, y, x, s)) for y in range(height) for x in range(width)]
    keys = [_normalise(features[y : y + s, x : x + s]) for y, x in _inner_corners(height, width, s)]

    # Eq. (7): S = n(Q) n(K)^T
    scores = np.zeros((len(queries), len(keys)))
    for i, query in enumerate(queries):
        for j, key in enumerate(keys):
            scores[i, j] = np.vdot(query, key)

    # Eq. (8): m' = 1 if sum(m) = 0, else 0
    m = np.array([1.0 if mask[y : y + s, x : x + s].sum() == 0 else 0.0 for y, x in _inner_corners(height, width, s)])

    # Eq. (9): S_m = M' * (S / t + lambda_m) - lambda_m, where M' repeats m' for every query; as a choice between its
    # two outcomes, because adding and subtracting lambda_m rounds even in float64.
    scores_m = np.zeros_like(scores)
    for j in range(len(keys)):
        scores_m[:, j] = scores[:, j] / temperature if m[j] == 1 else -mask_bias
    return scores_m


def downsample_mask(mask, factor=4):
    """Mask [B, H/factor, W/factor] of mask [B, H, W]: missing where a feature pixel sees any missing pixel."""
    batch, height, width = mask.shape
    small = np.zeros((batch, height // factor, width // factor))
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                if mask[b, y, x] != 0:
                    small[b, y // factor, x // factor] = 1
    return small


def _refine_sample(features, mask, temperature, s, mask_bias):
    height, width, channels = features.shape
    scores_m = masked_scores(features, mask, temperature, s, mask_bias)
    values = [features[y : y + s, x : x + s] for y, x in _inner_corners(height, width, s)]

    # Eq. (10): W = Softmax(S_m), over the keys
    weights = np.zeros_like(scores_m)
    for i, row in enumerate(scores_m):
        exponentials = np.exp(row - row.max())
        weights[i] = exponentials / exponentials.sum()

    # Eq. (11): P = W V
    patches = np.zeros((height * width, s, s, channels))
    for i in range(height * width):
        for j, value in enumerate(values):
            patches[i] += weights[i, j] * value

    # Rolling: every patch is laid down around its query pixel; a pixel is the mean of the patches that cover it.
    total = np.zeros((height, width, channels))
    cover = np.zeros((height, width, 1))
    before = (s - 1) // 2
    for y in range(height):
        for x in range(width):
            for dy in range(s):
                for dx in range(s):
                    ty, tx = y - before + dy, x - before + dx
                    if 0 <= ty < height and 0 <= tx < width:
                        total[ty, tx] += patches[y * width + x, dy, dx]
                        cover[ty, tx] += 1
    return total / cover


def _padded_patch(features, y, x, s):
    """The s x s patch around a pixel, from (s-1)//2 before it to s//2 after it, zero outside the map."""
    height, width, channels = features.shape
    before = (s - 1) // 2
    patch = np.zeros((s, s, channels))
    for dy in range(s):
        for dx in range(s):
            sy, sx = y - before + dy, x - before + dx
            if 0 <= sy < height and 0 <= sx < width:
                patch[dy, dx] = features[sy, sx]
    return patch


def _inner_corners(height, width, s):
    """Upper left corners of the patches that lie fully inside, row by row."""
    return [(y, x) for y in range(height - s + 1) for x in range(width - s + 1)]


def _normalise(patch):
    return patch / max(np.sqrt(np.sum(patch**2)), 1e-6)


def contextual_attention(features, mask, temperature, patch_size=3):
    """Algorithm 2 in loops, [B, H, W, C]; line 8 divided by the number of patches that cover a pixel."""
    s, before = patch_size, (patch_size - 1) // 2
    results = []
    for f, m, t in zip(np.asarray(features, np.float64), mask, temperature):
        height, width, channels = f.shape
        corners = _inner_corners(height, width, s)
        p = [f[y : y + s, x : x + s] for y, x in corners]
        known = np.array([float(m[y : y + s, x : x + s].sum() == 0) for y, x in corners])
        total, cover = np.zeros_like(f), np.zeros((height, width, 1))
        for y in range(height):
            for x in range(width):
                query = _padded_patch(f, y, x, s)  # of its own length
                scores = known * np.array([np.vdot(query, _normalise(key)) for key in p])
                exponentials = np.exp((scores - (scores / t).max() * t) / t)
                weights = exponentials / exponentials.sum() * known
                mixed = sum((w * key for w, key in zip(weights, p)), np.zeros((s, s, channels)))
                for dy in range(s):
                    for dx in range(s):
                        ty, tx = y - before + dy, x - before + dx
                        if 0 <= ty < height and 0 <= tx < width:
                            total[ty, tx] += mixed[dy, dx]
                            cover[ty, tx] += 1
        results.append(total / cover)
    return np.stack(results)


def differences(function, at, step=1e-5):
    """Gradient of a function of an array by central differences."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        moved = np.zeros_like(at)
        moved[index] = step
        gradient[index] = (function(at + moved) - function(at - moved)) / (2 * step)
    return gradient


def assert_agrees(actual, expected, tolerance=1e-5):
    """Largest difference within `tolerance` of the largest magnitude."""
    actual = np.asarray(actual, np.float64)
    assert actual.shape == expected.shape
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
