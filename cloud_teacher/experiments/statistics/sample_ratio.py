"""Sample-ratio test: whether the arms receive their shares of the units, read at any time.

Source: Lindon and Malek, Anytime-valid inference for multinomial count data, arXiv 2011.03567. The Dirichlet-multinomial mixture
over shares, with mean at the intended shares, divided by the likelihood of those shares, is a martingale that starts at 1. It
ever reaches 1 / alpha with probability at most alpha.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import special

from cloud_teacher.experiments.statistics.sums import Floats, Values

ALARM = 0.001
"""p-value at which the alarm is raised."""
CONCENTRATION = 1000.0
"""Weight of the mixture's mean. The test is most sensitive to deviations of about 1 / sqrt(1000)."""


def log_e_value(counts: Sequence[Values] | Floats, shares: Sequence[float]) -> Floats:
    """Return the logarithm of the e-value against the intended shares. The last axis of `counts` has the arms."""
    observed = np.asarray(counts, np.float64)
    intended = np.asarray(shares, np.float64)
    intended = intended / intended.sum()
    prior = CONCENTRATION * intended
    mixture = special.gammaln(CONCENTRATION) - special.gammaln(CONCENTRATION + observed.sum(axis=-1))
    mixture = mixture + (special.gammaln(prior + observed) - special.gammaln(prior)).sum(axis=-1)
    log_e: Floats = mixture - special.xlogy(observed, intended).sum(axis=-1)
    return log_e


def p_value(counts: Sequence[Values] | Floats, shares: Sequence[float]) -> Floats:
    """Return the p-value, min(1, 1 / e)."""
    p: Floats = np.exp(-np.maximum(log_e_value(counts, shares), 0.0))
    return p
