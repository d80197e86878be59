"""Limits of an account's leverage, a number or a series by date."""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd

from backtest.base import (
    BoolArray,
    Declaration,
    Fault,
    FloatArray,
    Number,
    Rate,
    read_timed,
)


class LimitDeclaration(Declaration):
    number: ClassVar[Number] = Number(0, open_low=True, may_be_infinite=True)
    kind: ClassVar[type] = float

    def read(self, value: Any) -> Rate:
        if isinstance(value, str | list | tuple):
            raise Fault("must be a number, or a series by UTC time")
        if not isinstance(value, pd.Series):
            return self.number.read(value)
        series = read_timed(value, may_be_infinite=True)
        Number(0, may_be_infinite=True).read(float(series.min()))
        return series

    def admits(self, values: FloatArray) -> BoolArray:
        return self.number.admits(values)


def find_least(limit: Rate) -> float:
    return float(limit.min()) if isinstance(limit, pd.Series) else limit
