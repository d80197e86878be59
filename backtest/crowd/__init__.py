"""Crowds of leveraged accounts: cascades, markets of agents, crowding."""

from backtest.crowd.cascade import cascade
from backtest.crowd.cascade_record import Cascade
from backtest.crowd.crowd import Crowd
from backtest.crowd.impact import Linear, SquareRoot

__all__ = ["Cascade", "Crowd", "Linear", "SquareRoot", "cascade"]
