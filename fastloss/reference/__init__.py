"""Reference losses in plain NumPy: name(inputs..., **parameters) -> float64, one value per element, row or unit.

Independent of the rest of the package: these lines state the mathematics, against which the fast ones are tested.
"""

from .basic import *  # noqa: F403
from .boxes import *  # noqa: F403
from .fairness import *  # noqa: F403
from .infonce import *  # noqa: F403
from .linear import *  # noqa: F403
from .mining import *  # noqa: F403
from .multiclass import *  # noqa: F403
from .pairs import *  # noqa: F403
from .policy import *  # noqa: F403
from .preference import *  # noqa: F403
from .ranking import *  # noqa: F403
from .redundancy import *  # noqa: F403
from .regions import *  # noqa: F403
from .sequences import *  # noqa: F403
from .survival import *  # noqa: F403
from .transport import *  # noqa: F403
from .uncertainty import *  # noqa: F403
