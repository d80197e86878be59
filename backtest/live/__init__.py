"""The live account: its next order under a policy, and the replay of its own fills."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.live.decide import decide
    from backtest.live.decision import Cut, Decision
    from backtest.live.fill_readers import read_fills
    from backtest.live.reconciliation import Reconciliation
    from backtest.live.replay import Replay, replay
    from backtest.live.snapshot import AccountSnapshot, HeldPosition

open_door(__name__)
