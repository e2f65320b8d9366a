"""Seeds: everything random follows from the run's seed, by streams that do not depend on each other."""

import numpy as np


def fold_seed(seed: int, *path: int) -> int:
    """The seed of one stream, such as that of (seed, layer, epoch), from 0 to 2^63 - 1.

    By NumPy's SeedSequence: seeds or paths that differ, if only in length, give unrelated streams. None is below 0.
    """
    return int(np.random.SeedSequence(seed, spawn_key=path).generate_state(1, np.uint64)[0] >> np.uint64(1))
