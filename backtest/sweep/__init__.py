"""Many sets of parameters over one market: what varies, how sets are scored, and ``sweep``."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.sweep.cluster import on_cluster
    from backtest.sweep.set_evaluator import Evaluator, Metrics, Pool, Rows, describe_decided
    from backtest.sweep.sets import Dimension, Sets, Space, VariedTest, check_sets, count_sets
    from backtest.sweep.sets import draw_cube, draw_sets, read_space, take_sets, to_plain_value
    from backtest.sweep.set_runs import Accounts, SetRuns, read_runs, sweep
    from backtest.sweep.sweep_table import ERROR, Sweep, find_different, find_failed, name_column
    from backtest.sweep.sweep_table import name_parameter, order_columns
    from backtest.sweep.lanes.runner import count_cores
else:
    __getattr__ = find_lazily(__name__, {
        "sweep.cluster": "on_cluster",
        "sweep.lanes.runner": "count_cores",
        "sweep.set_evaluator": "Evaluator Metrics Pool Rows describe_decided",
        "sweep.set_runs": "Accounts SetRuns read_runs sweep",
        "sweep.sets": (
            "Dimension Sets Space VariedTest check_sets count_sets draw_cube draw_sets read_space "
            "take_sets to_plain_value"
        ),
        "sweep.sweep_table": (
            "ERROR Sweep find_different find_failed name_column name_parameter order_columns"
        ),
    })  # fmt: skip
