"""Write data/sample-1h: the synthetic year that travels with the package, and its card.

Run ``PYTHONPATH=. python data/make_sample.py`` from the root of the repository, after removing the
old folder. The same seed gives the same numbers, and a test holds the file to the generator.
"""

from pathlib import Path

import numpy as np

from backtest.base.units import HOUR
from backtest.market.market import Market
from backtest.market.synthetic import generate

FOLDER = Path(__file__).parent / "sample-1h"

CARD = """# A synthetic year of a perpetual future

**These prices are made up.** They look like bitcoin's and are nobody's: draw no conclusions about
markets from them. They serve examples, tests and benchmarks, so that everything runs without a
download.

| | |
|---|---|
| instrument | SYNTHETIC-PERP, linear, quoted in a dollar-like currency |
| span | 2023-01-01 to 2024-01-01 UTC, {n_bars:,} bars of one hour, no gaps |
| made by | `PYTHONPATH=. python data/make_sample.py` (seed 0 of `backtest/market/synthetic.py`) |
| content hash | `{content_hash}` |
| licence | Apache-2.0, as the project |

| file | columns | unit |
|---|---|---|
| bars.parquet | time, open, high, low, close, volume | UTC open time; last price, tick 0.1; base units |
| mark.parquet | time, open, high, low, close | mark price, rounded to 0.01 |
| funding.parquet | time, rate, mark | settlement stamp; fraction per 8 hours, longs pay a positive one; no price of its own |
| market.json | instrument, interval, synthetic, sessions, filled | |

## How it is made

Log returns are normal with a volatility that moves between three regimes (36, 58 and 100 % a year,
staying 24, 14 and 4 days on average) and swings about each; 60 jumps of about 1.4 % and 6 crashes
of at least 7 % a year come on top, and two days win a part of a crash back. Highs and lows are the
extremes of a Brownian bridge; a crash overshoots. The mark follows the index more nearly than the
last price and has shorter wicks. Every 8 hours funding is `F = P + clamp(0.01 % - P, +-0.05 %)`, at
most 0.75 % in size, P the mean premium of the 8 hours before.

## What is in it

| statistic | value |
|---|---|
| first, lowest, highest, last price | {first:,.1f}, {lowest:,.1f}, {highest:,.1f}, {last:,.1f} |
| volatility of hourly returns, annual | {volatility:.1%} |
| excess kurtosis of hourly returns | {kurtosis:.1f} |
| deepest fall of closes from a peak | {drawdown:.1%} |
| worst hour, open to low: last, mark | {worst_last:.1%}, {worst_mark:.1%} |
| hours in which the mark falls over 3.6 % (liquidates 25 times leverage) | {hours_25} |
| hours in which the mark falls over 9.6 % (liquidates 10 times leverage) | {hours_10} |
| funding: sum of the year, lowest, highest rate | {funding:.2%}, {funding_low:.3%}, {funding_high:.3%} |
| share of settlements at exactly 0.01 % | {funding_base:.0%} |

The two counts are at a maintenance rate of 0.4 %, for a position opened at the start of that hour.
"""  # noqa: E501 - rows of a table cannot be broken


def card(market: Market) -> str:
    """Return the card's text with the statistics of the market."""
    returns = np.diff(np.log(market.close))
    centred = returns - returns.mean()
    fall = market.mark_low / market.mark_open - 1
    return CARD.format(
        n_bars=market.n_bars,
        content_hash=market.content_hash,
        first=market.open[0],
        lowest=market.low.min(),
        highest=market.high.max(),
        last=market.close[-1],
        volatility=returns.std(ddof=1) * np.sqrt(8760),
        kurtosis=(centred**4).mean() / (centred**2).mean() ** 2 - 3,
        drawdown=(1 - market.close / np.maximum.accumulate(market.close)).max(),
        worst_last=(market.low / market.open - 1).min(),
        worst_mark=fall.min(),
        hours_25=int((fall < -0.036).sum()),
        hours_10=int((fall < -0.096).sum()),
        funding=market.funding_rate.sum(),
        funding_low=market.funding_rate.min(),
        funding_high=market.funding_rate.max(),
        funding_base=(market.funding_rate == 1e-4).mean(),
    )


if __name__ == "__main__":
    sample = Market(**generate(bars=8760, seed=0, interval=HOUR), source="generated")
    sample.save(FOLDER)
    (FOLDER / "README.md").write_text(card(sample), encoding="utf-8")
