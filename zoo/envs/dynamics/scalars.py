"""Functions of arrays that round as gymnasium's do of single numbers.

numpy squares an array by x·x, but a scalar by the C library's pow, which differs in the last bit for one number in a
thousand; its cosine of arrays may differ from the C library's, depending on how it was built. Acrobot is chaotic: with
another last bit, episodes of the same actions part after some hundred steps.
"""

import math

import numpy as np

from zoo.spaces import Array


def square(x: Array) -> Array:
    """Return x ** 2 as of scalars, in the type and shape of x."""
    return np.fromiter((each**2 for each in x.flat), x.dtype, x.size).reshape(x.shape)


def cosine(x: Array) -> Array:
    """Return math.cos of x, float64."""
    return np.fromiter(map(math.cos, x.flat), np.float64, x.size).reshape(x.shape)
