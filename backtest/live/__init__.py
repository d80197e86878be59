"""The live account: its next order under a policy, and the replay of its own fills."""

from backtest.live.decide import decide
from backtest.live.decision import Cut, Decision
from backtest.live.snapshot import AccountSnapshot, HeldPosition

__all__ = ["AccountSnapshot", "Cut", "Decision", "HeldPosition", "decide"]
