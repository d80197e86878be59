"""The kernel of the quotes of contracts at their model price and spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backtest.core import scalar_greeks, scalar_price

if TYPE_CHECKING:
    from backtest.core import FloatArray

KERNELS = ("fill_quotes",)


def fill_quotes(
    signs: FloatArray,
    forwards: FloatArray,
    strikes: FloatArray,
    years: FloatArray,
    volatilities: FloatArray,
    halves: FloatArray,
    ticks: FloatArray,
    is_coin: bool,
    out: FloatArray,
) -> None:
    for i in range(len(signs)):
        place = (signs[i], forwards[i], strikes[i], years[i])
        mark = scalar_price(*place, volatilities[i], 0.0, is_coin)
        out[0, i] = mark
        for j in range(2):
            side = 2.0 * j - 1.0
            moved = max(volatilities[i] + side * halves[i], 0.0)
            away = side * (scalar_price(*place, moved, 0.0, is_coin) - mark)
            out[1 + j, i] = max(mark + side * max(away, ticks[i]), 0.0)
        out[3, i] = scalar_greeks(*place, volatilities[i], 0.0, False).delta
