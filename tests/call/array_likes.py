"""Array-likes that are no arrays: a column of a data frame, and an array known by DLPack alone."""

import numpy as np


class Column:
    """A stand-in for a column of a data frame: array-like, and no array."""

    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return np.array(self.a, dtype)


class Exporter:
    """An array known by DLPack alone."""

    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **kwargs):
        return self.a.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()
