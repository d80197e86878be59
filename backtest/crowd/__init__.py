"""Crowds of leveraged accounts: cascades, markets of agents, crowding, default of a venue."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.crowd import agents
    from backtest.crowd.cascade import cascade
    from backtest.crowd.cascade_record import Cascade
    from backtest.crowd.counterparty import Counterparty
    from backtest.crowd.crowd import Crowd
    from backtest.crowd.crowding import crowding
    from backtest.crowd.crowding_record import Crowding
    from backtest.crowd.impact import Linear, SquareRoot
    from backtest.crowd.simulate_market import simulate_market
    from backtest.crowd.simulated_market import SimulatedMarket

RESULTS = ("Cascade", "Crowding", "SimulatedMarket")

open_door(__name__)
