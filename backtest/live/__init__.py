"""The live account: its next order under a policy, and the replay of its own fills."""

from backtest.live.decide import decide
from backtest.live.decision import Cut, Decision
from backtest.live.fill_readers import read_fills
from backtest.live.reconciliation import Reconciliation
from backtest.live.replay import Replay, replay
from backtest.live.snapshot import AccountSnapshot, HeldPosition

__all__ = [
    "AccountSnapshot",
    "Cut",
    "Decision",
    "HeldPosition",
    "Reconciliation",
    "Replay",
    "decide",
    "read_fills",
    "replay",
]
