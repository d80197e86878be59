"""``assert_policy(result).sharpe >= 1.0``: bounds on measures of a result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from backtest.base import ParameterError, did_you_mean, format_span
from backtest.measures.measure_table import ABOUT
from backtest.measures.trades import TRADE_MEASURES

if TYPE_CHECKING:
    from backtest.engine import Result

OTHERS = ("total_return", "sharpe", "max_drawdown", "liquidations", "ruined")


def assert_policy(result: Result) -> Expectation:
    """Return the measures of a result, to compare with bounds.

    Parameters
    ----------
    result : Result
        The result of a run.

    Returns
    -------
    Expectation
        Its attributes are the measures, also those of ``result.trades.measures``. A comparison
        that fails raises AssertionError with the measure, its value, the bound and the meaning of
        the value. NaN satisfies no bound.

    Raises
    ------
    ParameterError
        If ``result`` is not a result.
    """
    if not isinstance(getattr(result, "metrics", None), Mapping):
        raise ParameterError(f"assert_policy takes a result, as bt.run returns, got {result!r:.60}")
    return Expectation(result)


class Expectation:
    """The measures of a result as attributes, to compare with bounds."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def __getattr__(self, name: str) -> MetricValue:
        if name.startswith("_"):
            raise AttributeError(name)
        metrics, known = self._result.metrics, dir(self)
        if name not in known:
            raise ParameterError(f"a result has no measure {name!r}{did_you_mean(name, known)}")
        if name not in metrics:
            metrics = {str(k): float(v) for k, v in self._result.trades.measures.items()}
        return MetricValue(name, float(metrics[name]), self._result)

    def __dir__(self) -> list[str]:
        return list({**self._result.metrics, **TRADE_MEASURES})

    def __repr__(self) -> str:
        return f"assert_policy({self._result!r})"


class MetricValue:
    """A measure of a result; a comparison that fails raises AssertionError with the details."""

    __hash__ = None  # type: ignore[assignment] # equality raises: no key of a mapping

    def __init__(self, name: str, value: float, result: Result) -> None:
        self.name = name
        self.value = value
        self.result = result

    def __float__(self) -> float:
        return self.value

    def __bool__(self) -> bool:
        raise ParameterError(
            f"a measure must be compared with a bound, as assert_policy(result).{self.name} >= 0; "
            "it was used as true or false"
        )

    def __repr__(self) -> str:
        return f"<{self.name} {self.value!r}>"

    def __ge__(self, bound: object) -> bool:
        __tracebackhide__ = True
        return self._require(self.value >= self._read(bound), "at least", bound)

    def __le__(self, bound: object) -> bool:
        __tracebackhide__ = True
        return self._require(self.value <= self._read(bound), "at most", bound)

    def __gt__(self, bound: object) -> bool:
        __tracebackhide__ = True
        return self._require(self.value > self._read(bound), "over", bound)

    def __lt__(self, bound: object) -> bool:
        __tracebackhide__ = True
        return self._require(self.value < self._read(bound), "below", bound)

    def __eq__(self, bound: object) -> bool:
        __tracebackhide__ = True
        return self._require(self._equals(bound), "equal to", bound)

    def __ne__(self, bound: object) -> bool:
        __tracebackhide__ = True
        is_known = not math.isnan(self.value)
        return self._require(is_known and not self._equals(bound), "other than", bound)

    def _equals(self, bound: object) -> bool:
        is_number = isinstance(bound, (int, float, MetricValue))
        return bool(self.value == (self._read(bound) if is_number else bound))

    def _read(self, bound: Any) -> float:
        if isinstance(bound, MetricValue):
            return bound.value
        is_number = isinstance(bound, (int, float)) and not isinstance(bound, bool)
        if not is_number or math.isnan(bound):
            raise ParameterError(
                f"{self.name} must be compared with a number, or with a measure of another result, "
                f"got {bound!r:.60}"
            )
        return float(bound)

    def _require(self, holds: bool, rule: str, bound: object) -> bool:
        __tracebackhide__ = True
        if not holds:
            raise AssertionError(self._describe_failure(rule, bound))
        return True

    def _describe_failure(self, rule: str, bound: object) -> str:
        about, manifest = (ABOUT | TRADE_MEASURES)[self.name], self.result.manifest
        wish = {1: "more is better", -1: "less is better", 0: ""}[about.better]
        shown = (
            f"{bound.value!r}, {bound.name} of {_name_policy(bound.result)}"
            if isinstance(bound, MetricValue)
            else repr(bound)
        )
        data = manifest["data"]
        others = {name: self.result.metrics[name] for name in OTHERS if name != self.name}
        lines = [
            f"{self.name} must be {rule} {shown}, got {self.value!r}",
            f"  meaning: {', '.join(filter(None, (about.meaning, about.unit, wish)))}",
            f"  policy:  {_name_policy(self.result)}",
            f"  data:    {data['instrument'] or 'unnamed instrument'}, {format_span(data)}, "
            f"{data['bars']:,} bars of {data['interval']}",
            "  others:  " + ", ".join(f"{name} {value:.4g}" for name, value in others.items()),
        ]
        return "\n".join(lines)


def _name_policy(result: Result) -> str:
    return str(result.manifest["policy"]["text"])
