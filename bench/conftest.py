"""Which cases `pytest bench/` measures: a few by default, one or all on request."""

from fastloss.performance.ask import SHORT, SLOW
from fastloss.performance.cases import cases
from fastloss.performance.contestants import BUILDERS, installed

SIZES = (100, 10_000, 1_000_000)


def pytest_addoption(parser):
    group = parser.getgroup("fastloss")
    group.addoption("--all-cases", action="store_true", help="every loss, size, precision and mode: hours")
    group.addoption("--loss", action="append", help="only this loss, at every size, precision and mode")


def chosen(config):
    if config.getoption("--loss"):
        return list(cases(config.getoption("--loss")))
    if config.getoption("--all-cases"):
        return list(cases())
    return list(cases(SHORT, SIZES, ["float32"], ["value_and_grad"]))


def pytest_generate_tests(metafunc):
    if {"case", "name"} <= set(metafunc.fixturenames):
        names = [n for n in BUILDERS if installed(n) and n not in SLOW]
        pairs = [(c, n) for c in chosen(metafunc.config) for n in names]
        metafunc.parametrize(("case", "name"), pairs, ids=[f"{c.id}-{n}" for c, n in pairs])
