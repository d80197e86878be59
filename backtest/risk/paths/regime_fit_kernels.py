"""Kernel of one round of expectation and maximization for two hidden regimes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtest.base import FloatArray

KERNELS = ("update_regimes",)


def update_regimes(terms: FloatArray, scratch: FloatArray, returns: FloatArray) -> None:
    """Replace the parameters of two regimes by more likely ones.

    ``terms``: variance in calm and in stress, the probabilities of leaving calm and stress, that of
    stress in the first bar, and the mean log likelihood before the round. After it, the fifth is
    the probability of stress in the bar after the last. ``scratch`` has shape (4, n): densities in
    calm and in stress, the filtered probability of stress, and the scale of each step. Source:
    Baum, Petrie, Soules and Weiss (1970), Annals of Mathematical Statistics 41(1).
    """
    n = len(returns)
    share = terms[2] / (terms[2] + terms[3])
    ahead, total = share, 0.0
    for t in range(n):
        r2 = returns[t] * returns[t]
        scratch[0, t] = math.exp(-0.5 * r2 / terms[0]) / math.sqrt(2.0 * math.pi * terms[0])
        scratch[1, t] = math.exp(-0.5 * r2 / terms[1]) / math.sqrt(2.0 * math.pi * terms[1])
        calm, stress = (1.0 - ahead) * scratch[0, t], ahead * scratch[1, t]
        scale = max(calm + stress, 1e-300)
        scratch[2, t], scratch[3, t] = stress / scale, scale
        total += math.log(scale)
        ahead = scratch[2, t] * (1.0 - terms[3]) + (1.0 - scratch[2, t]) * terms[2]
    back_calm, back_stress = 1.0, 1.0
    weight_calm, weight_stress, sum_calm, sum_stress = 0.0, 0.0, 0.0, 0.0
    left_calm, left_stress, stays_calm, stays_stress = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        t = n - 1 - i
        stress = scratch[2, t] * back_stress
        calm = (1.0 - scratch[2, t]) * back_calm
        share = stress / (stress + calm)
        weight_stress += share
        weight_calm += 1.0 - share
        sum_stress += share * returns[t] * returns[t]
        sum_calm += (1.0 - share) * returns[t] * returns[t]
        if t == 0:
            break
        to_calm = scratch[0, t] * back_calm / scratch[3, t]
        to_stress = scratch[1, t] * back_stress / scratch[3, t]
        was_stress, was_calm = scratch[2, t - 1], 1.0 - scratch[2, t - 1]
        left_calm += was_calm * terms[2] * to_stress
        left_stress += was_stress * terms[3] * to_calm
        stays_calm += was_calm * (1.0 - terms[2]) * to_calm
        stays_stress += was_stress * (1.0 - terms[3]) * to_stress
        back_calm = (1.0 - terms[2]) * to_calm + terms[2] * to_stress
        back_stress = terms[3] * to_calm + (1.0 - terms[3]) * to_stress
    terms[0] = sum_calm / max(weight_calm, 1e-12)
    terms[1] = sum_stress / max(weight_stress, 1e-12)
    terms[2] = left_calm / max(left_calm + stays_calm, 1e-12)
    terms[3] = left_stress / max(left_stress + stays_stress, 1e-12)
    last = scratch[2, n - 1]
    terms[4] = last * (1.0 - terms[3]) + (1.0 - last) * terms[2]
    terms[5] = total / n
