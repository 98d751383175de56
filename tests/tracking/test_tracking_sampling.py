"""Samples of cases: how often a process tries, and in which order the sides take turns."""

from fastloss.tracking import sampling


class Busy:
    """A worker on a busy machine, whose samples of a case are undisturbed one time in so many."""

    def __init__(self, **one_in):
        self.one_in, self.asked = one_in, dict.fromkeys(one_in, 0)

    def ask(self, method, case, which, repeats):
        assert (method, repeats) == ("sample", 7)
        self.asked[case] += which == "candidate"
        return 1e-3, which == "candidate" and self.asked[case] % self.one_in[case] != 0


def test_a_process_tries_again_where_it_is_disturbed_and_gives_up_where_that_is_hopeless():
    worker = Busy(calm=1, busy=4, hopeless=50)
    repeats = {name: {"candidate": 7, "reference": 7} for name in worker.one_in}
    (found,) = sampling.sampled([worker], repeats, 11, 60.0)
    assert {n: (len(s.candidate), len(s.reference), s.disturbed) for n, s in found.items()} == {
        "calm": (11, 11, 0),
        "busy": (11, 11, 33),
        "hopeless": (0, 11, 22),
    }
    (found,) = sampling.sampled([Busy(calm=1)], {"calm": repeats["calm"]}, 11, 0.0)  # the seconds are spent
    assert len(found["calm"].candidate) == 3
    (found,) = sampling.sampled([Busy(busy=3, hopeless=50)], {n: repeats[n] for n in ("busy", "hopeless")}, 11, 0.0)
    assert {n: (len(s.candidate), s.disturbed) for n, s in found.items()} == {"busy": (3, 6), "hopeless": (0, 6)}


def test_two_sides_take_turns():
    order = []

    class Side:
        def __init__(self, name):
            self.name = name

        def ask(self, method, case, which, repeats):
            order.append(f"{self.name} {which}")
            return 1e-3, False

    sampling.sampled([Side("base"), Side("head")], {"a": {"candidate": 1, "reference": 1}}, 2, 60.0)
    turns = ["base reference", "head reference", "base candidate", "head candidate"]
    assert order == [*turns, *(turns[i] for i in (1, 0, 3, 2))]
