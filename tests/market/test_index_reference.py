"""The portfolio index against a second version of it: one loop over bars, sharing no code."""

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from tests.kit import every_nth

START = pd.Timestamp("2023-01-01", tz="UTC")
N = 40
MINUTE = pd.Timedelta(minutes=1)


def draw_market(rng: np.random.Generator, first: int, stop: int) -> bt.Market:
    """Return a market of random hours, with marks and a settlement every four of them."""
    n = stop - first
    last = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, n)))
    opens = last * np.exp(rng.normal(0.0, 0.01, n))
    wick = np.exp(np.abs(rng.normal(0.0, 0.01, (2, n))))
    bars = pd.DataFrame(
        {
            "open": opens,
            "high": np.maximum(opens, last) * wick[0],
            "low": np.minimum(opens, last) / wick[1],
            "close": last,
        },
        index=START + pd.to_timedelta(np.arange(first, stop), unit="h"),
    )
    hours = [hour for hour in range(first, stop) if hour % 4 == 0]
    jitter = pd.to_timedelta(rng.integers(0, 20, len(hours)), unit="ms")
    stamps = START + pd.to_timedelta(hours, unit="h") + jitter
    return bt.Market.from_frames(
        bars,
        mark=bars * (1.0 + rng.normal(0.0, 1e-3)),
        funding=pd.Series(rng.normal(0.0, 1e-3, len(hours)), index=stamps),
        funding_gaps="zero",
    )


def draw_panel(seed: int) -> tuple[bt.Markets, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    spans = {"A": (0, N), "B": (int(rng.integers(0, 15)), int(rng.integers(25, N))), "C": (5, N)}
    markets = bt.Markets({name: draw_market(rng, *span) for name, span in spans.items()})
    weights = pd.DataFrame(
        rng.normal(0.0, 0.4, (N, 3)), index=markets.times, columns=[*markets.names]
    )
    return markets, weights.where(rng.uniform(size=weights.shape) < 0.8)


def is_held(markets: bt.Markets, name: str, t: int) -> bool:
    """Whether a weight decided at the close of bar t - 1 is held in bar t."""
    bars = {int(time): None for time in markets[name].time}
    hours = [int(START.value) + hour * 3600 * 10**9 for hour in (t - 1, t)]
    return t > 0 and hours[0] in bars and hours[1] in bars


def hold(markets: bt.Markets, weights: pd.DataFrame, t: int) -> dict[str, float]:
    """Return the weights that bar t holds, without those that are flat."""
    given = {name: weights[name].iloc[t - 1] for name in markets if is_held(markets, name, t)}
    return {name: float(weight) for name, weight in given.items() if not np.isnan(weight)}


def gain_since(markets: bt.Markets, held: dict[str, float], time: pd.Timestamp) -> float:
    """Return the gain from the open before to this one, or to the last close."""
    gain = 0.0
    for name, weight in held.items():
        bars = markets[name].bars()
        was = bars["open"].loc[time - pd.Timedelta(hours=1)]
        gain += weight * (bars["open"].get(time, bars["close"].iloc[-1]) / was - 1.0)
    return gain


def walk(markets: bt.Markets, held: dict[str, float], time: pd.Timestamp, kind: str) -> list[float]:
    """Return the value at the four waypoints of a bar, of one unit at its open."""
    points = [1.0] * 4
    for name, weight in held.items():
        last = markets[name].bars().loc[time]
        table = last if kind == "last" else markets[name].mark().loc[time]
        middle = ("low", "high") if last["close"] >= last["open"] else ("high", "low")
        for k, point in enumerate(("open", *middle, "close")):
            points[k] += weight * (table[point] / last["open"] - 1.0)
    return points


def pay(markets: bt.Markets, held: dict[str, float], time: pd.Timestamp) -> float:
    """Return the rate of the settlement at an open."""
    total = 0.0
    for name, weight in held.items():
        rates = markets[name].funding()["rate"]
        total += weight * rates[(rates.index >= time) & (rates.index < time + MINUTE)].sum()
    return total


def follow(markets: bt.Markets, weights: pd.DataFrame) -> pd.DataFrame:
    """Return open, high, low and close of the index, last and mark, and its funding, by bar."""
    value, before, rows = 1.0, dict[str, float](), []
    for t in range(N):
        time = START + pd.Timedelta(hours=t)
        value *= 1.0 + gain_since(markets, before, time)
        row = {"funding": pay(markets, before, time)}
        before = hold(markets, weights, t)
        for kind, lead in (("last", ""), ("mark", "mark_")):
            points = [value * point for point in walk(markets, before, time, kind)]
            row |= {f"{lead}open": points[0], f"{lead}close": points[3]}
            row |= {f"{lead}high": max(points), f"{lead}low": min(points)}
        rows.append(row)
    return pd.DataFrame(rows)


@pytest.mark.parametrize("seed", every_nth(range(8), 4))
def test_the_index_is_that_of_a_plain_loop(seed):
    markets, weights = draw_panel(seed)
    index, expected = markets.index(weights), follow(markets, weights)
    names = ("open", "high", "low", "close")
    for name in (*names, *(f"mark_{each}" for each in names)):
        np.testing.assert_allclose(getattr(index, name), expected[name], rtol=1e-12, err_msg=name)
    paid = expected["funding"].to_numpy()[::4]
    np.testing.assert_allclose(index.funding_rate, paid, rtol=1e-9, atol=1e-18)
