"""Statistics of an evaluation: exact, associative, and the same as other libraries'."""

import json
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastloss as fl
from fastloss.data import SAMPLES, sample_for
from fastloss.evaluation import InputError, Report, Statistics
from fastloss.evaluation.accumulate import Moments, Partial
from fastloss.evaluation.fixed_point import BIAS

RNG = np.random.default_rng(0)
FINITE = st.floats(allow_nan=False, allow_infinity=False)

ADVERSARIAL = {
    "ordinary": RNG.normal(size=3000),
    "positive": RNG.exponential(size=5000),
    "extremes": np.array([1e300, 1e-300, 5e-324, -1e300, 1.7e308, 1.7e308, 3.0, -5e-324]),
    "all exponents": np.ldexp(RNG.normal(size=4000), RNG.integers(-1074, 1000, 4000)),
    "confident": np.log1p(np.exp(-np.abs(RNG.normal(size=4000) * 60))),
    "zeros": np.zeros(5000),
    "a block of zeros": np.append(np.zeros(1024), 1.0),
    "subnormal": np.full(2000, 5e-324),
    "around the window's edge": np.ldexp(RNG.normal(size=3000), RNG.integers(-300, -200, 3000)),
    "cancelling": np.concatenate([np.full(1500, 1e16), np.ones(1), np.full(1500, -1e16)]),
    "a block and one": np.full(1025, 0.1),
    **{
        f"{span} binary orders": np.ldexp(1.0 + RNG.random(1024), RNG.permutation(1024) % (span + 1)) * sign
        for span, sign in zip(
            (16, 17, 32, 33, 75, 76, 77), (1, -1, 1, -1, RNG.choice([-1, 1], 1024), 1, 1), strict=True
        )
    },
    "empty": np.empty(0),
}


def moments(values, weights=None) -> Moments:
    partial = Partial(weights is not None)
    partial.add(np.asarray(values, float), weights)
    return partial.moments()


def exactly(integer: int) -> Fraction:
    return Fraction(integer, 1 << BIAS)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_sums_are_exact(name):
    x = ADVERSARIAL[name]
    exact = [Fraction(v) for v in x.tolist()]
    found = moments(x)
    assert [exactly(s) for s in found.sums] == [sum(exact), sum(v * v for v in exact)]
    assert found.finite == x.size
    if x.size:
        assert (found.low, found.high) == (x.min(), x.max())
        assert found.statistics(False).mean == float(sum(exact) / x.size)


@pytest.mark.parametrize("name", ADVERSARIAL)
@pytest.mark.parametrize("wild", [False, True])
def test_weighted_sums_are_exact(name, wild):
    x = ADVERSARIAL[name]
    w = np.abs(RNG.normal(size=x.size))
    if wild:
        w = np.ldexp(w, RNG.integers(-1074, 1000, x.size))
    ls, ws = ([Fraction(v) for v in a.tolist()] for a in (x, w))
    expected = [sum(ws), *(sum(a * b**k for a, b in zip(ws, ls, strict=True)) for k in (1, 2)), 0]
    assert [exactly(s) for s in moments(x, w).sums] == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(FINITE, max_size=60), st.randoms())
def test_sums_are_exact_and_do_not_depend_on_order_or_split(values, random):
    whole = moments(values)
    assert exactly(whole.sums[0]) == sum(map(Fraction, values))
    assert exactly(whole.sums[1]) == sum(Fraction(v) ** 2 for v in values)
    random.shuffle(values)
    cut = random.randint(0, len(values))
    assert moments(values[cut:]).merge(moments(values[:cut])) == whole


@pytest.mark.parametrize("name", sorted(set(ADVERSARIAL) - {"empty"}))
def test_mean_and_deviation_are_rounded_once(name):
    mpmath = pytest.importorskip("mpmath")
    x = ADVERSARIAL[name]
    found = moments(x).statistics(False)
    exact = [Fraction(v) for v in x.tolist()]
    mean = sum(exact) / len(exact)
    variance = sum(v * v for v in exact) / len(exact) - mean * mean
    with mpmath.workprec(4000):
        root = mpmath.sqrt(mpmath.mpf(variance.numerator) / variance.denominator)
        expected = float(root) if root < 2**1000 else pytest.approx(float(root / 2**60) * 2.0**60, rel=1e-15)
    assert found.mean == float(mean)
    assert found.std == expected


@pytest.mark.jit
def test_deviation_of_equal_losses_is_zero_and_of_near_equal_ones_is_right():
    assert moments(np.full(12345, 0.1)).statistics(False).std == 0.0
    x = 1e8 + np.arange(1000) % 2
    assert moments(x).statistics(False).std == 0.5


def test_nothing_to_average():
    s = moments([]).statistics(False)
    assert s.count == 0
    assert all(math.isnan(v) for v in (s.mean, s.std, s.min, s.max))
    weighted = moments([1.0, 2.0], np.zeros(2)).statistics(False)
    assert math.isnan(weighted.mean)
    assert weighted.weight_sum == 0.0


def test_non_finite_losses_are_counted_apart():
    x = np.array([1.0, np.nan, np.inf, 2.0, -np.inf, np.nan])
    found = moments(x)
    assert (found.finite, found.nan, found.above, found.below) == (2, 2, 1, 1)
    kept = found.statistics(False)
    assert (kept.mean, kept.count, kept.non_finite, kept.min, kept.max) == (1.5, 2, 4, 1.0, 2.0)
    propagated = found.statistics(True)
    assert math.isnan(propagated.mean)
    assert propagated.count == 6
    one_sided = moments([1.0, np.inf]).statistics(True)
    assert (one_sided.mean, one_sided.min, one_sided.max) == (math.inf, 1.0, math.inf)
    below = moments([1.0, -np.inf]).statistics(True)
    assert (below.mean, below.min, below.max) == (-math.inf, -math.inf, 1.0)
    assert math.isnan(moments([np.inf, -np.inf]).statistics(True).mean)
    assert moments(np.full(2000, np.nan)).sums == (0, 0)
    assert moments(np.append(np.full(1024, np.inf), 3.0)).statistics(False).mean == 3.0
    weighted = moments(x, np.full(6, 0.5))
    assert weighted.statistics(False).weight_sum == 1.0
    assert weighted.statistics(True).weight_sum == 3.0


def test_zero_has_one_sign():
    a, b = moments([0.0, -0.0]), moments([-0.0, 0.0])
    assert a.to_dict() == b.to_dict()


@pytest.mark.jit
def test_evaluation_agrees_with_the_library_and_is_right_to_the_last_digit():
    z = RNG.normal(size=200_001).astype(np.float32) * 5
    t = RNG.integers(0, 2, z.size).astype(np.int8)
    w = RNG.random(z.size)
    report = fl.evaluate((z, t, w), losses=["bce_with_logits", "huber:delta=2", fl.focal.bind(gamma=3.0)])
    assert list(report) == ["bce_with_logits", "huber:delta=2", "focal:gamma=3"]
    losses = (fl.bce_with_logits, fl.huber.bind(delta=2.0), fl.focal.bind(gamma=3.0))
    for (_, found), loss in zip(report.items(), losses, strict=True):
        rows = loss(z.astype(float), t.astype(float), reduction="none")
        ls, ws = [Fraction(v) for v in rows.tolist()], [Fraction(v) for v in w.tolist()]
        assert found.mean == float(sum(a * b for a, b in zip(ls, ws, strict=True)) / sum(ws))
        assert found.weight_sum == float(sum(ws))
        assert found.mean == pytest.approx(loss(z.astype(float), t.astype(float), weight=w), rel=1e-12)
        assert (found.min, found.max, found.count) == (rows.min(), rows.max(), z.size)


@pytest.mark.jit
@pytest.mark.parametrize("weighted", [False, True])
def test_any_split_in_any_order_gives_the_same_bits_and_the_same_json(weighted):
    n = 50_000
    z = np.concatenate([RNG.normal(size=n - 3) * 20, [1e30, -1e-30, 5e5]])
    t = RNG.integers(0, 2, n).astype(float)
    columns = (z, t, RNG.random(n)) if weighted else (z, t)
    losses = ["mse", "bce_with_logits", "log_cosh"]
    whole = fl.evaluate(columns, losses, on_invalid="skip")
    for parts in (2, 7, 40):
        order = RNG.permutation(n)
        shards = [
            fl.evaluate(tuple(c[i] for c in columns), losses, on_invalid="skip") for i in np.array_split(order, parts)
        ]
        reports = [Report.from_json(s.to_json(indent=None)) for s in shards]
        merged = reports[-1].merge(*reports[:-1])
        assert merged == whole
        assert merged.to_json() == whole.to_json()


@pytest.mark.jit
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_change_a_bit(threads):
    z, t = RNG.normal(size=(2, 300_000))
    whole = fl.evaluate((z, t), ["mse", "cauchy"], threads=1, worst=3)
    assert fl.evaluate((z, t), ["mse", "cauchy"], threads=threads, worst=3).to_json() == whole.to_json()


@pytest.mark.jit
def test_worst_rows_are_the_largest_and_merge():
    z = RNG.normal(size=300_000)
    z[[7, 200_000]] = 50.0
    t = np.zeros(z.size)
    report = fl.evaluate((z, t), ["mse", "mae"], worst=4)
    order = np.lexsort((np.arange(z.size), -np.abs(z)))[:4]
    for label in report:
        assert [w.row for w in report.worst[label]] == order.tolist()
        assert [w.loss for w in report.worst[label]] == [(z[i] ** 2 if label == "mse" else abs(z[i])) for i in order]
    other = fl.evaluate((z * 2, t), ["mse", "mae"], worst=2)
    assert [w.loss for w in report.merge(other).worst["mae"]] == [100.0, 100.0]


def test_ignored_labels_do_not_count():
    z = RNG.normal(size=(1000, 5))
    t = RNG.integers(0, 5, 1000)
    t[::3] = -100
    report = fl.evaluate((z, t), ["cross_entropy", "cross_entropy:label_smoothing=0.1"])
    found = report["cross_entropy"]
    assert found.mean == pytest.approx(fl.cross_entropy(z, t), rel=1e-14)
    assert (found.count, found.ignored) == ((t >= 0).sum(), (t < 0).sum())
    assert "ignored" in repr(report)
    with pytest.raises(InputError, match="row 0: cross_entropy: target is -100; allowed: 0 to 4"):
        fl.evaluate((z, t), "cross_entropy:ignore_index=none")
    t[t < 0] = 4
    assert fl.evaluate((z, t), "cross_entropy:ignore_index=4")["cross_entropy:ignore_index=4"].ignored == (t == 4).sum()


def test_predictions_of_several_kinds():
    n = 1000
    mean, var, t = RNG.normal(size=n), RNG.random(n) + 0.1, RNG.normal(size=n)
    found = fl.evaluate(((mean, var), t), "gaussian_nll")["gaussian_nll"]
    assert found.mean == pytest.approx(fl.gaussian_nll((mean, var), t), rel=1e-13)
    z, p = RNG.normal(size=(n, 3)), RNG.dirichlet(np.ones(3), n)
    assert fl.evaluate((z, p), "cross_entropy")["cross_entropy"].mean == pytest.approx(
        fl.cross_entropy(z, p), rel=1e-13
    )
    y = (RNG.random((n, 3)) < 0.5).astype(float)
    assert fl.evaluate((z, y), "bce_with_logits")["bce_with_logits"].mean == pytest.approx(
        fl.bce_with_logits(z, y), rel=1e-13
    )
    assert fl.evaluate((z[:, 0],), "l1")["l1"].count == n


def test_sample_equals_scikit_learn_and_torch():
    metrics = pytest.importorskip("sklearn.metrics")
    torch = pytest.importorskip("torch")
    pq = pytest.importorskip("pyarrow.parquet")
    f = torch.nn.functional
    cancer, digits = (pq.read_table(s.path) for s in SAMPLES)
    logit, p, y = (cancer[c].to_numpy().astype(float) for c in ("logit", "probability", "label"))
    z = np.stack(digits["logits"].to_numpy(zero_copy_only=False)).astype(float)
    labels = digits["label"].to_numpy().astype(int)
    softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    expected = {
        "bce_with_logits": metrics.log_loss(y, 1 / (1 + np.exp(-logit))),
        "log_loss": metrics.log_loss(y, p),
        "bce": f.binary_cross_entropy(torch.tensor(p), torch.tensor(y)).item(),
        "brier": metrics.brier_score_loss(y, p),
        "hinge": metrics.hinge_loss(2 * y - 1, logit),
        "mse": metrics.mean_squared_error(y, p),
        "cross_entropy": metrics.log_loss(labels, softmax, labels=range(10)),
        "multi_margin": f.multi_margin_loss(torch.tensor(z), torch.tensor(labels)).item(),
    }
    torch_too = {
        "bce_with_logits": f.binary_cross_entropy_with_logits(torch.tensor(logit), torch.tensor(y)).item(),
        "cross_entropy": f.cross_entropy(torch.tensor(z), torch.tensor(labels)).item(),
    }
    for name, value in [*expected.items(), *torch_too.items()]:
        sample, pred, target = sample_for(fl.LOSSES[name])
        assert fl.evaluate(sample.path, name, pred=pred, target=target)[name].mean == pytest.approx(value, rel=1e-12), (
            name
        )


def test_report_is_a_mapping_a_table_and_json():
    report = fl.evaluate((np.array([1.0, 2.0]), np.array([0.0, 0.0])), ["mse", "mae"])
    assert isinstance(report["mse"], Statistics)
    assert list(report) == ["mse", "mae"]
    assert len(report) == 2
    with pytest.raises(AttributeError):
        report["mse"].mean = 1.0
    lines = repr(report).splitlines()
    assert lines[0].split() == ["loss", "mean", "std", "min", "max", "count", "non-finite"]
    assert lines[2].split() == ["mse", "2.5", "1.5", "1", "4", "2", "0"]
    state = json.loads(report.to_json())
    assert state["losses"]["mae"]["mean"] == 1.5
    assert Report.from_json(report.to_json()) == report
    assert pickle.loads(pickle.dumps(report)) == report


def test_json_is_strict_where_figures_are_not_finite():
    x = np.array([1.0, np.inf, np.nan])
    report = fl.evaluate((x, np.zeros(3)), "mae", on_invalid="propagate", worst=1)
    text = report.to_json()
    state = json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    assert state["losses"]["mae"]["mean"] is None
    back = Report.from_json(text)
    assert back == report
    assert math.isnan(back["mae"].mean)
    assert back.worst["mae"][0].loss == math.inf


def test_merging_what_does_not_belong_together_raises():
    x = np.ones(3)
    a, b, c = fl.evaluate((x, x), "mse"), fl.evaluate((x, x), "mae"), fl.evaluate((x, x), "mse", on_invalid="skip")
    d = fl.evaluate((x, x, x), "mse")
    with pytest.raises(InputError, match="different losses"):
        a.merge(b)
    with pytest.raises(InputError, match="on_invalid"):
        a.merge(c)
    with pytest.raises(ValueError, match="weighted"):
        a.merge(d)
    with pytest.raises(TypeError, match="cannot merge a report with a dict"):
        a.merge({})
    for text in ("", "[]", "{}", '{"format": 99}'):
        with pytest.raises(InputError, match="report"):
            Report.from_json(text)


@pytest.mark.parametrize(
    ("losses", "error", "message"),
    [
        ("hubr", KeyError, "did you mean huber"),
        ("huber:detla=2", TypeError, "did you mean delta"),
        ("huber:delta=-1", ValueError, "allowed"),
        ("huber:delta=x", InputError, "not a number"),
        ("huber:delta", InputError, "expected parameter=value"),
        ("huber:delta=1,delta=2", InputError, "twice"),
        (["mse", "mse"], InputError, "asked for twice"),
        ([], InputError, "no losses"),
        ([3], TypeError, "a loss is given as int"),
        ("cross_entropy", InputError, "takes a row of scores"),
        ("gaussian_nll", InputError, "takes 2 predictions"),
        (None, TypeError, "a loss is given as NoneType"),
    ],
)
def test_losses_that_cannot_be(losses, error, message):
    x = np.ones(3)
    with pytest.raises(error, match=message):
        fl.evaluate((x, x), losses)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_invalid": "no"}, "allowed: fail"),
        ({"worst": -1}, "worst"),
        ({"threads": 0}, "threads"),
        ({"worst": True}, "worst"),
        ({"per_sample": "rows.csv"}, "per_sample is rows.csv; it is written as Parquet"),
    ],
)
def test_options_that_cannot_be(options, message):
    x = np.ones(3)
    with pytest.raises(InputError, match=message):
        fl.evaluate((x, x), "mse", **options)


def test_predictions_and_target_that_do_not_fit():
    x, rows = np.ones(3), np.ones((3, 2))
    with pytest.raises(InputError, match=r"^mse needs a target$"):
        fl.evaluate((x,), "mse")
    with pytest.raises(InputError, match=r"^mse takes one number a row and was given 2, for one target$"):
        fl.evaluate((rows, x), "mse")
    assert fl.evaluate((rows, rows), "mse").rows == fl.evaluate((rows, x), "quantile:q=0.1/0.9").rows == 3


def test_a_colon_without_parameters_leaves_no_trace():
    assert [*fl.evaluate((np.ones(3), np.ones(3)), "mse:")] == ["mse"]


def test_what_is_masked_is_a_null():
    x = np.ma.array([1.0, 1.0, 1e9], mask=[False, False, True])
    for data in ((x, np.zeros(3)), {"pred": x, "target": np.zeros(3)}, (np.zeros(3), x)):
        with pytest.raises(InputError, match=r"row 2: .* is null"):
            fl.evaluate(data, "mse")
        report = fl.evaluate(data, "mse", on_invalid="skip")
        assert (report["mse"].mean, report["mse"].count, report.null_rows) == (1.0, 2, 1)
    rows = np.ma.array([[1.0, 2.0], [3.0, 4.0]], mask=[[False, False], [False, True]])
    report = fl.evaluate((rows, np.array([0, 1])), "cross_entropy", on_invalid="skip")
    assert (report["cross_entropy"].count, report.null_rows) == (1, 1)


def test_evaluating_leaves_the_inputs_alone():
    z, t = RNG.normal(size=(2, 1000))
    z[3] = np.nan
    before = z.copy(), t.copy()
    fl.evaluate((z, t), "mse", on_invalid="skip")
    np.testing.assert_array_equal((z, t), before)
