"""folds(): the spans of a walk or of a cross-validation, as a table with a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from backtest.base import call_later, checked
from backtest.market import Market, Markets, as_markets
from backtest.validation.fold_spans import (
    plan_spans,
    read_plan,
    tabulate_spans,
    time_bars,
)
from backtest.validation.group_runs import (
    Groups,
    check_counts,
    check_embargo,
    find_embargoed,
    list_splits,
    split_groups,
)


class Folds(pd.DataFrame):
    """Table of spans, one row per fold or per split and group, with a picture of them."""

    _draw_spans = call_later("backtest.report", "draw_spans")

    @property
    def _constructor(self) -> type[pd.DataFrame]:  # what is cut from it is a plain table
        return pd.DataFrame

    def draw(self) -> Any:
        """Return the spans over time as a Plotly figure: train gray, test blue."""
        return self._draw_spans()


@checked
def folds(
    market: Market | Markets,
    *,
    train: str = "365d",
    test: str = "30d",
    anchored: bool = False,
    gap: str = "0d",
    groups: int | None = None,
    test_groups: int = 2,
    embargo: int | str = 0,
    sampling: str = "1d",
) -> Folds:
    """Return the spans of a walk, or with ``groups`` those of a cross-validation.

    Parameters
    ----------
    market : Market or Markets
        The bars to cut; of several markets, those of their common clock.
    train, test, anchored, gap
        As in :func:`backtest.walk_forward`.
    groups, test_groups, embargo, sampling
        As in :func:`backtest.cross_validate`, without an embargo by default.

    Returns
    -------
    Folds
        Of a walk, a row per fold: ``train_start, train_end, test_start, test_end``. Of a
        cross-validation, a row per split and group: ``split``, ``group``, ``is_test``, ``start``,
        ``end``; a train group after a test group starts after the embargo. Times are UTC,
        half-open.

    Raises
    ------
    ParameterError
        If an argument is not allowed, or spans are too short.

    Examples
    --------
    >>> import backtest as bt
    >>> market = bt.Market.sample(bars=24 * 90)
    >>> bt.folds(market, train="30d", test="20d")["test_start"].dt.strftime("%m-%d").tolist()
    ['01-31', '02-20', '03-12']
    >>> len(bt.folds(market, groups=6, test_groups=2))
    90
    """
    as_markets(market)
    if groups is None:
        plan = read_plan(train, test, anchored=anchored, gap=gap)
        return Folds(tabulate_spans(market, plan_spans(market, plan)))
    n, k = check_counts(groups, test_groups)
    cut = split_groups(market, n, sampling)
    return Folds(tabulate_splits(market, cut, k, check_embargo(embargo, cut, market)))


def tabulate_splits(market: Market | Markets, groups: Groups, k: int, embargo: int) -> pd.DataFrame:
    rows = []
    for split, tested in enumerate(list_splits(groups.n, k)):
        late = np.where(find_embargoed(groups.n, tested), embargo, 0)
        for group in range(groups.n):
            first, stop = groups.span(group)
            rows.append((split, group, group in tested, first + int(late[group]), stop))
    table = pd.DataFrame(rows, columns=["split", "group", "is_test", "start", "end"])
    bars = {name: table[name].to_numpy(dtype=np.int64) for name in ("start", "end")}
    return table.assign(**{name: time_bars(market, each) for name, each in bars.items()})
