"""Losses of boxes: x1, y1, x2, y2 of a predicted box, then of its target."""

from .record import Input, arrays
from .vocabulary import maximum, minimum, where

BOXES = {
    "boxes": Input("* 4", "predicted boxes", grad=True),
    "target": Input("* 4", "boxes to be met"),
}
EXAMPLE = "np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 3.0, 2.0]])"


@arrays(
    "pointwise",
    inputs=BOXES,
    units="*",
    math="1 - area(A and B) / area(A or B)",
    bounded=True,
    differentiable=False,
    paper="Yu et al. (2016), UnitBox, arXiv:1608.01471",
    example=EXAMPLE,
)
def iou(x1, y1, x2, y2, u1, v1, u2, v2):
    """One minus the intersection over union of two boxes (x1, y1, x2, y2)."""
    w, h = x2 - x1, y2 - y1
    width = maximum(minimum(x2, u2) - maximum(x1, u1), 0.0)
    height = maximum(minimum(y2, v2) - maximum(y1, v1), 0.0)
    inter = width * height
    union = w * h + (u2 - u1) * (v2 - v1) - inter
    some = union > 0.0
    inverse = where(some, 1.0 / where(some, union, 1.0), 0.0)
    ratio = inter * inverse
    # d(1 - I / U) = -(dI U - I dU) / U^2, with dU = dA - dI.
    by_inter, by_area = -inverse * (1.0 + ratio), ratio * inverse
    dx1 = where(x1 > u1, -height, 0.0) * where(width > 0.0, 1.0, 0.0)
    dx2 = where(x2 < u2, height, 0.0) * where(width > 0.0, 1.0, 0.0)
    dy1 = where(y1 > v1, -width, 0.0) * where(height > 0.0, 1.0, 0.0)
    dy2 = where(y2 < v2, width, 0.0) * where(height > 0.0, 1.0, 0.0)
    return 1.0 - ratio, (
        by_inter * dx1 - by_area * h,
        by_inter * dy1 - by_area * w,
        by_inter * dx2 + by_area * h,
        by_inter * dy2 + by_area * w,
    )
