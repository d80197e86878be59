"""Limits of an account's leverage, a number or a series by date."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
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


def describe_limit(limit: Rate) -> str:
    if not isinstance(limit, pd.Series):
        return "" if math.isinf(limit) else f"{limit:g}"
    finite = limit[np.isfinite(limit)]
    if finite.empty:
        return ""
    low, high = f"{finite.min():g}", f"{finite.max():g}"
    return f"by date, {low if low == high else f'{low} to {high}'}"
