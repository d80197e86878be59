"""One account through its markets: inputs, the loops, ``run``, and its ``Result``.

``lookahead/`` checks that policies do not read the future; ``compile/`` compiles the loop.
"""

from backtest.engine.loop_driver import Progress
from backtest.engine.manifest import hash_source
from backtest.engine.no_fill import count_unfilled
from backtest.engine.portfolio_checks import count_periods
from backtest.engine.result import Result
from backtest.engine.run_setup import check_settings
from backtest.engine.run_warnings import warn_of_last_prices
from backtest.engine.signal_checks import describe_signal, read_signal

__all__ = [
    "Progress",
    "Result",
    "check_settings",
    "count_periods",
    "count_unfilled",
    "describe_signal",
    "hash_source",
    "read_signal",
    "warn_of_last_prices",
]
