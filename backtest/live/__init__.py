"""The live account: its next order under a policy, and the replay of its own fills."""

from typing import TYPE_CHECKING

from backtest.core import open_door

if TYPE_CHECKING:
    from backtest.live.decide import Cut, Decision, decide
    from backtest.live.replay import read_fills
    from backtest.live.replay import Replay, replay
    from backtest.live.state import AccountSnapshot, HeldPosition

open_door(__name__)
