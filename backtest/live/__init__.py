"""The live account: its next order under a policy, and the replay of its own fills."""

from typing import TYPE_CHECKING

from backtest.core import export_lazily

if TYPE_CHECKING:
    from backtest.live.decide import decide
    from backtest.live.replay import read_fills, replay
    from backtest.live.state import AccountSnapshot

export_lazily(__name__)
