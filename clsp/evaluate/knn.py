"""Weighted nearest neighbours on L2-normalised features (methods.md section 4).

For each test image the k training images of largest cosine s vote exp(s / T) for their classes.
Training features are those of the plain images; the authors' carry random flips, because they
reuse a flip-augmented loader (D09). Their k is the best one on the test set, which is no honest
number (methods.md, pitfall 19): here a k fixed in advance is the headline, and theirs a marked
extra (D04).

The search is clsp/models/nearest.py: exact, the bank read once in blocks, and of equally near
images the one that comes first in the dataset.
"""

import numpy as np

VOTES = 1 << 22  # counted at a time, 32 MiB


def votes(
    cosines: np.ndarray, voters: np.ndarray, classes: int, k: int, temperature: float
) -> np.ndarray:
    """Votes of the k nearest neighbours for each class.

    Every vote of a test image is divided by that of its nearest neighbour: no prediction changes,
    and a low temperature cannot overflow.

    Args:
        cosines: (M, at least k), largest first.
        voters: Classes of the neighbours, int64 of the same shape.
        classes: Number of classes.
        k: How many vote.
        temperature: T > 0, dimensionless.

    Returns:
        float32 (M, classes), >= 0.
    """
    found = np.empty((len(cosines), classes), np.float32)
    step = max(1, VOTES // classes)
    for start in range(0, len(cosines), step):
        near = cosines[start : start + step, :k].astype(np.float64)
        weights = np.exp((near - near[:, :1]) / temperature)  # (B, k)
        cells = np.arange(len(near))[:, None] * classes + voters[start : start + step, :k]
        summed = np.bincount(cells.ravel(), weights.ravel(), minlength=len(near) * classes)
        found[start : start + step] = summed.reshape(len(near), classes)
    return found
