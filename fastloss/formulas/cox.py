"""Proportional-hazards survival loss: comparison of subjects' hazards by the order of failures."""

from ..spec.record import Input, Parameter, arrays
from .ranking import OFFSETS


@arrays(
    "ranking.risk_sets",
    inputs={
        "risk": Input("n", "predicted logarithm of each subject's hazard", grad=True, shared=True),
        "time": Input("n", "when each subject failed or was last seen", "double", shared=True),
        "event": Input("n", "1 for a subject that failed, 0 for one last seen well (censored)", "binary", shared=True),
        "offsets": OFFSETS._replace(
            doc="where each stratum of subjects begins, and the end of the last; one stratum if left out"
        ),
    },
    units="n",
    math="log(sum of exp(x_j) over t_j >= t_i) - x_i for each event i",
    options={
        "ties": (
            0.0,
            Parameter(
                "what those who fail at the same time had as a risk set: all of them, or by Efron, on average, some",
                choices=("breslow", "efron"),
            ),
        )
    },
    convex=True,
    paper="Cox (1972), Regression models and life-tables; Efron (1977), The efficiency of Cox's likelihood function",
    example="np.array([0.2, 1.0, -0.5]), np.array([3.0, 1.0, 2.0]), np.array([1, 1, 0])",
)
def cox():
    """Negative log partial likelihood of the proportional hazards model, averaged over the events.

    Each event has a value of its own, its part of the log-likelihood; a censored subject has the value 0 and does not
    count in the mean, but stands in the risk sets of the events up to its time. ``reduction="sum"`` is the negative
    log-likelihood that lifelines and statsmodels maximise. By Efron, events at the same time share theirs equally.
    A ``weight`` is that of an event's value; in risk sets every subject counts once. Times compare as float64.
    """
