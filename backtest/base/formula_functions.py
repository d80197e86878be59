"""The functions that stand in a policy's formula for ``**``, ``exp`` and ``log``.

Numbers go to :mod:`backtest.base.elementary`, arrays to numpy. Results are numpy's floats, so a
division by one of 0.0 is infinite, as in compiled code.
"""

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
    """Return x to the power of y; whole numbers stay whole."""
    is_scalar = isinstance(x, NUMBER) and isinstance(y, NUMBER)
    if not is_scalar or (isinstance(x, WHOLE) and isinstance(y, WHOLE)):
        return x**y
    if x > 0.0 and y in SHORT:  # the same bits, without the logarithm
        return np.float64(short_power(float(x), float(y), 1.0))
    return np.float64(power(float(x), float(y)))


def natural_exp(x: Any) -> Any:
    """Return e to the power of x."""
    return np.float64(exp(float(x))) if isinstance(x, NUMBER) else np.exp(x)


def natural_log(x: Any) -> Any:
    """Return the natural logarithm of x."""
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
"""What stands for a function, in calls with so many arguments."""
