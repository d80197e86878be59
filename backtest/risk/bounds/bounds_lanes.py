"""Interface of accounts for bounds: bars in every order, and the histories they lead to."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from backtest.base import ParameterError, Place, format_duration
from backtest.engine import Result
from backtest.market import Market, Markets
from backtest.measures import Tally
from backtest.risk.bounds.bar_orders import Branch

WHERE = "bt.bounds"
DEPTH = 12
"""The default of ``depth``: at most 2^12 lives are followed."""


class Lane(NamedTuple):
    state: Any
    memory: Any
    tally: Tally
    trail: Any
    weight: float
    is_run: bool


class AmbiguousBar(NamedTuple):
    bar: int
    events: str
    states: int
    equity_low: float
    as_run: float
    equity_high: float
    probability: float


class BarOutcomes(NamedTuple):
    run: Branch
    others: list[Branch]
    quote: Any = None
    names: str = ""


def check_new(result: Result) -> None:
    if result.manifest["resumed_from"] is not None:
        raise ParameterError(
            "bounds cannot be computed for an account with an earlier run that it continues",
            where=Place("account", of=WHERE),
            cure="run the whole span at once",
        )
    if result.markets is not None and result.markets.decide:
        raise ParameterError(
            "bounds follow the orders of a bar for policies that decide at each close, got "
            f"decide={format_duration(result.markets.decide)!r}",
            where=Place("result", of=WHERE),
            cure="run it without decide, on the bars that the policies see",
        )


class BarOrders(Protocol):
    first: int
    n_bars: int

    @property
    def n_beyond(self) -> int:
        """Bars in which more instruments were ambiguous than their orders were varied."""

    @property
    def source(self) -> Market | Markets | None:
        """The market, or the markets, as they were given to the run."""

    def begin(self) -> Lane:
        """Return the life before the first bar."""

    def open_bar(self, t: int) -> None:
        """Take the rules of bar t."""

    def pass_bar(self, lane: Lane, t: int) -> BarOutcomes:
        """Return the different ways of a life through bar t."""

    def count(self, lane: Lane, branch: Branch, ways: BarOutcomes, t: int) -> tuple[Tally, Any]:
        """Return the measures of a life with a bar added, and the record of the bar."""

    def decide(self, lane: Lane, t: int) -> Lane:
        """Return a life with its decision at the close of bar t."""

    def identify(self, lane: Lane) -> Any:
        """Return what makes state and memory different from others."""

    def finish(self, lane: Lane) -> Result:
        """Return a life as a result, for its metrics."""
