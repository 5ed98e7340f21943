"""How a kernel is told to stop, and says how far it is.

A kernel that has a `watch` calls `halted` once a step, be that a layer, a block, a point in time or a batch, and leaves when it
is true. Where nothing stops it, the watch is None.
"""

import numpy as np
from numba import njit, types

from vgp_kernels.numerics.arithmetic import STRICT

STOP, DONE = 0, 1  # entries of a watch: whether to stop, and the steps done
APART = 8  # entries from a thread's watch to the next one's, so that no two lie in one line of a cache
WATCH = types.int64[::1]
NEVER = np.zeros(APART, np.int64)  # the watch of what nothing stops


@njit(**STRICT)
def stopped(watch):
    """Whether to leave off; where there is no watch, never."""
    if watch is None:
        return False
    return watch[STOP] != 0


@njit(**STRICT)
def halted(watch):
    """The same, at the beginning of a step, which it counts."""
    if watch is None:
        return False
    watch[DONE] += 1
    return watch[STOP] != 0
