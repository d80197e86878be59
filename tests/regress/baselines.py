"""A short run, its baseline, and what a comparison with it finds first."""

from dataclasses import replace

import pandas as pd

import backtest as bt
from backtest.regress import take_baseline
from backtest.strategies import Constant

DAYS = 40
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account(band=0.05)


def market(*, bar=None, field="close", factor=1.0, shift=0):
    """Forty days of the sample, one value of a bar changed, or its funding some bars later."""
    sample = bt.Market.sample(bars=24 * DAYS)
    bars, funding = sample.bars(), sample.funding()
    if bar is not None:
        bars.iloc[bar, bars.columns.get_loc(field)] *= factor
        bars["high"] = bars[["open", "high", "low", "close"]].max(axis=1)
        bars["low"] = bars[["open", "high", "low", "close"]].min(axis=1)
    funding.index += pd.Timedelta(hours=shift)
    keep = funding.index < bars.index[-1]
    return bt.Market.from_frames(bars, funding=funding[keep], instrument="BTCUSDT")


def run(*, leverage=2.0, venue=VENUE, account=ACCOUNT, data=None, **more):
    terms = {"venue": venue, "account": account, "compile": False, **more}
    return bt.run(market() if data is None else data, Constant(leverage), **terms)


def take(result=None, **more):
    return take_baseline(run() if result is None else result, "calm", **more)


def disturb(baseline, factor, column="equity"):
    columns = {**baseline.trace.columns}
    columns[column] = columns[column] * factor
    return replace(baseline, trace=replace(baseline.trace, columns=columns))
