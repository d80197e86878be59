"""One account through its markets: inputs, the loops, ``run``, and its ``Result``.

``lookahead/`` checks that policies do not read the future; ``compile/`` compiles the loop.
"""

from backtest.base.result_identity import compute_id, find_version
from backtest.engine.loop_driver import Progress
from backtest.engine.manifest import hash_source
from backtest.engine.no_fill import count_unfilled
from backtest.engine.result import Result
from backtest.engine.run_setup import check_settings
from backtest.engine.run_warnings import warn_of_last_prices
from backtest.engine.sampling_periods import count_periods
from backtest.engine.signal_input import describe_signal, read_signal

__all__ = [
    "Progress",
    "Result",
    "check_settings",
    "compute_id",
    "count_periods",
    "count_unfilled",
    "describe_signal",
    "find_version",
    "hash_source",
    "read_signal",
    "warn_of_last_prices",
]
