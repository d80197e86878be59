"""SimulatedMarket: a market made by agents, their leverage, and its facts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray, parse_duration, utc_index
from backtest.crowd.crowd_record import CrowdRecord, build_crowd_manifest, describe_crowd_data
from backtest.crowd.stylized_facts import find_price_facts, measure_skew
from backtest.market import Market

FACTS = ("std", "kurtosis", "hill", "acf_abs_1", "margin_calls", "deaths")
"""The facts of every simulated market."""


class SimulatedMarket(CrowdRecord):
    """The outcome of :func:`backtest.simulate_market`.

    Attributes
    ----------
    market : Market
        Bars of the simulated price, each opening at the close before. Policies run in it.
    leverage : DataFrame
        The leverage of each agent at each step, by time: the distribution over accounts and time.
        NaN while an agent is away.
    manifest : mapping
        The agents, the seed, versions, and the facts.
    """

    kind = "simulation"
    names = ("bars", "leverage_paths")

    @cached_property
    def market(self) -> Market:
        """The market: one bar per step."""
        source = str(self.manifest["data"]["source"])
        return frame_market(self.tables["bars"].set_index("time"), source)

    @property
    def leverage(self) -> pd.DataFrame:
        """The leverage of each agent, one column each, indexed by time."""
        return self.tables["leverage_paths"].set_index("time")

    def facts(self) -> dict[str, float]:
        """Return the facts of the market by name.

        ``std``, ``kurtosis``, ``hill`` and ``acf_abs_1`` of log returns, see
        :func:`backtest.crowd.stylized_facts.find_price_facts`; in a market of value funds ``hill``
        is that of steps that begin under the value, and ``hill_all`` that of all. ``margin_calls``,
        the times that a price put an agent over its cap; ``deaths``; ``leverage_mean`` and
        ``leverage_skew`` over agents and time; ``several_prices``, the steps with more than one
        clearing price.
        """
        return {name: float(value) for name, value in self.outcome.items()}

    def __repr__(self) -> str:
        n = len(self.tables["bars"])
        return f"<SimulatedMarket of {n:,} steps, {self.manifest['agents']['name']}>"

    def summary(self) -> str:
        """Return the facts as text."""
        agents = self.manifest["agents"]
        head = f"{agents['name']}, {len(self.tables['bars']):,} steps, seed {self.manifest['seed']}"
        return "\n".join(
            [head, *(f"  {name:<16}{value:,.4g}" for name, value in self.facts().items())]
        )


def build_simulation(
    price: FloatArray,
    first: float,
    volume: FloatArray,
    leverage: Mapping[str, FloatArray],
    interval: str,
    described: Mapping[str, Any],
    counts: Mapping[str, float],
    value: float = math.inf,
) -> SimulatedMarket:
    """Return a simulated market of prices at the ends of steps; ``first`` is that before them."""
    opens = np.concatenate(([first], price[:-1]))
    bars = pd.DataFrame(
        {
            "open": opens,
            "high": np.maximum(opens, price),
            "low": np.minimum(opens, price),
            "close": price,
            "volume": volume,
        },
        index=find_times(len(price), interval),
    )
    return record_simulation(bars, leverage, described, counts, value)


def record_simulation(
    bars: pd.DataFrame,
    leverage: Mapping[str, FloatArray],
    described: Mapping[str, Any],
    counts: Mapping[str, float],
    value: float = math.inf,
) -> SimulatedMarket:
    """Return a simulated market of bars by time, with its facts and manifest."""
    everyone = np.concatenate([np.asarray(each) for each in leverage.values()])
    known = everyone[np.isfinite(everyone)]
    facts = {
        **find_price_facts(bars["close"].to_numpy(dtype=np.float64), value),
        "margin_calls": counts.get("margin_calls", 0.0),
        "deaths": counts.get("deaths", 0.0),
        "leverage_mean": float(np.mean(known)) if len(known) else float("nan"),
        "leverage_skew": measure_skew(everyone),
        "several_prices": counts.get("several_prices", 0.0),
    }
    terms = f"steps={len(bars)}, seed={described['seed']}"
    source = f"bt.simulate_market({described['agents']['text']}, {terms})"
    market = frame_market(bars, source)
    data = describe_crowd_data(market, source, market.content_hash)
    manifest = build_crowd_manifest("simulation", data, {**described, "outcome": facts})
    paths = pd.DataFrame(dict(leverage), index=bars.index)
    named = {"bars": bars.rename_axis("time"), "leverage_paths": paths.rename_axis("time")}
    return SimulatedMarket({name: table.reset_index() for name, table in named.items()}, manifest)


def frame_market(bars: pd.DataFrame, source: str) -> Market:
    """Return bars as a synthetic market."""
    index = pd.DatetimeIndex(bars.index)
    market = Market.from_frames(bars.set_axis(index, axis=0), instrument="SIMULATED")
    return replace(market, synthetic=True, source=source)


def find_times(n: int, interval: str) -> pd.DatetimeIndex:
    """Return the open times of n bars from 1970 on."""
    length = parse_duration(interval, where="the interval of the agents")
    return utc_index(length * np.arange(n, dtype=np.int64))
