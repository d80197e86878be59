"""The functions that stand in a policy's formula for ``**``, ``exp`` and ``log``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from backtest.base.elementary import exp, log, power, short_power

WHOLE = (int, np.integer)
NUMBER = (float, np.floating, *WHOLE)
SHORT = (0.5, 1.5, 2.0, 3.0)
"""The powers that :func:`backtest.base.elementary.short_power` has."""


def raise_to(x: Any, y: Any) -> Any:
    is_scalar = isinstance(x, NUMBER) and isinstance(y, NUMBER)
    if not is_scalar or (isinstance(x, WHOLE) and isinstance(y, WHOLE)):
        return x**y
    if x > 0.0 and y in SHORT:  # the same bits, without the logarithm
        return np.float64(short_power(float(x), float(y), 1.0))
    return np.float64(power(float(x), float(y)))


def natural_exp(x: Any) -> Any:
    return np.float64(exp(float(x))) if isinstance(x, NUMBER) else np.exp(x)


def natural_log(x: Any) -> Any:
    return np.float64(log(float(x))) if isinstance(x, NUMBER) else np.log(x)


REPLACEMENTS: dict[Any, tuple[Callable[..., Any], int]] = {
    math.exp: (natural_exp, 1),
    np.exp: (natural_exp, 1),
    math.log: (natural_log, 1),
    np.log: (natural_log, 1),
    math.pow: (raise_to, 2),
    np.power: (raise_to, 2),
    pow: (raise_to, 2),
    exp: (natural_exp, 1),
    log: (natural_log, 1),
    power: (raise_to, 2),
}
