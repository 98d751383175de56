"""Arrays that compiled code reads by the addresses of their Python objects."""

import numpy as np
import pytest

from fastloss.cpu.runtime.objects import like

X, LABELS = np.arange(12.0, dtype=np.float32).reshape(3, 4), np.arange(3)


def locked(a):
    """Return a read-only copy of an array."""
    a = a.copy()
    a.flags.writeable = False
    return a


def shifted(a):
    """Return a copy of an array at an address that is no multiple of its item size."""
    room = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    room[...] = a
    return room


OTHERS = {
    "fewer": (X,),
    "more": (X, LABELS, LABELS),
    "nothing": (),
    "None": (X, None),
    "list": (X, [0, 1, 2]),
    "number": (X, 3),
    "string": (X, "012"),
    "tuple": ((X,), LABELS),
    "class": (X, np.ndarray),
    "subclass": (X.view(np.memmap), LABELS),
    "dtype": (X.astype(np.float64), LABELS),
    "dtype of equal size": (X, LABELS.astype(np.uint64)),
    "described dtype": (X.astype(np.dtype(np.float32, metadata={"unit": "s"})), LABELS),
    "byte order": (X.astype(">f4"), LABELS),
    "axes": (X[None], LABELS),
    "no axes": (np.array(1.0, np.float32), LABELS),
    "shape": (X[:2], LABELS),
    "shape of equal size": (X.reshape(4, 3), LABELS),
    "Fortran": (np.asfortranarray(X), LABELS),
    "strides": (np.zeros((3, 8), np.float32)[:, ::2], LABELS),
    "backwards": (X[::-1], LABELS),
    "read-only": (locked(X), LABELS),
    "unaligned": (shifted(X), LABELS),
    "order": (LABELS, X),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_objects_are_not_alike(case):
    alike = like((X, LABELS))
    assert alike((X + 1, LABELS[::-1].copy()))
    assert not alike(OTHERS[case])
    assert alike((X, LABELS))


def test_dtypes_are_compared_by_objects_that_live():
    described = np.dtype(np.float32, metadata={"unit": "s"})
    x = X.astype(described)
    alike = like((x,))
    assert alike((x.copy(),))
    del described, x
    others = [X.astype(np.dtype(np.float32, metadata={"n": n})) for n in range(100)]
    assert not any(alike((a,)) for a in others)


def test_any_number_of_axes():
    x = np.zeros((1,) * 20)
    assert like((x,))((x,))
    assert not like((x,))((x[0],))
