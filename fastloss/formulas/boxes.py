"""Box losses: formulas of four coordinates of a predicted box, then four of its target.

All are computed in units of the hull, the smallest box that holds both, so that no area overflows; and from how far
each box reaches beyond the other, so that a small loss keeps its digits and a perfect prediction has the gradient 0.
"""

from ..spec.record import Input, Interval, Parameter, arrays
from ..spec.vocabulary import atan, epsilon, expm1, pow, sign, where

BOXES = {
    "boxes": Input("* 4", "predicted boxes", grad=True),
    "target": Input("* 4", "boxes to be met"),
}
FORMAT = Parameter(
    "the four numbers: two opposite corners, or the centre, width and height", choices=("xyxy", "cxcywh")
)
PAIRWISE = {
    "pairwise": (
        0.0,
        Parameter("whether each of N boxes meets each of M targets", flag=True),
    )
}
EXAMPLE = "np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 3.0, 2.0]])"


def inverse(x):
    """Return 1 / x, and 0 where x counts as 0: below 2e-35 in float32, 5e-79 in float64."""
    e = epsilon(x)
    none = x < e * e * (e * e) * e
    return where(none, 0.0, 1.0 / where(none, 1.0, x))


def larger(a, b):
    """Return the larger of two numbers, neither NaN: one instruction, where maximum takes four."""
    return where(a > b, a, b)


def smaller(a, b):
    """Return the smaller of two numbers, neither NaN."""
    return where(a < b, a, b)


def along(a, c, u, w, centred):
    """Return the geometry of box and target along one axis.

    In units of the hull: their sizes, the size of what they share (negative where they lie apart), how far the box
    reaches beyond the target at its ends, and the other way round, and how far centre and size are off. The part of the
    box in moving either end of the hull: 1, 0, or 1/2 where it ends with the target. Whether box and target are of no
    negative size; the hull in 64ths, in which nothing overflows, and its inverse.
    """
    a, c, u, w = 0.015625 * a, 0.015625 * c, 0.015625 * u, 0.015625 * w
    low, high, start, end = smaller(a, c), larger(a, c), smaller(u, w), larger(u, w)
    centre, size, wanted = a - u, abs(c), abs(w)
    more, both = 0.5 * (size - wanted), 0.5 * (size + wanted)
    by_centre = centred > 0.0
    size, wanted = where(by_centre, size, high - low), where(by_centre, wanted, end - start)
    above, below = where(by_centre, more + centre, high - end), where(by_centre, more - centre, start - low)
    first, second = where(by_centre, both + centre, high - start), where(by_centre, both - centre, end - low)
    # NaN, which the comparisons lose, comes through by way of the hull.
    hull = larger(larger(size, wanted), larger(first, second)) + 0.0 * (a + c + (u + w))
    shared = smaller(smaller(size, wanted), smaller(first, second))
    right = where(by_centre, c, c - a) >= 0.0
    target_right = where(by_centre, w, w - u) >= 0.0
    s = inverse(hull)
    above, below = s * above, s * below
    beyond = larger(above, 0.0) + larger(below, 0.0)
    missing = larger(-above, 0.0) + larger(-below, 0.0)
    at_low = where(below > 0.0, 1.0, where(below < 0.0, 0.0, 0.5))
    at_high = where(above > 0.0, 1.0, where(above < 0.0, 0.0, 0.5))
    lengths = (s * size, s * wanted, s * shared, beyond, missing, 0.5 * (above - below), s * (size - wanted))
    return lengths, (at_low, at_high), (right, target_right), hull, s


def overlap(x, y):
    """Return one minus the intersection over union, and its derivatives along x and along y, for `ends`.

    And whether the two overlap, whether box and target cover anything at all, being of no negative size, and the part
    of the hull that is covered.
    """
    (w, tw, ws, ex, fx, _, _), (xl, xh), (right_x, target_x), _, sx = x
    (h, th, hs, ey, fy, _, _), (yl, yh), (right_y, target_y), _, sy = y
    covers, target_covers = right_x & right_y, target_x & target_y
    meet = (ws > 0.0) & (hs > 0.0) & covers & target_covers
    width, height = where(meet, ws, 0.0), where(meet, hs, 0.0)
    shared = width * height
    # What only one of them covers, from positive terms.
    apart = where(covers, w * h, 0.0) + where(target_covers, tw * th, 0.0)
    alone = where(meet, ex * h + width * ey + (fx * th + width * fy), apart)
    by_union = inverse(alone + shared)
    # NaN comes through where neither covers anything, too.
    loss, ratio = where(by_union == 0.0, 1.0 + 0.0 * (sx + sy), alone * by_union), shared * by_union
    px, py, qx, qy = by_union * height, by_union * width, by_union * ey * ratio, by_union * ex * ratio
    moved = loss + 2.0 * ratio
    low_x, high_x, whole_x = pull(xl, loss, ratio, px, qx), pull(xh, loss, ratio, px, qx), px * (xh - xl) * moved
    low_y, high_y, whole_y = pull(yl, loss, ratio, py, qy), pull(yh, loss, ratio, py, qy), py * (yh - yl) * moved
    union = alone + shared
    return loss, (low_x, high_x, whole_x), (low_y, high_y, whole_y), (meet, covers, target_covers, union)


def pull(n, loss, ratio, across, rest):
    """Return the derivative of `overlap` by a box's low end, of part n in moving the hull, and minus the high end's."""
    return across * ((1.0 - n) * loss + (1.0 - 2.0 * n) * ratio) - rest


def uncovered(x, y, known):
    """Return the part of the hull that neither box covers, and its derivatives in the form of `overlap`."""
    meet, covers, target_covers, union = known
    (w, tw, ws, ex, fx, _, _), (xl, xh), _, _, _ = x
    (h, th, hs, ey, fy, _, _), (yl, yh), _, _, _ = y
    part = ex * fy + fx * ey - where(meet, 0.0, ws * hs)
    part = part + where(covers, 0.0, w * h) + where(target_covers, 0.0, tw * th)
    own_x, own_y = where(meet, ex, w), where(meet, ey, h)
    bare_x, bare_y = where(covers, 0.0, w), where(covers, 0.0, h)
    # Keeps the digits of boxes far apart, which cover little: 1 - part would have none of them.
    thin = union < 0.5
    outer_x, outer_y = where(thin, union - h, fy - part), where(thin, union - w, fx - part)
    whole_x = where(meet, where(thin, union - hs, ey + (fy - part)), union)
    whole_y = where(meet, where(thin, union - ws, ex + (fx - part)), union)
    low_x, high_x = lose(xl, own_y, outer_x, bare_y), lose(xh, own_y, outer_x, bare_y)
    low_y, high_y = lose(yl, own_x, outer_y, bare_x), lose(yh, own_x, outer_y, bare_x)
    return part, (low_x, high_x, (xh - xl) * whole_x), (low_y, high_y, (yh - yl) * whole_y)


def lose(n, inner, outer, bare):
    """Derivative of `uncovered`, as `pull` is of `overlap`."""
    return (1.0 - n) * inner - n * outer - bare


def proportions(x, y):
    """Return the hull's width and height over the longer one, and the shares of their squares in the diagonal's."""
    _, _, _, width, sx = x
    _, _, _, height, sy = y
    longer = where(width > height, sx, sy)
    kx, ky = width * longer, height * longer
    i = inverse(kx * kx + ky * ky)
    return kx, ky, kx * kx * i, ky * ky * i


def remainder(axis):
    """Return the hull's end at which box and target lie apart (1 or -1, else 0 or a half), and 1 - distance."""
    (size, wanted, _, _, _, d, _), (low, high), _, _, _ = axis
    side = low - high
    return side, where(abs(side) == 1.0, 0.5 * (size + wanted), 1.0 - abs(d))


def distance(x, y, px, py):
    """Return the squared distance of the centres over the hull's squared diagonal, and its derivatives."""
    (_, _, _, _, _, dx, _), (xl, xh), _, _, _ = x
    (_, _, _, _, _, dy, _), (yl, yh), _, _, _ = y
    q = dx * dx * px + dy * dy * py
    by_x, by_y = 2.0 * q * px, 2.0 * q * py
    # q - |d| of boxes far apart, where both are nearly 1.
    (side_x, gx), (side_y, gy) = remainder(x), remainder(y)
    a, b = abs(dx), abs(dy)
    turn = (gy - gx) * (a + b)
    far_x, far_y = -side_x * (a * gx + py * turn), -side_y * (b * gy - px * turn)
    whole_x = 2.0 * px * where(abs(side_x) == 1.0, far_x, q * side_x + dx)
    whole_y = 2.0 * py * where(abs(side_y) == 1.0, far_y, q * side_y + dy)
    return q, (by_x * xl, by_x * xh, whole_x, dx * px), (by_y * yl, by_y * yh, whole_y, dy * py)


def shape(w, h, tw, th, kx, ky):
    """Return (4 / pi^2) (atan(tw / th) - atan(w / h))^2, and its derivatives by w and h."""
    a, b, c, d = w * kx, h * ky, tw * kx, th * ky
    i, j = inverse(larger(a, b)), inverse(larger(c, d))
    a, b, c, d = a * i, b * i, c * j, d * j
    # The difference of two angles as one; the numerator is 0 where both are the same.
    angle = atan(((c - a) * b - a * (d - b)) / larger(a * c + b * d, 1e-30))
    angle = where((i == 0.0) | (j == 0.0), 0.0, angle)
    slope = -0.8105694691387022 * angle * i / larger(a * a + b * b, 0.5)
    return 0.4052847345693511 * angle * angle, slope * b * kx, -slope * a * ky


def ends(low, high, whole, shift, axis, centred):
    """Return the derivatives by the two coordinates of a box along an axis.

    From those by its low end and, negative, by its high end, the derivative by its centre, whose digits a difference
    of these would lose for boxes far apart, and what is to be added to the derivative by either end.
    """
    _, _, (right, _), _, s = axis
    scale = 0.015625 * s
    a, b = scale * (low + shift), scale * (shift - high)
    by_low, by_high = where(right, a, b), where(right, b, a)
    by_centre = centred > 0.0
    return where(by_centre, scale * whole, by_low), where(by_centre, 0.5 * (by_high - by_low), by_high)


@arrays(
    "points",
    inputs=BOXES,
    units="*",
    parameters={"box_format": FORMAT},
    options=PAIRWISE,
    math="1 - IoU, with IoU = area(A and B) / area(A or B)",
    bounded=True,
    differentiable=False,
    paper="Yu et al. (2016), UnitBox, arXiv:1608.01471",
    example=EXAMPLE,
)
def iou(x1, y1, x2, y2, u1, v1, u2, v2, box_format=0.0):
    """One minus the intersection over union of two boxes.

    A box of negative size covers nothing. Of two boxes that cover nothing the loss is 1. Where box and target end at
    the same place, the derivative is the mean of those on both sides, as torch's: it is 0 for a perfect prediction.
    """
    x, y = along(x1, x2, u1, u2, box_format), along(y1, y2, v1, v2, box_format)
    loss, (xl, xh, xw), (yl, yh, yw), _ = overlap(x, y)
    dx1, dx2 = ends(xl, xh, xw, 0.0, x, box_format)
    dy1, dy2 = ends(yl, yh, yw, 0.0, y, box_format)
    return loss, (dx1, dy1, dx2, dy2)


@arrays(
    "points",
    inputs=BOXES,
    units="*",
    parameters={"box_format": FORMAT},
    options=PAIRWISE,
    math="1 - IoU + (area(hull) - area(A or B)) / area(hull), the hull being the smallest box that holds both",
    bounded=True,
    differentiable=False,
    paper="Rezatofighi et al. (2019), Generalized intersection over union, arXiv:1902.09630",
    example=EXAMPLE,
)
def giou(x1, y1, x2, y2, u1, v1, u2, v2, box_format=0.0):
    """Generalized IoU loss: boxes apart are drawn together by the part of their hull that neither covers.

    As torchvision's generalized_box_iou_loss, without its epsilon. A hull of no area is covered. A box of negative
    size covers nothing, but the hull holds its corners.
    """
    x, y = along(x1, x2, u1, u2, box_format), along(y1, y2, v1, v2, box_format)
    loss, (xl, xh, xw), (yl, yh, yw), known = overlap(x, y)
    part, (al, ah, aw), (bl, bh, bw) = uncovered(x, y, known)
    dx1, dx2 = ends(xl + al, xh + ah, xw + aw, 0.0, x, box_format)
    dy1, dy2 = ends(yl + bl, yh + bh, yw + bw, 0.0, y, box_format)
    return loss + part, (dx1, dy1, dx2, dy2)


@arrays(
    "points",
    inputs=BOXES,
    units="*",
    parameters={"box_format": FORMAT},
    options=PAIRWISE,
    math="1 - IoU + d^2 / c^2, with the distance d of the centres and the diagonal c of the hull",
    bounded=True,
    differentiable=False,
    paper="Zheng et al. (2020), Distance-IoU loss, arXiv:1911.08287",
    example=EXAMPLE,
)
def diou(x1, y1, x2, y2, u1, v1, u2, v2, box_format=0.0):
    """Distance IoU loss: the centres of boxes are drawn together.

    As torchvision's distance_box_iou_loss, without its epsilon. A box of negative size covers nothing, but has a
    centre, and the hull holds its corners.
    """
    x, y = along(x1, x2, u1, u2, box_format), along(y1, y2, v1, v2, box_format)
    loss, (xl, xh, xw), (yl, yh, yw), _ = overlap(x, y)
    _, _, px, py = proportions(x, y)
    q, (al, ah, aw, shift_x), (bl, bh, bw, shift_y) = distance(x, y, px, py)
    dx1, dx2 = ends(xl + al, xh + ah, xw + aw, shift_x, x, box_format)
    dy1, dy2 = ends(yl + bl, yh + bh, yw + bw, shift_y, y, box_format)
    return loss + q, (dx1, dy1, dx2, dy2)


@arrays(
    "points",
    inputs=BOXES,
    units="*",
    parameters={"box_format": FORMAT},
    options=PAIRWISE,
    math="1 - IoU + d^2 / c^2 + alpha v, with v = (4 / pi^2) (atan(w_B / h_B) - atan(w_A / h_A))^2 and "
    "alpha = v / (1 - IoU + v), held constant in the derivatives",
    bounded=True,
    differentiable=False,
    paper="Zheng et al. (2020), Distance-IoU loss, arXiv:1911.08287",
    example=EXAMPLE,
)
def ciou(x1, y1, x2, y2, u1, v1, u2, v2, box_format=0.0):
    """Complete IoU loss: also the aspect ratios of boxes are drawn together.

    As torchvision's complete_box_iou_loss, without its epsilon. The factor alpha is held constant in the derivatives,
    as in the paper and in torchvision: they are not those of the value. A box of no size has no aspect ratio, and v
    is 0 there. Of a negative size, the magnitude counts.
    """
    x, y = along(x1, x2, u1, u2, box_format), along(y1, y2, v1, v2, box_format)
    loss, (xl, xh, xw), (yl, yh, yw), _ = overlap(x, y)
    kx, ky, px, py = proportions(x, y)
    q, (al, ah, aw, shift_x), (bl, bh, bw, shift_y) = distance(x, y, px, py)
    (w, tw, _, _, _, _, _), _, _, _, _ = x
    (h, th, _, _, _, _, _), _, _, _, _ = y
    v, by_w, by_h = shape(w, h, tw, th, kx, ky)
    alpha = where(v > 0.0, v / where(v > 0.0, loss + v, 1.0), 0.0)
    by_w, by_h = alpha * by_w, alpha * by_h
    dx1, dx2 = ends(xl + al - by_w, xh + ah - by_w, xw + aw, shift_x, x, box_format)
    dy1, dy2 = ends(yl + bl - by_h, yh + bh - by_h, yw + bw, shift_y, y, box_format)
    return loss + q + alpha * v, (dx1, dy1, dx2, dy2)


def angle_cost(a, b):
    """Return 2 |a b| / (a^2 + b^2), and its derivatives by a and b."""
    s, t = abs(a), abs(b)
    i = inverse(larger(s, t))
    s, t = s * i, t * i
    r = 1.0 / larger(s * s + t * t, 0.5)
    slope = 2.0 * (t * t - s * s) * r * r * i
    return 2.0 * s * t * r, slope * t * sign(a), -slope * s * sign(b)


def side_cost(size, wanted, difference, theta):
    """Return (1 - exp(-|size - wanted| / max(size, wanted)))^theta, and its derivative by size."""
    i = inverse(larger(size, wanted))
    omega = abs(difference) * i
    e = -expm1(-omega)
    slope = theta * pow(e, theta - 1.0) * (1.0 - e) * i * where(difference > 0.0, wanted * i, 1.0)
    return pow(e, theta), sign(difference) * slope


@arrays(
    "points",
    inputs=BOXES,
    units="*",
    parameters={
        "box_format": FORMAT,
        "theta": Parameter("power of the shape cost; the paper advises 2 to 6", Interval(1.0)),
    },
    options=PAIRWISE,
    math="1 - IoU + (D + S) / 2, with D = 2 - exp(-g dx^2 / cw^2) - exp(-g dy^2 / ch^2), g = 2 - sin(2 a), "
    "S = (1 - exp(-|w_A - w_B| / max(w_A, w_B)))^theta + the same of the heights; (dx, dy) leads from centre to "
    "centre at the angle a, (cw, ch) is the hull",
    bounded=True,
    differentiable=False,
    paper="Gevorgyan (2022), SIoU loss, arXiv:2205.12740",
    example=EXAMPLE,
)
def siou(x1, y1, x2, y2, u1, v1, u2, v2, box_format=0.0, theta=4.0):
    """SIoU loss: costs of the distance, with the angle between the centres, and of the shape.

    With the signs of YOLOv6: the distance cost grows with the distance, as exp(-g d^2) is taken from 1, and g = 2 less
    the angle cost 1 - 2 sin(asin(x) - pi / 4)^2, which is sin(2 a). All of it is differentiated, the angle cost too.
    A side of no length costs nothing.
    """
    x, y = along(x1, x2, u1, u2, box_format), along(y1, y2, v1, v2, box_format)
    loss, (xl, xh, xw), (yl, yh, yw), _ = overlap(x, y)
    kx, ky, _, _ = proportions(x, y)
    (w, tw, _, _, _, dx, dw), (nl, nr), _, _, _ = x
    (h, th, _, _, _, dy, dh), (ml, mr), _, _, _ = y
    angle, by_dx, by_dy = angle_cost(dx * kx, dy * ky)
    gamma = 2.0 - angle
    rx, ry = dx * dx, dy * dy
    fall_x, fall_y = expm1(-gamma * rx), expm1(-gamma * ry)
    kept_x, kept_y = 1.0 + fall_x, 1.0 + fall_y
    turn = rx * kept_x + ry * kept_y
    pull_x, pull_y, turn_x, turn_y = gamma * kept_x, gamma * kept_y, 0.5 * turn * by_dx * kx, 0.5 * turn * by_dy * ky
    shift_x, shift_y = 0.5 * (pull_x * dx - turn_x), 0.5 * (pull_y * dy - turn_y)
    by_hull_x, by_hull_y = pull_x * rx, pull_y * ry
    (side_x, gx), (side_y, gy) = remainder(x), remainder(y)
    aw = pull_x * where(abs(side_x) == 1.0, -side_x * (abs(dx) * gx), rx * side_x + dx) - turn_x
    bw = pull_y * where(abs(side_y) == 1.0, -side_y * (abs(dy) * gy), ry * side_y + dy) - turn_y
    shape_x, by_w = side_cost(w, tw, dw, theta)
    shape_y, by_h = side_cost(h, th, dh, theta)
    by_w, by_h = 0.5 * by_w, 0.5 * by_h
    dx1, dx2 = ends(xl + by_hull_x * nl - by_w, xh + by_hull_x * nr - by_w, xw + aw, shift_x, x, box_format)
    dy1, dy2 = ends(yl + by_hull_y * ml - by_h, yh + by_hull_y * mr - by_h, yw + bw, shift_y, y, box_format)
    return loss + 0.5 * (shape_x + shape_y - fall_x - fall_y), (dx1, dy1, dx2, dy2)
