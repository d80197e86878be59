"""Run single sets of a study again: on all bars, or on the holdout alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.base import PolicyError
from backtest.sweep import BaseTerms, Sets, check_sets, to_plain_value

if TYPE_CHECKING:
    from backtest.sweep import Evaluator
    from backtest.tune.path_risk import PathRisk


class Bench(NamedTuple):
    whole: Evaluator
    split: int
    risk: PathRisk | None = None

    @property
    def has_holdout(self) -> bool:
        return bool(self.split < self.whole.market.n_bars)


def complete_set(bench: Bench, values: Mapping[str, Any]) -> dict[str, Any]:
    base, settings = bench.whole.base, bench.whole.settings
    held = {name: settings[name].value for name in base.policy_class.parameters()}
    whole = {**{name: value for name, value in held.items() if value is not MISSING}, **values}
    columns = {name: [value] for name, value in whole.items()}
    sets = check_columns(base, columns)
    found = {name: to_plain_value(settings[name], column[0]) for name, column in sets.items()}
    return {
        name: value
        for name, value in sorted(found.items())
        if "." not in name or base.has_own([name]) or value != settings[name].value
    }


def check_columns(base: BaseTerms, columns: Mapping[str, Any]) -> Sets:
    return check_sets(
        base.policy, base.account, base.venue, columns, signal=base.signal, names=base.names,
        overlay=base.overlay,
    )  # fmt: skip


def measure_holdout(bench: Bench, values: Mapping[str, Any]) -> dict[str, float]:
    base = bench.whole.base
    columns = {name: [value] for name, value in values.items()}
    sets = check_columns(base, columns)
    rows = bench.whole.evaluate(sets, first=bench.split)
    if bench.risk is not None:
        rows = bench.risk.add(rows, sets, bench.whole)
    if not rows.done.all():
        raise KeyboardInterrupt
    if rows.errors[0]:
        raise PolicyError(f"a set failed on the holdout, {dict(values)}: {rows.errors[0]}")
    return {name: float(column[0]) for name, column in rows.metrics.items()}
