"""Measures of sets on simulated paths: the same paths for every set."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import BacktestError, ParameterError, format_duration, list_values
from backtest.market import as_markets
from backtest.measures import RiskMeasure, read_risk_name
from backtest.measures.measure_table import LARGEST
from backtest.sweep import Rows, build_overlay, build_trio, describe_error, take_sets

if TYPE_CHECKING:
    from backtest.policy import Policy
    from backtest.risk import Paths
    from backtest.sweep import Evaluator, Sets

Found = dict[str, float] | str


class PathRisk:
    def __init__(
        self,
        paths: Paths,
        measures: tuple[RiskMeasure, ...],
        *,
        signal: float | Mapping[str, float] | None = None,
        overlay: Policy | None = None,
        threads: int | None = None,
        compile: bool = True,  # noqa: A002 - the word of bt.tune
    ) -> None:
        self.paths = paths
        self.measures = measures
        self.signal = signal
        self.overlay = overlay
        self.threads = threads or os.cpu_count() or 1
        self.compile = compile
        self._found: dict[tuple[Any, ...], Found] = {}

    def add(self, rows: Rows, sets: Sets, evaluator: Evaluator) -> Rows:
        n = len(rows.done)
        columns = {each.name: np.full(n, np.nan) for each in self.measures}
        errors = list(rows.errors)
        for k in np.flatnonzero(rows.done).tolist():
            if errors[k]:
                continue
            found = self._find(take_sets(sets, k), evaluator)
            if isinstance(found, str):
                errors[k] = found
                continue
            for name, value in found.items():
                columns[name][k] = value
        return rows._replace(metrics={**rows.metrics, **columns}, errors=errors)

    def _find(self, values: Mapping[str, Any], evaluator: Evaluator) -> Found:
        key = tuple(values.items())
        if key not in self._found:
            try:
                trio = build_trio(evaluator.base, evaluator.settings, values)
                one = copy.copy(self)
                one.overlay = build_overlay(evaluator.base, evaluator.settings, values)
                self._found[key] = one.measure(*trio)
            except BacktestError as error:
                self._found[key] = describe_error(error)
        return self._found[key]

    def measure(self, policy: Policy, venue: Any, account: Any) -> dict[str, float]:
        chances = [each for each in self.measures if each.kind != LARGEST]
        found = self._find_chances(chances, policy, venue, account) if chances else {}
        for each in self.measures:
            if each.kind == LARGEST:
                found[each.name] = self._find_largest(each, policy, venue, account)
        return found

    def _find_chances(
        self, chances: list[RiskMeasure], policy: Policy, venue: Any, account: Any
    ) -> dict[str, float]:
        from backtest.risk import count_bars, find_first, make_runner, refine_runner  # noqa: PLC0415 - only with paths

        runner = make_runner(
            self.paths, policy, venue=venue, account=account, signal=self.signal,
            overlay=self.overlay, compile=self.compile,
        )  # fmt: skip
        bars = {each.name: count_bars(self.paths, each.horizon) for each in chances}
        hits = dict.fromkeys(bars, 0)
        for lives in refine_runner(runner).run_chunks(threads=self.threads):
            first = {"liquidation": find_first(lives.liquidations),
                     "ruin": find_first(lives.is_ruined)}  # fmt: skip
            for each in chances:
                hits[each.name] += int(np.sum(first[each.kind] < bars[each.name]))
        return {name: count / self.paths.count for name, count in hits.items()}

    def _find_largest(
        self, measure: RiskMeasure, policy: Policy, venue: Any, account: Any
    ) -> float:
        from backtest.risk import LeverageScan, choose_grid  # noqa: PLC0415

        horizon = format_duration(self.paths.horizon)
        terms = {"venue": venue, "account": account, "signal": self.signal,
                 "overlay": self.overlay, "compile": self.compile}  # fmt: skip
        scan = LeverageScan(self.paths, policy, horizon, self.threads, terms)
        sizes = choose_grid(policy, venue, account, self.paths)
        row, _ = scan.search(sizes, measure.probability)
        return float(row["leverage"])


def read_path_risk(
    paths: Paths | None, names: Iterable[str], market: Any, *, signal: Any, **terms: Any
) -> PathRisk | None:
    """Return the measures on paths among some names; None without paths."""
    if paths is None:
        return None
    from backtest.risk import check_paths  # noqa: PLC0415 - only with paths

    found, wanted = check_paths(paths).names, as_markets(market).names
    if found != wanted:
        raise ParameterError(
            f"paths must be of the market of the search, {', '.join(wanted)!r}, got paths of "
            f"{', '.join(found)!r}"
        )
    measures = tuple(each for each in map(read_risk_name, sorted(names)) if each is not None)
    if not measures:
        raise ParameterError(
            "with paths, an objective or a constraint must be measured on them, none is; "
            "constraints={'p_liquidation_30d': '<= 0.01'} for example"
        )
    for each in measures:
        check_measure(paths, each)
    for value in list_values(signal):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number and signal is not None:
            raise ParameterError(
                "with paths, the signal must be a number or a table of one for each instrument, as "
                f"columns, frames and rules end with the data, got {value!r:.60}"
            )
    return PathRisk(paths, measures, signal=signal, **terms)


def check_measure(paths: Paths, measure: RiskMeasure) -> None:
    from backtest.risk import count_bars  # noqa: PLC0415 - only with paths
    from backtest.risk.liquidations import LEAST_HITS  # noqa: PLC0415

    if measure.kind != LARGEST:
        count_bars(paths, measure.horizon)
    elif not measure.probability * paths.count >= LEAST_HITS or measure.probability >= 1.0:
        raise ParameterError(
            f"{measure.name} needs a probability under 1, and paths times it to be at least "
            f"{LEAST_HITS}, got {measure.probability * paths.count:g}; simulate more paths"
        )
