"""The live account: its next order under a policy, and the replay of its own fills."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.live.fills import read_fills
    from backtest.live.state import AccountSnapshot
else:
    __getattr__ = find_lazily(__name__, {
        "live.fills": "read_fills",
        "live.state": "AccountSnapshot",
    })  # fmt: skip
