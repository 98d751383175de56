"""Every loss in its plainest NumPy form: name(inputs..., **parameters) -> float64, one value per element, row or unit.

Independent of the rest of the package: these lines state the mathematics, against which the fast ones are tested.
"""

from .basic import *  # noqa: F403
from .boxes import *  # noqa: F403
from .regions import *  # noqa: F403
