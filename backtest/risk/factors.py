"""The assumptions that :func:`backtest.sensitivity` changes, one at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, ParameterError
from backtest.engine import SignalRule, change_rule, resolve_signal
from backtest.market import Market, Markets
from backtest.risk.scenarios.stress_run import MULTIPLIERS, list_worsenings, scale
from backtest.venue import Venue

HALF_AND_DOUBLE = (0.5, 2.0)


class VariedTerms(NamedTuple):
    market: Markets
    venue: Mapping[str, Venue]
    signal: Any = None
    rule: SignalRule | None = None
    joined: float = 0.0

    def with_venues(self, change: Callable[[Venue], Venue]) -> VariedTerms:
        return self._replace(venue={name: change(each) for name, each in self.venue.items()})

    def with_markets(self, change: Callable[[Market], Market]) -> VariedTerms:
        changed = {name: change(each) for name, each in self.market.items()}
        return self._replace(market=self.market.with_markets(changed))


PRICES = ("open", "high", "low", "close")
SIGNAL_STEPS = (0.5, 0.8, 1.25, 2.0)
"""Multiples of the parameters of a signal's rule."""


class Factor(NamedTuple):
    change: Callable[[VariedTerms, float], VariedTerms]
    steps: tuple[float, ...]
    is_shift: bool = False
    unit: float = 1.0


def change_rates(setup: VariedTerms, shift: float) -> VariedTerms:
    def change(venue: Venue) -> Venue:
        names = ["borrow_rate", "cash_rate"] if venue.interest_on else []
        names += ["short_rate"] if venue.interest_on == "loan" else []
        return venue.override({name: getattr(venue, name) + shift for name in names})

    return setup.with_venues(change)


def scale_funding(setup: VariedTerms, factor: float) -> VariedTerms:
    return setup.with_markets(lambda market: replace_rates(market, market.funding_rate * factor))


def shift_funding(setup: VariedTerms, shift: float) -> VariedTerms:
    return setup.with_markets(lambda market: replace_rates(market, market.funding_rate + shift))


def replace_rates(market: Market, rates: FloatArray) -> Market:
    return Market(**market.fields() | {"funding_rate": rates}, source=f"{market.source}, funding")


def scale_fees(setup: VariedTerms, factor: float) -> VariedTerms:
    def change(venue: Venue) -> Venue:
        names = ("fees.taker", "fees.maker")
        return venue.override({name: scale(venue, name, factor, math.inf) for name in names})

    return setup.with_venues(change)


def scale_slippage(setup: VariedTerms, factor: float) -> VariedTerms:
    def change(venue: Venue) -> Venue:
        changes = {name: scale(venue, name, factor, 0.99) for name in list_worsenings(venue)}
        return venue.override({**changes, "slippage.impact": venue.slippage.impact * factor})

    return setup.with_venues(change)


def scale_margin(setup: VariedTerms, factor: float) -> VariedTerms:
    def change(venue: Venue) -> Venue:
        given = {name: getattr(venue, name) for name in MULTIPLIERS}
        return venue.override(
            {name: value * factor for name, value in given.items() if value is not None}
        )

    return setup.with_venues(change)


def scale_volatility(setup: VariedTerms, factor: float) -> VariedTerms:
    return setup.with_markets(lambda market: scale_moves(market, factor))


def scale_moves(market: Market, factor: float) -> Market:
    logs = np.log(market.close)
    moves = np.diff(logs)
    mean = float(np.mean(moves))
    close = logs[0] + np.concatenate([[0.0], np.cumsum(factor * moves + (1.0 - factor) * mean)])
    before = np.concatenate([[logs[0]], logs[:-1]])
    base = np.concatenate([[close[0]], close[:-1]])
    fields = market.fields()
    for prefix in ("", "mark_"):
        for name in PRICES:
            away = np.log(getattr(market, prefix + name)) - before
            away[1:] = factor * away[1:] + (1.0 - factor) * mean
            fields[prefix + name] = np.exp(base + away)
    return Market(**fields, source=f"{market.source}, volatility")


def change_correlation(setup: VariedTerms, step: float) -> VariedTerms:
    markets = setup.market
    s = min(max(step, -1.0), 1.0)
    first, stop = int(markets.spans[:, 0].max()), int(markets.spans[:, 1].min())
    logs = np.array(
        [np.log(m.close)[first - f : stop - f] for m, f in zip(
            markets.values(), markets.spans[:, 0], strict=True)]
    )  # fmt: skip
    moves = np.diff(logs, axis=1)
    mean, deviation = moves.mean(axis=1, keepdims=True), moves.std(axis=1, keepdims=True)
    known = np.where(deviation > 0.0, deviation, 1.0)
    correlation = np.corrcoef(moves)
    turned = find_root(mix_correlation(correlation, s)) @ find_root(correlation, is_inverse=True)
    shifts = mean + deviation * (turned @ ((moves - mean) / known)) - moves
    changed = {
        name: shift_prices(market, shift, first - int(listed))
        for (name, market), shift, listed in zip(
            markets.items(), shifts, markets.spans[:, 0], strict=True
        )
    }
    return setup._replace(market=markets.with_markets(changed), joined=s)


def mix_correlation(correlation: FloatArray, step: float) -> FloatArray:
    end = np.ones_like(correlation) if step > 0.0 else np.eye(len(correlation))
    return np.asarray((1.0 - abs(step)) * correlation + abs(step) * end)


def find_root(matrix: FloatArray, *, is_inverse: bool = False) -> FloatArray:
    values, vectors = np.linalg.eigh(np.nan_to_num(matrix))
    roots = np.sqrt(np.maximum(values, 0.0))
    if is_inverse:
        roots = np.where(roots > 1e-6, 1.0 / np.maximum(roots, 1e-6), 0.0)
    return np.asarray((vectors * roots) @ vectors.T)


def shift_prices(market: Market, shift: FloatArray, first: int) -> Market:
    moved = np.zeros(market.n_bars)
    moved[first + 1 : first + 1 + len(shift)] = shift
    close = np.cumsum(moved)
    start = np.concatenate([[0.0], close[:-1]])
    middle = 0.5 * (start + close)
    fields = market.fields()
    for prefix in ("", "mark_"):
        own = {name: getattr(market, prefix + name) for name in PRICES}
        ends = own["open"] * np.exp(start), own["close"] * np.exp(close)
        high = np.maximum(own["high"] * np.exp(middle), np.maximum(*ends))
        low = np.minimum(own["low"] * np.exp(middle), np.minimum(*ends))
        for name, values in zip(PRICES, (ends[0], high, low, ends[1]), strict=True):
            fields[prefix + name] = values
    return Market(**fields, source=f"{market.source}, correlation")


FACTORS: dict[str, Factor] = {
    "rates": Factor(change_rates, (-0.01, 0.01), is_shift=True, unit=0.01),
    "funding": Factor(scale_funding, HALF_AND_DOUBLE),
    "funding shift": Factor(shift_funding, (-1e-4, 1e-4), is_shift=True, unit=1e-4),
    "fees": Factor(scale_fees, HALF_AND_DOUBLE),
    "slippage": Factor(scale_slippage, HALF_AND_DOUBLE),
    "margin": Factor(scale_margin, HALF_AND_DOUBLE),
    "volatility": Factor(scale_volatility, (0.75, 1.25)),
    "correlation": Factor(change_correlation, (-0.5, 0.5), is_shift=True, unit=1.0 / 64.0),
}


def scale_parameter(name: str, setup: VariedTerms, factor: float) -> VariedTerms:
    if setup.rule is None:
        return setup._replace(signal=None)
    try:
        rule = change_rule(setup.rule, {name: scale_value(setup.rule, name, factor)})
        return setup._replace(signal=resolve_signal(rule, setup.market))
    except ParameterError:
        return setup._replace(signal=None)


def scale_value(rule: SignalRule, name: str, factor: float) -> float:
    declared = rule.parameters()[name]
    space: Any = declared.space
    value = min(max(rule.settings()[name] * factor, space.low), space.high)
    return round(value) if declared.kind is int else float(value)


def describe_value(rule: SignalRule | None, name: str, step: float) -> dict[str, float]:
    if rule is None:
        return {}
    own = name.startswith("signal.")
    return {"value": scale_value(rule, name.removeprefix("signal."), step) if own else math.nan}


def list_signal_factors(rule: SignalRule | None) -> dict[str, Factor]:
    if rule is None:
        return {}
    return {
        f"signal.{name}": Factor(partial(scale_parameter, name), SIGNAL_STEPS)
        for name, each in rule.parameters().items()
        if each.kind in (int, float)
    }
