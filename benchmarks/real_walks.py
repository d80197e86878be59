"""Policies on real prices, re-tuned every month, against tuned once and never tuned."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import backtest as bt
from backtest.store import compare_saved
from backtest.strategies import Cppi, SharpeScaling, TrendVol, VolTarget

POLICIES: tuple[type[bt.Policy], ...] = (VolTarget, SharpeScaling, Cppi, TrendVol)
RETUNED, ONCE, DEFAULTS = "re-tuned", "tuned once", "defaults"
CONFIDENCE = 0.95
RULES_OF = {"LTCUSDT": "ETHUSDT"}
"""Instruments without a table of their own, and the one whose venue rules they take."""
COLUMNS = (
    ("market", "{}", 8),
    ("policy", "{}", 13),
    ("folds", "{}", 5),
    ("re-tuned", "{:.2f}", 8),
    ("once", "{:.2f}", 6),
    ("defaults", "{:.2f}", 8),
    ("less once", "{:+.2f}", 9),
    ("low", "{:+.2f}", 6),
    ("high", "{:+.2f}", 6),
    ("less def.", "{:+.2f}", 9),
    ("low ", "{:+.2f}", 6),
    ("high ", "{:+.2f}", 6),
    ("DSR", "{:.2f}", 5),
    ("PBO", "{:.2f}", 5),
    ("rank", "{:.2f}", 5),
    ("growth in", "{:.0%}", 9),
    ("out", "{:.0%}", 6),
    ("drawdown", "{:.0%}", 8),
    ("liq.", "{:.0f}", 5),
)
"""Sharpe ratios, their differences with intervals, and what the walk says of itself."""


def load_markets(folders: list[str], start: str, end: str) -> dict[str, bt.Market]:
    """Return the markets of all folders, of one or of several instruments, by instrument."""
    found = {}
    for folder in folders:
        coins = sorted({path.name.partition("_")[0] for path in Path(folder).glob("*-futures.*")})
        for name in [f"{coin}USDT" for coin in coins] or [None]:
            market = bt.Market.load(folder, instrument=name, between=(start, end))
            found[market.instrument] = market
    return found


def walk_all(
    markets: dict[str, bt.Market], trials: int, train: str, test: str
) -> list[dict[str, Any]]:
    """Walk every policy through every market; return a row each."""
    return [
        {"market": coin, **walk_one(market, policy, trials, train, test)}
        for coin, market in markets.items()
        for policy in POLICIES
    ]


def walk_one(
    market: bt.Market, policy: type[bt.Policy], trials: int, train: str, test: str
) -> dict[str, Any]:
    """Return what a walk earned out of sample, beside the same policy tuned once and untuned."""
    name = market.instrument
    terms: dict[str, Any] = {
        "venue": bt.Venue.preset("binance-usdm", RULES_OF.get(name, name)),
        "account": bt.Account(capital=10_000, band=0.05, max_leverage=5.0),
    }
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        walk = bt.walk_forward(
            market, policy, **terms, train=train, test=test, trials=trials, robust=False
        )
        start = walk.folds["test_start"].iloc[0]
        plain = bt.run(market, policy(), **terms, start=start)
        lives: dict[str, Any] = {RETUNED: walk.result, ONCE: walk.fixed, DEFAULTS: plain}
        compared = compare_saved(lives, baseline=RETUNED, confidence=CONFIDENCE)
    sharpe = {each: result.metrics["sharpe"] for each, result in lives.items()}
    gaps = compared.differences
    gaps = gaps[gaps["measure"] == "sharpe"].set_index("policy")
    row: dict[str, Any] = {
        "policy": policy.__name__,
        "folds": len(walk.folds),
        "re-tuned": sharpe[RETUNED],
        "once": sharpe[ONCE],
        "defaults": sharpe[DEFAULTS],
        "DSR": walk.deflated_sharpe,
        "PBO": float(walk.pbo),
        "rank": walk.figures["mean_rank"],
        "growth in": walk.figures["growth_in_sample"],
        "out": walk.figures["growth_out_of_sample"],
        "drawdown": lives[RETUNED].metrics["max_drawdown"],
        "liq.": lives[RETUNED].metrics["liquidations"],
        "seconds": time.process_time() - began,
    }
    for other, label, pad in ((ONCE, "less once", ""), (DEFAULTS, "less def.", " ")):
        gap, low, high = (float(gaps.loc[other, key]) for key in ("difference", "low", "high"))
        row |= {label: -gap, f"low{pad}": -high, f"high{pad}": -low}
    return row


class ClearCount(NamedTuple):
    """Intervals above and below zero, all of them, and how many leave zero out by chance alone."""

    above: int
    below: int
    n: int
    expected: float

    def __str__(self) -> str:
        return (
            f"of {self.n} comparisons {self.above} {'is' if self.above == 1 else 'are'} above zero "
            f"and {self.below} below; chance alone gives {self.expected:.2g}"
        )


def count_clear(low: np.ndarray, high: np.ndarray, confidence: float) -> ClearCount:
    """Count the intervals that leave zero out."""
    known = np.isfinite(low) & np.isfinite(high)
    above, below = int(np.sum(low[known] > 0.0)), int(np.sum(high[known] < 0.0))
    n = int(np.count_nonzero(known))
    return ClearCount(above, below, n, (1.0 - confidence) * n)


def count_all(rows: list[dict[str, Any]]) -> ClearCount:
    """Return how many of all differences of Sharpe ratios leave zero out."""
    low, high = (
        np.array([row[f"{end}{pad}"] for row in rows for pad in ("", " ")])
        for end in ("low", "high")
    )
    return count_clear(low, high, CONFIDENCE)


def conclude(rows: list[dict[str, Any]]) -> str:
    """Return in sentences what all walks say together."""
    sure = sum(row["DSR"] >= CONFIDENCE for row in rows)
    seconds = sum(row["seconds"] for row in rows)
    return (
        f"{sure} of {len(rows)} walks have a deflated Sharpe ratio of {CONFIDENCE} or more; chance "
        f"alone gives {(1.0 - CONFIDENCE) * len(rows):.1g}. Of differences of Sharpe ratios from "
        f"tuned once and from the defaults: {count_all(rows)}. {seconds:.0f} s of CPU time."
    )
