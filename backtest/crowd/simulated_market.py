"""SimulatedMarket: a market made by agents, their leverage, and its facts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    Head,
    Headline,
    ParameterError,
    Part,
    ShownChart,
    ShownTable,
    parse_duration,
    utc_index,
)
from backtest.crowd.crowd_record import CrowdRecord, build_crowd_manifest, describe_crowd_data
from backtest.market import Market

BTC = {
    "BTC hourly": {"std": 0.00730, "kurtosis": 61.0, "hill": 2.46, "acf_abs_1": 0.292},
    "BTC daily": {"std": 0.0361, "kurtosis": 30.6, "hill": 2.50, "acf_abs_1": 0.149},
}
NAMES = {
    "std": "standard deviation of a step",
    "kurtosis": "kurtosis (normal: 3)",
    "hill": "tail exponent of losses",
    "acf_abs_1": "autocorrelation of absolute returns",
}


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
    call = "bt.simulate_market"
    table_names = ("bars", "leverage_paths")

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
        :func:`find_price_facts`; in a market of value funds ``hill``
        is that of steps that begin under the value, and ``hill_all`` that of all. ``margin_calls``,
        the times that a price put an agent over its cap; ``deaths``; ``leverage_mean`` and
        ``leverage_skew`` over agents and time; ``several_prices``, the steps with more than one
        clearing price.
        """
        return {name: float(value) for name, value in self.outcome.items()}

    @property
    def title(self) -> str:
        """The agents that make the market."""
        return f"Market of {self.manifest['agents']['name']}"

    @property
    def note(self) -> str:
        """The number of steps."""
        return f"{self.manifest['steps']:,} steps"

    @property
    def verdict(self) -> str:
        """Whether tails are fat, and how many accounts died."""
        facts = self.facts()
        return (
            f"{len(self.tables['bars']):,} steps of a market that its leveraged agents make: "
            f"kurtosis {facts['kurtosis']:.3g} (normal: 3), {facts['margin_calls']:,.0f} margin "
            f"calls, {facts['deaths']:,.0f} deaths."
        )

    def list_numbers(self) -> list[Headline]:
        """Return the facts, and the margin calls."""
        facts = self.facts()
        calls, deaths = facts["margin_calls"], f"{facts['deaths']:,.0f} deaths"
        return [
            *(Headline(name, words, facts[name]) for name, words in NAMES.items()),
            Headline("margin_calls", "margin calls", calls, "count", deaths),
        ]

    def list_parts(self) -> list[Part]:
        """Return the facts beside those of Bitcoin, the price, and the leverage of the agents."""
        facts = pd.DataFrame({"this market": self.facts(), **BTC}).loc[list(NAMES)]
        held = self.leverage
        leverage = pd.DataFrame({"highest": held.max(axis=1), "median": held.median(axis=1)})
        note = "BTCUSDT perpetual at Binance, closes from 2019-09 to 2023-12."
        return [
            Part("facts", "Statistics beside those of bitcoin", "A tail exponent under 4 means "
                 "that the fourth moment does not exist.",
                 (ShownTable(facts.rename(index=NAMES), "Facts", note, Head("fact")),)),
            Part("path", "The market", "Price and leverage over time.", (
                ShownChart("price", "Price", "Close of each step, on a log scale.",
                           self.tables["bars"].set_index("time")["close"], y="price", log="y",
                           height=280),
                ShownChart("leverage", "Leverage of the agents", "0 while no agent holds a "
                           "position.", leverage.fillna(0.0), colors={"highest": "loss"},
                           y="leverage", has_legend=True, height=240),
            )),
        ]  # fmt: skip

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
    index = pd.DatetimeIndex(bars.index)
    market = Market.from_frames(bars.set_axis(index, axis=0), instrument="SIMULATED")
    return replace(market, synthetic=True, source=source)


def find_times(n: int, interval: str) -> pd.DatetimeIndex:
    length = parse_duration(interval, where="the interval of the agents")
    return utc_index(length * np.arange(n, dtype=np.int64))


TAIL = 0.05
"""The share of losses that the tail exponent is estimated from."""
LEAST = 100


def find_price_facts(price: FloatArray, value: float = math.inf) -> dict[str, float]:
    """Return the facts of the log returns of a price series of shape (n,).

    Parameters
    ----------
    price : FloatArray of shape (n,)
        Positive prices.
    value : float
        The tail exponent ``hill`` is that of steps that begin under this price. In a market of
        value funds these are the steps in which funds hold anything.
    """
    if len(price) < LEAST:
        raise ParameterError(
            f"facts need {LEAST} prices or more, got {len(price)}",
            where="market facts",
            cure="simulate more steps",
        )
    step = np.diff(np.log(price))
    return {
        "std": float(np.std(step, ddof=1)),
        "kurtosis": measure_kurtosis(step),
        "hill": estimate_hill(-step[price[:-1] < value]),
        "acf_abs_1": correlate_with_next(np.abs(step)),
        "hill_all": estimate_hill(-step),
    }


def measure_kurtosis(values: FloatArray) -> float:
    off = values - np.mean(values)
    variance = float(np.mean(off**2))
    return float(np.mean(off**4)) / variance**2 if variance > 0.0 else math.nan


def estimate_hill(losses: FloatArray, share: float = TAIL) -> float:
    """Return Hill's estimate of the tail exponent from the largest share of positive losses.

    ``1 / mean(log(x_i / x_k))`` over the k largest. Source: Hill (1975), A Simple General Approach
    to Inference about the Tail of a Distribution, Annals of Statistics 3(5).
    """
    ordered = np.sort(losses[losses > 0.0])[::-1]
    k = int(share * len(ordered))
    if k < 2 or ordered[0] == ordered[k]:
        return math.nan
    return float(1.0 / np.mean(np.log(ordered[:k] / ordered[k])))


def correlate_with_next(values: FloatArray) -> float:
    off = values - np.mean(values)
    variance = float(np.sum(off**2))
    return float(np.sum(off[1:] * off[:-1])) / variance if variance > 0.0 else math.nan


def measure_skew(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    if len(known) < 3:
        return math.nan
    off = known - np.mean(known)
    spread = float(np.mean(off**2))
    return float(np.mean(off**3)) / spread**1.5 if spread > 0.0 else math.nan
