"""Rejection: whether a network's answer is an answer to something like a digit.

The score is the logarithm of the sum of the exponentials of the logits (the negative energy of
Liu et al. 2020, arXiv 2010.03759): digits raise one logit far, other things raise none. The
thresholds are chosen on validation images alone by ``benchmarks/rejection.py``.
"""

from __future__ import annotations

import numpy as np

THRESHOLDS = {"mnist": 3.543, "svhn": 2.870}


def score(logits: np.ndarray) -> np.ndarray:
    """How much like a digit, (N,) of logits (N, 10); without limits, greater is more."""
    logits = np.asarray(logits, np.float64)
    highest = logits.max(-1)
    return highest + np.log(np.exp(logits - highest[..., None]).sum(-1))


def unlike(logits: np.ndarray, model: str) -> np.ndarray:
    """True where logits (N, 10) of a model are of nothing like a digit, (N,)."""
    return score(logits) < THRESHOLDS[model]
