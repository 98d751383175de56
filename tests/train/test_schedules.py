"""Schedules against torch.optim.lr_scheduler: the same learning rates and momenta, bit for bit."""

import pickle
import re

import numpy as np
import pytest

import fastloss as fl

torch = pytest.importorskip("torch")

CASES = [
    ("StepLR", {"step_size": 3}),
    ("StepLR", {"step_size": 1, "gamma": 0.7}),
    ("ExponentialLR", {"gamma": 0.95}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.1, "end_factor": 0.8, "total_iters": 20}),
    ("CosineAnnealingLR", {"T_max": 7}),
    ("CosineAnnealingLR", {"T_max": 10, "eta_min": 0.01}),
    ("CosineAnnealingLR", {"T_max": 1}),
    ("CosineAnnealingWarmRestarts", {"T_0": 5}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 1e-3}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 40}),
    ("OneCycleLR", {"max_lr": [1.0, 0.5], "epochs": 10, "steps_per_epoch": 4, "anneal_strategy": "linear"}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 40, "three_phase": True, "pct_start": 0.4, "base_momentum": 0.8}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 40, "cycle_momentum": False, "div_factor": 10.0}),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 40, "final_div_factor": 100.0, "max_momentum": [0.9, 0.99]}),
]


def pair(kind, **options):
    """The same optimiser of both libraries, with two groups."""
    groups = [{"params": [np.zeros(2)], "lr": 0.3}, {"params": [np.zeros(3)]}]
    theirs = [{**g, "params": [torch.nn.Parameter(torch.zeros(2))]} for g in groups]
    return getattr(fl.optim, kind)(groups, lr=0.1, **options), getattr(torch.optim, kind)(theirs, lr=0.1, **options)


def rates(opt):
    return [(float(g["lr"]), g.get("momentum"), g.get("betas")) for g in opt.param_groups]


def advance(opt, schedule, *arguments):
    if isinstance(opt, torch.optim.Optimizer):
        opt.step()
    schedule.step(*arguments)


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_the_rates_are_those_of_torch(name, options, kind):
    more = {"momentum": 0.9} if kind == "SGD" else {}
    ours, theirs = pair(kind, **more)
    a, b = getattr(fl.optim, name)(ours, **options), getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for _ in range(40):
        assert rates(ours) == rates(theirs)
        assert a.get_last_lr() == b.get_last_lr()
        advance(ours, a)
        advance(theirs, b)


def test_warm_restarts_at_given_epochs():
    ours, theirs = pair("SGD")
    options = {"T_0": 3, "T_mult": 2}
    a = fl.optim.CosineAnnealingWarmRestarts(ours, **options)
    b = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(theirs, **options)
    for epoch in (0.5, 2.9, 3, 8.25, None, 26, None, 1.5, None):
        advance(ours, a, epoch)
        advance(theirs, b, epoch)
        assert rates(ours) == rates(theirs)


METRICS = [5, 4, 4, 4, 4, 3.999, 4, 4, 4, float("nan"), 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "options",
    [
        {"patience": 2},
        {"patience": 0, "factor": 0.5, "cooldown": 2},
        {"patience": 1, "threshold": 0.5, "threshold_mode": "abs", "min_lr": 1e-3},
        {"patience": 2, "mode": "max", "min_lr": [0.1, 0.01], "eps": 0.05},
        {"patience": 1, "mode": "max", "threshold": 0.1, "threshold_mode": "abs"},
    ],
)
def test_plateaus_are_those_of_torch(options):
    ours, theirs = pair("SGD")
    a = fl.optim.ReduceLROnPlateau(ours, **options)
    b = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **options)
    for metric in METRICS:
        advance(ours, a, metric)
        advance(theirs, b, metric)
        assert rates(ours) == rates(theirs)
        assert a.get_last_lr() == b.get_last_lr()


def test_schedules_multiply():
    ours, theirs = pair("SGD")
    a = [fl.optim.LinearLR(ours, total_iters=4), fl.optim.ExponentialLR(ours, gamma=0.9)]
    there = torch.optim.lr_scheduler
    b = [there.LinearLR(theirs, total_iters=4), there.ExponentialLR(theirs, gamma=0.9)]
    for _ in range(10):
        assert rates(ours) == rates(theirs)
        for schedule in a:
            advance(ours, schedule)
        for schedule in b:
            advance(theirs, schedule)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_saved_and_restored(name, options):
    ours, _ = pair("SGD", momentum=0.9)
    schedule = getattr(fl.optim, name)(ours, **options)
    for _ in range(11):
        schedule.step()
    fresh, _ = pair("SGD", momentum=0.9)
    again = getattr(fl.optim, name)(fresh, **options)
    fresh.load_state_dict(ours.state_dict())
    again.load_state_dict(pickle.loads(pickle.dumps(schedule.state_dict())))
    both, copied = pickle.loads(pickle.dumps((ours, schedule)))
    for _ in range(11):
        for each in (schedule, again, copied):
            each.step()
        assert rates(ours) == rates(fresh) == rates(both)


@pytest.mark.parametrize(("name", "options"), [case for case in CASES if case[0] != "OneCycleLR"])
def test_resumed_at_an_epoch(name, options):
    ours, theirs = pair("SGD")
    for opt in (ours, theirs):
        for group in opt.param_groups:
            group["initial_lr"] = 0.5
    a = getattr(fl.optim, name)(ours, **options, last_epoch=4)
    there = torch.optim.lr_scheduler
    b = getattr(there, name)(theirs, **options, last_epoch=4)
    for _ in range(9):
        assert rates(ours) == rates(theirs)
        advance(ours, a)
        advance(theirs, b)


WRONG = [
    ("StepLR", {"step_size": 0}, ValueError, "StepLR: step_size is 0; expected at least 1"),
    ("StepLR", {"step_size": 2.5}, TypeError, "StepLR: step_size is 2.5; expected an integer"),
    ("ExponentialLR", {"gamma": float("nan")}, ValueError, "ExponentialLR: gamma is nan; allowed: [0, inf)"),
    ("LinearLR", {"start_factor": 0.0}, ValueError, "LinearLR: start_factor is 0.0; allowed: (0, 1]"),
    ("OneCycleLR", {"max_lr": 1.0}, ValueError, "OneCycleLR: total_steps is None; expected total_steps, or epochs and"),
    ("OneCycleLR", {"max_lr": [1.0], "total_steps": 3}, ValueError, "OneCycleLR: max_lr has 1 entries; expected 2"),
    ("OneCycleLR", {"max_lr": 1.0, "total_steps": 3, "anneal_strategy": "sin"}, ValueError, "allowed: 'cos', 'linear'"),
    ("ReduceLROnPlateau", {"mode": "least"}, ValueError, "mode is 'least'; allowed: 'min', 'max'"),
    ("ReduceLROnPlateau", {"factor": 1.0}, ValueError, "factor is 1.0; allowed: [0, 1)"),
]


@pytest.mark.parametrize(("name", "options", "error", "message"), WRONG)
def test_errors_of_options(name, options, error, message):
    ours, _ = pair("SGD")
    with pytest.raises(error, match=re.escape(message)):
        getattr(fl.optim, name)(ours, **options)


def test_errors_of_optimisers():
    with pytest.raises(TypeError, match=r"StepLR: optimizer is 3; expected one of fastloss\.optim"):
        fl.optim.StepLR(3, 1)
    with pytest.raises(ValueError, match="OneCycleLR: Adagrad has neither momentum nor betas"):
        fl.optim.OneCycleLR(fl.optim.Adagrad([np.zeros(2)]), max_lr=1.0, total_steps=3)
    with pytest.raises(ValueError, match=r"StepLR: group 0 has no 'initial_lr', which last_epoch=2 needs"):
        fl.optim.StepLR(fl.optim.SGD([np.zeros(2)]), 1, last_epoch=2)
    schedule = fl.optim.OneCycleLR(fl.optim.SGD([np.zeros(2)]), max_lr=1.0, total_steps=2, pct_start=0.5)
    schedule.step()
    schedule.step()
    with pytest.raises(ValueError, match="OneCycleLR: step 3 is past the cycle of total_steps=2"):
        schedule.step()


def test_the_cycle_of_the_momentum_reaches_the_update():
    ours, theirs = pair("SGD")
    fl.optim.OneCycleLR(ours, max_lr=1.0, total_steps=20)
    torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=1.0, total_steps=20)
    for _ in range(3):
        ours.step([np.ones(2), np.ones(3)])
        for group in theirs.param_groups:
            for p in group["params"]:
                p.grad = torch.ones_like(p)
        theirs.step()
    for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        np.testing.assert_allclose(group["params"][0][0], other["params"][0][0].item(), rtol=1e-6)
