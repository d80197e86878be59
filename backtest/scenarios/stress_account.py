"""What a stress test needs of an account that goes on from where a run ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from backtest.market import Market, Markets
from backtest.venue import Venue
from backtest.venue.contract_value import compute_value
from backtest.venue.trading_terms import Contract

NO_STOPS: dict[str, Any] = {
    "stop_loss": None,
    "take_profit": None,
    "trailing_stop": None,
    "equity_stop": None,
}
"""Terms of an account while no stop acts."""


def compute_quote_value(contract: Contract, price: float) -> float:
    """Return the notional of one contract at a price, positive."""
    return abs(compute_value(contract.size, contract.kind == "inverse", price))


class Shocked(NamedTuple):
    """Where an account is after the bars of a scenario, and the sums over these bars.

    ``quantities`` are the positions by name. ``distance`` is NaN if no price liquidates.
    """

    wealth: float
    quantities: Mapping[str, float]
    liquidations: int
    calls: int
    fees: float
    slippage: float
    impact: float
    funding: float
    distance: float


class Continued(Protocol):
    """An account at the end of a run."""

    @property
    def history(self) -> Markets:
        """The last bars of the instruments."""

    @property
    def source(self) -> Market | Markets | None:
        """The market, or the markets, as they were given to the run."""

    @property
    def wealth(self) -> float:
        """Equity and reserve."""

    @property
    def resting(self) -> frozenset[str]:
        """Collateral with a constant price, which moves only if a scenario names it."""

    def list_moving(self) -> dict[str, Market]:
        """Return the markets that have bars in a scenario.

        They are those of the instruments that have not ended, and of collateral that has prices
        of its own.
        """

    def measure_exposures(self) -> dict[str, float]:
        """Return what the account gains by each of these markets if its log price rises by 1."""

    def find_distance(self) -> float:
        """Return the smallest distance of a mark close from its liquidation price."""

    def pass_bars(
        self,
        markets: Mapping[str, Market],
        venues: Mapping[str, Venue],
        outage: int,
        *,
        is_search: bool,
    ) -> Shocked:
        """Return the account after the bars of ``markets`` that follow its history.

        In the first bars of them, an ``outage``, neither decisions nor stops act. A search stops
        at the first liquidation, and measures no distance.
        """
