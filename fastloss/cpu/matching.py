"""Matching of prior boxes with the true boxes of each image by intersection over union."""

from typing import Any, NamedTuple

import numpy as np

from .runtime.intrinsics import widest_vectors
from .runtime.units import kernel

__all__ = ["Matches", "match"]


class Matches(NamedTuple):
    """Best true box of each prior, and best prior of each true box."""

    overlap: Any
    """Largest intersection over union of each prior with a box of its image (n, a) float64; -1 without boxes."""
    tied: Any
    """Whether no prior overlaps some box more than this one, which overlaps it at all (n, a) bool."""
    nearest: Any
    """Row of that box in the table of all boxes (n, a) int64; the first of equal ones."""
    best: Any
    """Prior of largest intersection over union with each box (m,) int64; the first of equal ones."""


def match_images(lo, hi, sides, boxes, starts, overlap, tied, nearest, best):
    """Match the priors with the boxes of some images."""
    widest_vectors()
    low_x, low_y, high_x, high_y, area = sides[0], sides[1], sides[2], sides[3], sides[4]
    room = np.empty(area.size)
    for image in range(lo, hi):
        top, row, ties = overlap[image], nearest[image], tied[image]
        for a in range(area.size):
            top[a], row[a], ties[a] = -1.0, -1, 0
        for k in range(starts[image], starts[image + 1]):
            x, y, u, v = boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3]
            own = (u - x) * (v - y)
            # Apart from the search for the largest, which has a branch: this loop runs in vectors.
            for a in range(area.size):
                width = min(high_x[a], u) - max(low_x[a], x)
                height = min(high_y[a], v) - max(low_y[a], y)
                common = max(width, 0.0) * max(height, 0.0)
                # From areas that are computed once a prior and once a box, not once a pair.
                union = area[a] + own - common
                ratio = common / union if union > 0.0 else 0.0
                room[a] = ratio
                row[a] = k if ratio > top[a] else row[a]
                top[a] = ratio if ratio > top[a] else top[a]
            found = 0
            for a in range(area.size):
                if room[a] > room[found]:
                    found = a
            best[k] = found
            for a in range(area.size):
                ties[a] |= (room[a] == room[found]) & (room[a] > 0.0)


def match(priors: Any, boxes: Any, starts: Any) -> Matches:
    """Return the matches of priors (a, 4) with the boxes (m, 4) of n images, whose first rows are starts (n + 1,)."""
    n, a, m = len(starts) - 1, len(priors), len(boxes)
    sizes = (priors[:, 2] - priors[:, 0]) * (priors[:, 3] - priors[:, 1])
    sides = np.ascontiguousarray(np.vstack([priors.T, sizes]))
    overlap, tied, nearest = np.empty((n, a)), np.empty((n, a), np.uint8), np.empty((n, a), np.int64)
    best = np.empty(m, np.int64)
    kernel(match_images, "matching", "float64")(n, 3.0 * a * m, sides, boxes, starts, overlap, tied, nearest, best)
    return Matches(overlap, tied.view(np.bool_), nearest, best)
