"""Embedded data for the quick profile: real handwritten digits that need no download.

scikit-learn bundles 1,797 handwritten digits of 8 x 8 pixels (Alpaydin and Kaynak 1998, UCI
"Optical Recognition of Handwritten Digits"). The first half stands in for MNIST; of the
other, coloured compositions with neighbours, strokes and blur stand in for SVHN. Few, because most
of a quick run's time goes into looking at its test images. Both are the same on every machine.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

COPY = {
    "mnist": "scikit-learn's bundled handwritten digits in the place of MNIST (quick profile)",
    "svhn": "coloured compositions of scikit-learn's digits in the place of SVHN (quick profile)",
}
COUNT = 900  # stand-ins for either data set


def _digits(chosen: slice) -> tuple[np.ndarray, np.ndarray]:
    """Digits as float32 (COUNT, 20, 20) in [0, 1] and labels int64 (COUNT,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    enlarged = ndimage.zoom(bunch.images[chosen] / 16, (1, 2.5, 2.5), order=1)
    return enlarged.clip(0, 1).astype(np.float32), bunch.target[chosen].astype(np.int64)


def read_mnist() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (COUNT, 3, 32, 32), white on black and centred, and labels int64 (COUNT,)."""
    digits, labels = _digits(slice(COUNT))
    framed = np.pad(digits, ((0, 0), (6, 6), (6, 6)))
    return np.repeat((framed * 255).astype(np.uint8)[:, None], 3, axis=1), labels


def read_svhn() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (COUNT, 3, 32, 32), house-number-like, and labels int64 (COUNT,)."""
    random = np.random.default_rng(42)
    digits, labels = _digits(slice(-COUNT, None))
    count = len(labels)

    # A canvas three digits wide: the labelled one in the middle, a neighbour on either side.
    canvas = np.zeros((count, 32, 64), np.float32)
    canvas[:, 6:26, 22:42] = digits
    for left, column in ((True, 4), (False, 40)):
        present = random.random(count) < 0.3
        neighbour = digits[random.permutation(count)] * present[:, None, None]
        canvas[:, 6:26, column : column + 20] = np.maximum(
            canvas[:, 6:26, column : column + 20], neighbour
        )
        # A stroke, like the edge of a house-number plate.
        row = random.integers(0, 5, count) if left else random.integers(27, 32, count)
        canvas[np.arange(count), row] += 0.4 * (random.random((count, 1)) < 0.3)
    rows, columns = random.integers(-1, 2, (2, count, 1, 1))
    y, x = np.mgrid[:32, :32]
    ink = canvas[np.arange(count)[:, None, None], (y - rows) % 32, x + 16 - columns].clip(0, 1)

    background, foreground = random.random((2, count, 3, 1, 1), dtype=np.float32)
    # Digit and plate differ by at least 0.35 in one direction, as paint on a plate does.
    brighter = np.where(random.random((count, 1, 1, 1)) < 0.5, 0.5, -0.5)
    foreground = (background + brighter + (foreground - 0.5) * 0.3).clip(0, 1)
    slope = (random.random((count, 1, 1, 1)) - 0.5) * (x - 16) / 64
    images = background + (foreground - background) * ink[:, None] + slope
    images = ndimage.gaussian_filter(images, (0, 0, 0.6, 0.6))
    images += random.normal(0, 0.03, images.shape)
    return (images.clip(0, 1) * 255).astype(np.uint8), labels


def writers() -> tuple[np.ndarray, np.ndarray]:
    """Stand-ins for MNIST's writers and their series, (COUNT,) each: forty digits in a row a hand,
    the last fifth of the hands students'. Who wrote these digits is not published."""
    writer = np.arange(COUNT) // 40
    return writer, np.where(writer >= 0.8 * writer.max(), 4, 0)


READERS = {"mnist": read_mnist, "svhn": read_svhn}
