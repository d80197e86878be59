"""Crowds of leveraged accounts, and cascades of their liquidations."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.crowd.cascade import Cascade, Linear, SquareRoot, cascade
    from backtest.crowd.crowd import Crowd

RESULTS = ("Cascade",)

open_door(__name__)
