"""Advice: the right family on sets of known noise, and a sentence where there is nothing to advise on."""

import json

import noise_sets
import numpy as np
import pytest

import fastloss as fl
from fastloss.advice.noise import fits
from fastloss.advice.sample import Sample

SETS = [(kind, seed) for seed in range(3) for kind in noise_sets.KINDS][:40]


def advice_on(kind, seed, n=1500):
    y, pred, group, names = kind(np.random.default_rng([seed, n]), n)
    return fl.advise(y, pred, group), names


def test_the_right_family_is_first_in_at_least_36_of_40_sets_and_none_is_confidently_wrong():
    right, wrong = 0, []
    for kind, seed in SETS:
        advice, names = advice_on(kind, seed)
        if noise_sets.right(advice[0], names):
            right += 1
        else:
            wrong.append((kind.__name__, seed, advice[0].label, advice.confidence))
    assert right >= 36, wrong
    assert not [w for w in wrong if w[3] == "clear"]


def test_twenty_rows_tell_nothing_about_noise():
    for kind in (noise_sets.gaussian, noise_sets.student, noise_sets.outliers, noise_sets.laplace):
        advice, _ = advice_on(kind, 0, 20)
        assert advice.confidence == "open"
        assert "20 rows cannot tell" in advice[0].reasons[0]


def test_normal_noise_is_never_called_anything_else():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        advice = fl.advise(rng.normal(size=400), np.zeros(400))
        assert advice[0].name == "mse" or advice.confidence != "clear"


@pytest.mark.parametrize("kind", noise_sets.KINDS)
def test_code_runs_as_printed(kind):
    y, pred, group, _ = kind(np.random.default_rng(1), 300)
    rows = {"ordinal": 4, "cross_entropy": 5, "softmax_focal": 5}
    for each in fl.advise(y, pred, group):
        outputs = np.abs(pred) + 0.1 if pred is not None else np.ones(300)
        if each.name in rows:
            outputs = np.random.default_rng(2).normal(size=(300, rows[each.name]))
        names = {"fl": fl, "np": np, "y": y, "pred": outputs, "group": group}
        exec(each.code, names)
        assert np.isfinite(names["value"]), each


@pytest.mark.parametrize(
    ("wanted", "first"),
    [("median", "mae"), ("quantile:0.9", "quantile:q=0.9"), ("mean", "mse"), ("ranking", "lambda_rank")],
)
def test_what_is_wanted_comes_before_the_noise(wanted, first):
    rng = np.random.default_rng(0)
    pred = rng.normal(size=500)
    advice = fl.advise(pred + rng.standard_t(2, size=500), pred, wanted=wanted)
    assert advice[0].label == first
    y = pred + rng.normal(size=500)
    for each in advice:
        exec(each.code, {"fl": fl, "np": np, "y": y if wanted != "ranking" else np.abs(np.rint(y)), "pred": pred})


def test_probabilities_of_a_rare_class_need_no_weights():
    y = np.arange(1000) % 200 == 0
    assert fl.advise(y)[0].parameters == {"pos_weight": 199.0}
    advice = fl.advise(y, wanted="probability")
    assert (advice[0].name, advice[0].parameters) == ("bce_with_logits", {})


def test_labels_of_other_encodings():
    rng = np.random.default_rng(0)
    sign = np.where(rng.random(100) < 0.5, -1, 1)
    assert fl.advise(sign)[0].name == "logistic"
    for y in (np.array(["no", "yes"])[(sign + 1) // 2], sign == 1, sign + 3):
        advice = fl.advise(y)
        assert advice[0].name == "bce_with_logits"
        names = {"fl": fl, "np": np, "y": y, "pred": np.zeros(100)}
        exec(advice[0].code, names)
        assert names["value"] == pytest.approx(np.log(2.0))
    advice = fl.advise(np.array(["b", "a", "c", "a"]))
    assert advice.kind == "classes"
    names = {"fl": fl, "np": np, "y": np.array(["b", "a", "c", "a"]), "pred": np.eye(3)[[1, 0, 2, 0]]}
    exec(advice[0].code, names)
    assert names["value"] == pytest.approx(np.log(np.e + 2.0) - 1.0)


def test_files_and_tables(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    y, pred, _, _ = noise_sets.laplace(np.random.default_rng(0), 600)
    table = pa.table({"y": y, "p": pred, "class": pa.array(["a", "b", None] * 200).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    for data in (table, str(tmp_path / "a.parquet")):
        found = fl.advise(data, "p", target="y")
        assert found.to_dict() == fl.advise(y, pred).to_dict()
    found = fl.advise(table, target="class")
    assert (found.kind, found.facts["rows"], found.facts["positive class"]) == ("two classes", 400, "b")


def test_missing_rows_are_left_out():
    y, pred, _, _ = noise_sets.laplace(np.random.default_rng(0), 600)
    y[::7] = np.nan
    kept = ~np.isnan(y)
    found = fl.advise(y, pred)
    assert found.facts["rows"] == kept.sum()
    assert found.facts["skewness"] == pytest.approx(fl.advise(y[kept], pred[kept]).facts["skewness"], rel=1e-12)


def test_advice_as_text_json_and_page():
    advice, _ = advice_on(noise_sets.grouped, 0)
    assert max(map(len, repr(advice).splitlines())) <= 80
    assert json.loads(advice.to_json())["recommendations"][0]["code"] == advice[0].code
    page = advice.to_html()
    assert "<script" not in page
    assert page.count("<h2>") == len(advice)
    named = fl.advise(np.array(["<script>", "b", "b"] * 4))
    assert "<script" not in named.to_html()


def test_the_sample_is_the_same_for_any_batches():
    whole, parts = Sample(100), Sample(100)
    values = np.arange(5000.0)
    whole.add(0, [values])
    for start in range(0, 5000, 37):
        parts.add(start, [values[start : start + 37]])
    np.testing.assert_array_equal(whole.rows, parts.rows)
    np.testing.assert_array_equal(whole.columns[0], whole.rows)
    assert 40 <= len(whole.rows) <= 100
    # Spread over the rows, and not by a stride.
    assert len(set(np.diff(whole.rows))) > 10
    assert whole.rows[0] < 250
    assert whole.rows[-1] > 4750


def test_models_of_noise_have_the_likelihood_that_scipy_gives():
    from scipy import stats

    r = np.random.default_rng(0).standard_t(4, size=400)
    found = {f.name: f for f in fits(r)}
    assert found["normal"].likelihood == pytest.approx(stats.norm.logpdf(r, *stats.norm.fit(r)).sum(), rel=1e-12)
    assert found["laplace"].likelihood == pytest.approx(stats.laplace.logpdf(r, *stats.laplace.fit(r)).sum(), rel=1e-12)
    t = found["student"]
    assert t.likelihood == pytest.approx(stats.t.logpdf(r, t.shape, np.median(r), t.scale).sum(), rel=1e-12)
    # SciPy's fit has the location free and any degrees of freedom.
    assert stats.t.logpdf(r, *stats.t.fit(r)).sum() - t.likelihood < 1.0


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (([],), "no rows to advise on"),
        (([2.0, 2.0],), "the targets are all 2, so there is nothing to predict"),
        ((["a", "a"],), "the targets are of one class, 'a'"),
        (([np.nan, np.nan],), "all 2 have a missing value"),
        (([[1, 2]],), r"y has shape \(1, 2\)"),
        (([1, 2, 3], [1, 2]), "pred has 2 rows; y has 3"),
        (([1j, 2j],), "y has dtype complex128"),
        ((np.array([1, "a"], object),), "y holds values of the types int, str"),
        ((np.array(["2020-01-01", "2021-01-01"], "datetime64[D]"),), "y has dtype datetime64"),
    ],
)
def test_nothing_to_advise_on_is_a_sentence(given, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        fl.advise(*given)


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [("mode", "allowed: mean, median, quantile:Q"), ("quantile:2", r"the level of a quantile is in \(0, 1\)")],
)
def test_unknown_purposes_are_refused(wanted, sentence):
    with pytest.raises(ValueError, match=sentence):
        fl.advise([1.0, 2.0], wanted=wanted)
    with pytest.raises(ValueError, match="the targets are text"):
        fl.advise(["a", "b"], wanted="median")


@pytest.mark.oracle
def test_real_sets():
    data = pytest.importorskip("statsmodels.api").datasets
    engel = data.engel.load_pandas().data
    x, y = engel["income"].to_numpy(), engel["foodexp"].to_numpy()
    pred = np.polyval(np.polyfit(x, y, 1), x)
    # The classic example of a spread that grows: Koenker and Bassett (1982).
    assert fl.advise(y, pred)[0].name in ("gaussian_nll", "gamma", "student_t_nll")
    assert fl.advise(y, pred, wanted="median")[0].name == "mae"
    stackloss = data.stackloss.load_pandas().endog.to_numpy()
    assert fl.advise(stackloss).confidence == "open"  # 21 rows
    visits = data.randhie.load_pandas().data["mdvis"].to_numpy()
    # Doctor's visits: Deb and Trivedi (2002) fit negative binomial models to them.
    advice = fl.advise(visits)
    assert advice[0].name == "negative_binomial_nll"
    assert advice.facts["dispersion"] == pytest.approx(visits.var() / visits.mean(), rel=0.05)
