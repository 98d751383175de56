"""Losses inside DuckDB and Polars, beside the same losses of arrays and beside SQL's own arithmetic."""

import numpy as np
import pytest

import fastloss as fl

pytestmark = [pytest.mark.oracle, pytest.mark.jit]


@pytest.fixture
def con():
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as con:
        yield con


def test_duckdb(con):
    fl.duckdb.register(
        con, "mse", "cross_entropy", "gaussian_nll", soft="huber:delta=0.5", mine=0.5 * fl.mse + 0.5 * fl.mae
    )
    con.execute(
        "create table t as select i % 3 g, sin(i) p, cos(i) t, if(i % 7 = 0, null, cos(i)) n from range(5000) r(i)"
    )
    ours, theirs = con.execute("select avg(fl_mse(p, t)), avg((p - t) * (p - t)) from t").fetchone()
    assert ours == pytest.approx(theirs, rel=1e-12)
    query = """select g, sum(fl_mse(p, n)), sum((p - n) * (p - n)), count(fl_mse(p, n)), count(n),
        avg(mine(p, t)), avg(0.5 * (p - t) * (p - t) + 0.5 * abs(p - t)) from t group by g order by g"""
    for _, a, b, filled, expected, mine, own in con.execute(query).fetchall():
        assert a == pytest.approx(b, rel=1e-12)
        assert filled == expected
        assert mine == pytest.approx(own, rel=1e-12)
    soft = con.execute("select avg(soft(p, t)) from t where abs(p - t) > 0.5").fetchone()[0]
    hinge = con.execute("select avg(0.5 * (abs(p - t) - 0.25)) from t where abs(p - t) > 0.5").fetchone()[0]
    assert soft == pytest.approx(hinge, rel=1e-12)
    whole = con.execute("select fl_mse(3, 1), fl_mse(null, 1), fl_gaussian_nll(1.0, 1.0, 3.0)").fetchone()
    assert whole == (4.0, None, 2.0)


def test_duckdb_scores_of_classes(con):
    fl.duckdb.register(con, "cross_entropy")
    values = "([0.0, 0.0], 1), (null, 0), ([1.0, 2.0], null), ([ln(3), 0.0], 0)"
    rows = con.execute(f"select fl_cross_entropy(z, y) from (values {values}) t(z, y)").fetchall()
    assert [r[0] for r in rows] == [pytest.approx(np.log(2.0)), None, None, pytest.approx(np.log(4.0 / 3.0))]
    with pytest.raises(Exception, match="cross_entropy: prediction has rows of different lengths"):
        con.execute("select fl_cross_entropy(z, 0) from (values ([0.0, 0.0]), ([1.0])) t(z)").fetchall()


def test_duckdb_registers_all_losses_of_elements(con):
    fl.duckdb.register(con)
    found = {r[0] for r in con.execute("select function_name from duckdb_functions()").fetchall()}
    assert {f"fl_{k}" for k, v in fl.LOSSES.items() if v.record.family == "elementwise"} <= found
    assert con.execute("select fl_bce(0.5, 1.0), fl_l2(3.0)").fetchone()[0] == pytest.approx(np.log(2.0))
    with pytest.raises(Exception, match=r"bce: prediction\[0\] is 1.5; allowed: \[0, 1\]"):
        con.execute("select fl_bce(1.5, 1.0)").fetchall()
    with pytest.raises(TypeError, match="triplet takes arrays that no row holds"):
        fl.duckdb.register(con, "triplet")


def test_polars_contexts():
    pl = pytest.importorskip("polars")
    rng = np.random.default_rng(0)
    p, t = rng.normal(size=(2, 1000))
    frame = pl.DataFrame({"g": np.arange(1000) % 3, "p": p, "t": t})
    frame = frame.with_columns(n=pl.when(pl.col("g") == 1).then(None).otherwise(pl.col("t")))
    loss, own = fl.polars.loss("mse", "p", "n"), (pl.col("p") - pl.col("n")) ** 2
    expected = frame.select(own)["p"].to_numpy()
    for got in (
        frame.select(loss),
        frame.lazy().select(loss).collect(),
        frame.lazy().select(loss).collect(engine="streaming"),
        frame.lazy()
        .with_columns(loss.alias("loss"))
        .filter(pl.col("g") >= 0)
        .select("loss")
        .collect(engine="streaming"),
    ):
        np.testing.assert_allclose(got.to_series().to_numpy(), expected, 1e-12)
        assert got.to_series().null_count() == (frame["g"] == 1).sum()
    both = [x.mean().alias("x") for x in (loss, own)]
    groups = [frame.group_by("g", maintain_order=True).agg(x) for x in both]
    groups += [frame.lazy().group_by("g", maintain_order=True).agg(x).collect() for x in both]
    for a, b in (groups[:2], groups[2:]):
        assert a["g"].to_list() == b["g"].to_list()
        assert [x is None for x in a["x"]] == [x is None for x in b["x"]] == [False, True, False]
        np.testing.assert_allclose(a["x"].drop_nulls(), b["x"].drop_nulls(), 1e-12)
    over = frame.select(loss.mean().over("g").alias("x"))["x"], frame.select(own.mean().over("g").alias("x"))["x"]
    np.testing.assert_allclose(*(x.drop_nulls() for x in over), 1e-12)
    assert frame.clear().select(loss).height == 0
    scores = pl.DataFrame(
        {"z": pl.Series(rng.normal(size=(4, 3)), dtype=pl.Array(pl.Float64, 3)), "y": [0, 1, None, 2]}
    )
    rows = scores.select(fl.polars.loss("cross_entropy", "z", "y")).to_series()
    kept = [0, 1, 3]
    z, y = scores["z"].to_numpy()[kept], np.array([0, 1, 2])
    np.testing.assert_allclose(rows.to_numpy()[kept], fl.cross_entropy(z, y, reduction="none"), 1e-12)
    assert rows[2] is None
