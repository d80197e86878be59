"""Many sets of parameters over one market: what varies, how sets are scored, and ``sweep``.

``lanes/`` scores 64 sets side by side; ``cluster/`` spreads them over Dask workers.
"""

from backtest.sweep.evaluator import Evaluator
from backtest.sweep.sets.dimension import Dimension
from backtest.sweep.sets.sets import Base, Sets, count_sets, take_sets, to_plain_value
from backtest.sweep.sets.space import Space, draw_cube
from backtest.sweep.sweep_table import Sweep
from backtest.sweep.tabulate import ERROR

__all__ = [
    "ERROR",
    "Base",
    "Dimension",
    "Evaluator",
    "Sets",
    "Space",
    "Sweep",
    "count_sets",
    "draw_cube",
    "take_sets",
    "to_plain_value",
]
