"""The sample-ratio test finds a wrong ratio, and stays quiet on the intended one at all looks together."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from cloud_teacher.experiments.statistics.sample_ratio import ALARM, CONCENTRATION, log_e_value, p_value


def test_the_e_value_is_the_dirichlet_multinomial_over_the_multinomial() -> None:
    mixed = special.betaln(0.7 * CONCENTRATION + 8, 0.3 * CONCENTRATION + 2) - special.betaln(
        0.7 * CONCENTRATION, 0.3 * CONCENTRATION
    )
    expected = mixed - 8 * np.log(0.7) - 2 * np.log(0.3)
    assert float(log_e_value([8, 2], [70, 30])) == pytest.approx(expected)
    assert float(log_e_value([0, 0], [1, 1])) == pytest.approx(0.0)


def test_a_wrong_ratio_is_found() -> None:
    assert float(p_value([5000, 5000], [1, 1])) == 1.0
    assert float(p_value([520, 480], [1, 1])) > 0.5
    assert float(p_value([5300, 4700], [1, 1])) < ALARM
    assert float(p_value([340, 330, 200], [34, 33, 33])) < ALARM


def test_it_stays_quiet_at_all_looks_together() -> None:
    rng = np.random.default_rng(5)
    counts = rng.multinomial(25, [0.5, 0.25, 0.25], size=(1000, 200)).cumsum(axis=1)
    assert (p_value(counts, [50, 25, 25]) < 0.05).any(axis=1).mean() <= 0.05
    assert (p_value(counts, [50, 25, 25]) < ALARM).any(axis=1).mean() <= 0.005
