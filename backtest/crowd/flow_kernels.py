"""Kernel of the price that a flow makes: impact that adds up and recovers."""

from __future__ import annotations

import math

from backtest.base import FloatArray

KERNELS = ("follow_flow",)


def follow_flow(
    factor: float, exponent: float, volume: float, decay: float, flow: FloatArray, out: FloatArray
) -> None:
    """Write the fall under a flow to ``out`` (n_bars,), a fraction of the price.

    ``flow`` (n_bars,) is the notional sold at each open, negative if bought. The fall is ``factor
    (|Q| / volume)^exponent`` of the cumulative flow Q, with its sign; from bar to bar ``decay`` of
    it is left.
    """
    fall = 0.0
    for t in range(len(flow)):
        fall *= decay
        if flow[t] != 0.0 and factor > 0.0:
            held = math.copysign((abs(fall) / factor) ** (1.0 / exponent) * volume, fall)
            total = held + flow[t]
            fall = math.copysign(factor * (abs(total) / volume) ** exponent, total)
        out[t] = fall
