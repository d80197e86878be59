"""Names of measures on simulated paths, such as ``p_liquidation_30d``."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

_CHANCE = re.compile(r"p_(liquidation|ruin)_(\d+(?:\.\d+)?[a-z]+)")
_LARGEST = re.compile(r"max_leverage_at_(\d+(?:\.\d+)?)pct")
LARGEST = "max_leverage"


class RiskMeasure(NamedTuple):
    """Measure of a policy on simulated paths.

    ``kind`` is ``"liquidation"`` or ``"ruin"``, a probability within ``horizon``; or
    ``"max_leverage"``, the largest factor on the policy at which the probability of liquidation
    within the horizon of the paths is at most ``probability``.
    """

    name: str
    kind: str
    horizon: str = ""
    probability: float = math.nan


def read_risk_name(name: str) -> RiskMeasure | None:
    """Return the measure on paths that a name means; None if it means none.

    Examples
    --------
    >>> read_risk_name("p_liquidation_30d").horizon
    '30d'
    >>> read_risk_name("max_leverage_at_1pct").probability
    0.01
    >>> read_risk_name("sharpe")
    """
    if chance := _CHANCE.fullmatch(name):
        return RiskMeasure(name, chance[1], horizon=chance[2])
    if largest := _LARGEST.fullmatch(name):
        return RiskMeasure(name, LARGEST, probability=float(largest[1]) / 100.0)
    return None
