"""Data that all sets of a sweep share: markets, signal, columns, formulas."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from backtest.account import AccountState, without_flows_before
from backtest.account.records import EQUITY, UNIT
from backtest.base import FloatArray, pick_value, utc_index
from backtest.engine import (
    Deciders,
    ObservedPolicy,
    Setup,
    count_periods,
    flatten_columns,
    make_deciders,
    observe_overlay,
    read_signals,
    replace_policies,
    resolve_signal,
    set_up,
    set_up_like,
    start_account_state,
)
from backtest.market import find_clock, read_weights
from backtest.measures import RunSpan, start_tally
from backtest.policy import Policy
from backtest.sweep.columns import Columns, list_overlays
from backtest.sweep.lanes.rows import LANES
from backtest.sweep.sets import Sets, find_values

KEPT = 4
"""Flat arrays of columns that are kept; neighbors in the order of scoring have the same."""


class Panel:
    def __init__(self, evaluator: Any, first: int, stop: int | None, memory: float) -> None:
        self.base = evaluator.base
        self.sampling, self.overlay = evaluator.sampling, evaluator.overlay
        self.calendar = evaluator.calendar
        whole = evaluator.markets
        markets = whole if stop is None else whole.prefix(stop)
        self.markets, self.first = markets, first
        self.calendar = evaluator.calendar
        self.periods = count_periods(evaluator.calendar, evaluator.sampling, markets)
        closes = markets.time[first:] + markets.interval
        self.span = RunSpan(int(markets.time[first]), closes, first, self.periods)
        self.signal = evaluator.signal
        clock = find_clock(markets)
        seen, begun = clock.seen, clock.at(first)
        self.seen = seen
        if evaluator.is_alone:
            given = resolve_signal(self.signal, evaluator.market)
            known = read_signals(given, find_clock(whole).seen, 0, is_alone=True)
            self.weights = np.ascontiguousarray(known[:, : seen.n_bars])
        else:
            self.weights = read_weights(self.signal, seen, first=begun)
        build = self.base.build_policy
        self.columns = []
        for row, name, span in zip(self.weights, seen.names, seen.spans, strict=True):
            own = seen[name].with_signal(np.clip(row[span[0] : span[1]], -1.0, 1.0))
            self.columns.append(Columns(own, build, memory / len(markets)))
        self._terms: OrderedDict[object, Setup] = OrderedDict()
        self._lock = threading.Lock()
        self._above: OrderedDict[Policy | None, list[ObservedPolicy]] = OrderedDict()
        self._pattern: Setup | None = None
        self._deciders: dict[tuple[object, ...], Deciders] = {}
        self._flat: OrderedDict[tuple[int, ...], tuple[list[ObservedPolicy], FloatArray]] = (
            OrderedDict()
        )

    def list_reads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for each in self.columns for name in each.reads))

    def check_overlays(self, sets: Sets) -> None:
        for overlay in list_overlays(self.base, sets):
            self._observe_overlay(overlay)

    def _observe_overlay(self, overlay: Policy | None) -> list[ObservedPolicy]:
        with self._lock:
            if overlay not in self._above:
                self._above[overlay] = observe_overlay(overlay, self.seen, self.weights)
                while len(self._above) > KEPT:
                    self._above.popitem(last=False)
            self._above.move_to_end(overlay)
            return self._above[overlay]

    def set_up(self, values: Mapping[str, Any]) -> Setup:
        policy, venue, account = self.base.build_trio(values)
        if self.first > 0:
            account = without_flows_before(account, int(self.markets.time[self.first]))
        observed = self._observe(policy, values)
        with self._lock:
            if self._pattern is None:
                start = utc_index(self.markets.time)[self.first] if self.first > 0 else None
                above = self.base.build_overlay(values)
                given: dict[str, Any] = {"signal": self.weights.T, "overlay": above, "start": start}
                given |= {"sampling": self.sampling, "calendar": self.calendar}
                self._pattern = set_up(
                    self.markets, policy, venue=venue, account=account, observed=observed, **given
                )
                return self._pattern
        return set_up_like(self._pattern, venue, account, observed)

    def begin(
        self, setup: Setup, *, is_compiled: bool = True
    ) -> tuple[AccountState, Deciders, FloatArray]:
        state = start_account_state(
            setup.inputs, setup.account, self.first, has_overlay=self.overlay is not None
        )
        tally = start_tally(float(state.wallet[UNIT]), float(state.wallet[EQUITY]), self.first)
        width = setup.inputs.terms.rules.brackets.floors.shape[1]
        given = {"started": setup.inputs.started, "width": width}
        if not is_compiled:
            return state, make_deciders(setup.observed, self.markets, **given), tally
        n = len(self.markets)
        is_same = len({id(each.policy) for each in setup.observed[:n]}) == 1
        shown = setup.observed[:1] + setup.observed[n:] if is_same else setup.observed
        key = (width, is_same, *((name, type(v), v if isinstance(v, str) else "")
                        for p in shown for name, v in p.policy.settings().items()))  # fmt: skip
        with self._lock:
            if key not in self._deciders:
                from backtest.engine import bind_compiled  # noqa: PLC0415 - numba

                policies = [(each.policy, tuple(each.columns)) for each in setup.observed]
                deciders = make_deciders(setup.observed, self.markets, **given)
                self._deciders[key] = bind_compiled(deciders, policies)
            pattern = self._deciders[key]
        return (
            state,
            replace_policies(pattern, setup.observed, self._flatten(setup.observed)),
            tally,
        )

    def set_up_lane(self, like: Setup, values: Mapping[str, Any]) -> Setup:
        """Set up a set that shares all but its policies with an earlier one of the same terms."""
        terms = tuple((name, value) for name, value in values.items() if "." in name)
        if terms:
            with self._lock:
                known = self._terms.get(terms)
            like = known or self.set_up(values)
            with self._lock:
                self._terms[terms] = like
                self._terms.move_to_end(terms)
                while len(self._terms) > LANES:
                    self._terms.popitem(last=False)
        policy = self.base.build_policy(values)
        observed = self._observe(policy, values)
        return like._replace(policies=dict.fromkeys(self.markets.names, policy), observed=observed)

    def _observe(
        self, policy: Policy | Mapping[str, Policy], values: Mapping[str, Any]
    ) -> list[ObservedPolicy]:
        found = []
        for each, name, span in zip(self.columns, self.seen.names, self.seen.spans, strict=True):
            own = {k: v for k, v in find_values(values, name).items() if "." not in k}
            one = pick_value(policy, name)
            found.append(ObservedPolicy(one, each.market, each.of_one(own), int(span[0]), ""))
        above = self.base.build_overlay(values)
        return [*found, *self._observe_overlay(above)]

    def _flatten(self, observed: list[ObservedPolicy]) -> FloatArray:
        key = tuple(id(each.columns) for each in observed)
        with self._lock:
            if key not in self._flat:  # the policies stay with it, so that no id is used again
                self._flat[key] = observed, flatten_columns(observed)[0]
                while len(self._flat) > KEPT:
                    self._flat.popitem(last=False)
            return self._flat[key][1]
