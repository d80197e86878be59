"""What the store beside this file holds, and how it was written in November 2026.

``python -Wignore -c "from tests.data.store_2026_11.written_2026_11 import write; write()"``, from
the root of a checkout of that time, writes the folders ``markets``, ``store`` and ``baselines``.
They are kept as that code wrote them: later code must read them. They are not written again when
numbers or formats change.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

import backtest as bt
from backtest.regress import save_baseline, take_baseline
from backtest.store import list_results

HERE = Path(__file__).parent
MARKETS, STORE, BASELINES, CONTENTS = (
    HERE / name for name in ("markets", "store", "baselines", "contents.json")
)
BARS, SHORT_BARS, CUT = 408, 120, 90
"""Hours: of validations, of all other results, and of the runs that are resumed."""


class Held(NamedTuple):
    """How many bars a policy has seen."""

    bars: float


class Rise(bt.Policy):
    """Hold a size after a rise over some bars, half of it otherwise, a little less every bar."""

    size: Annotated[float, bt.Range(0.1, 30.0)] = 1.0
    window: Annotated[int, bt.Range(1, 24)] = 3

    def start(self) -> Held:
        """Return no bars."""
        return Held(0.0)

    def observe(self, market: bt.Market) -> bt.Columns:
        """Return the return over the window."""
        rise = np.full(market.n_bars, np.nan)
        rise[self.window :] = market.close[self.window :] / market.close[: -self.window] - 1.0
        return {"rise": rise}

    def leverage(self, bar: bt.Bar, account: bt.AccountView, memory: Held) -> tuple[float, Held]:
        """Return the size, or half of it, less 0.01 % for each bar seen."""
        size = self.size * (1.0 - 0.0001 * memory.bars)
        return size if bar.rise > 0.0 else 0.5 * size, Held(memory.bars + 1.0)


class Keep(bt.Policy):
    """Hold a constant leverage."""

    size: Annotated[float, bt.Range(0.0, 30.0)] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return it."""
        return self.size


# ------------------------------------------------------------------------------------- the markets


def make_market(name: str, seed: int, first: int, stop: int) -> bt.Market:
    """Return hourly bars with marks and funding, and a fall of 9 % in bar 60."""
    rng = np.random.default_rng(seed)
    moves = rng.normal(0.0002, 0.006, BARS)
    moves[60] = -0.09
    close = 100.0 * np.exp(np.cumsum(moves))
    opens = np.concatenate(([100.0], close[:-1]))
    wick = 1.0 + np.abs(rng.normal(0.0, 0.003, (2, BARS)))
    bars = pd.DataFrame(
        {
            "open": opens,
            "high": np.maximum(opens, close) * wick[0],
            "low": np.minimum(opens, close) / wick[1],
            "close": close,
        },
        index=pd.date_range("2024-03-01", periods=BARS, freq="1h", tz="UTC"),
    ).round(3)
    bars["volume"] = rng.uniform(1e5, 1e6, BARS).round(1)
    mark = (bars[["open", "high", "low", "close"]] * 1.0004).round(3)
    stamps = bars.index[first + 8 : stop : 8]
    rates = pd.DataFrame({"rate": rng.normal(1e-4, 3e-4, len(stamps)).round(6)}, index=stamps)
    return bt.Market.from_frames(
        bars.iloc[first:stop], mark=mark.iloc[first:stop], funding=rates, instrument=name
    )


@functools.cache
def load_long() -> bt.Markets:
    """Return the two markets; BBB is listed at bar 20, and delisted at bar 392."""
    return bt.Markets({name: read_market(name) for name in ("AAA", "BBB")}, currency="USDT")


def read_market(name: str) -> bt.Market:
    """Return a market of the folder, whose place is no part of what results say of their data."""
    found = bt.Market.load(MARKETS / name)
    return bt.Market.from_frames(
        found.bars(), mark=found.mark(), funding=found.funding(), instrument=name
    )


@functools.cache
def load_markets() -> bt.Markets:
    """Return the first bars of the two markets; BBB is delisted at bar 112."""
    whole = load_long()
    return bt.Markets(
        {"AAA": whole["AAA"].prefix(SHORT_BARS), "BBB": whole["BBB"].prefix(92)}, currency="USDT"
    )


def load_market() -> bt.Market:
    """Return the market of one instrument."""
    return load_markets()["AAA"]


# --------------------------------------------------------------------------------------- the terms


def make_venue(**changes: Any) -> bt.Venue:
    """Return a venue with costs, two brackets and impact."""
    venue = bt.Venue(
        contract=bt.Contract(lot=0.001, tick=0.001, min_notional=5.0),
        brackets=[bt.Bracket(0.0, 5e4, 25.0, 0.02), bt.Bracket(5e4, 1e9, 10.0, 0.05)],
        fees=bt.Fees(taker=0.0002, maker=0.0001),
        slippage=bt.Slippage(rate=0.0001, impact=0.1, impact_window="1d"),
        liquidation=bt.Liquidation(mode="close", fee=0.005, slippage=0.001),
    )
    return venue.override(changes)


def make_venues() -> dict[str, bt.Venue]:
    """Return the venues of both instruments."""
    return {"AAA": make_venue(), "BBB": make_venue(**{"fees.taker": 0.0003})}


def make_flows() -> pd.Series:
    """Return a deposit and a withdrawal."""
    stamps = pd.DatetimeIndex(["2024-03-02 12:00", "2024-03-04 20:00"], tz="UTC")
    return pd.Series([500.0, -250.0], index=stamps)


SHORT: dict[str, Any] = {"sampling": "6h", "compile": False}
CALLED = bt.Account(
    capital=10_000.0,
    band=0.05,
    flows=make_flows(),
    reserve=1_000.0,
    margin_call=0.35,
    top_up_to=0.15,
)
ISOLATED = bt.Account(
    capital=10_000.0, margin="isolated", venue_leverage=15.0, stop_loss=0.3, take_profit=0.02,
    trailing_stop=0.1,
)  # fmt: skip
MIXED = bt.Account(
    capital=10_000.0, margin={"AAA": "cross", "BBB": "isolated"}, venue_leverage=12.0, band=0.02,
    flows=make_flows().abs(),
)  # fmt: skip
ONE: dict[str, Any] = {"venue": make_venue(), **SHORT}
TWO: dict[str, Any] = {"venue": make_venues(), **SHORT}
PLAIN = bt.Account(capital=10_000.0)
WEIGHTS = {"AAA": 0.75, "BBB": -0.25}
LONG = {"AAA": 0.25, "BBB": 0.5}
SETS: dict[str, Any] = {"size": [0.5, 1.0, 4.0], "account.band": [0.0, 0.1]}
SEARCH: dict[str, Any] = {
    "space": {"size": (0.2, 3.0)}, "fix": {"window": 5}, "robust": False, "sampler": "sobol",
    "seed": 1, "threads": 1,
}  # fmt: skip
FOLDS: dict[str, Any] = {"train": "15d", "test": "1d", "trials": 4}


def hold_collateral() -> bt.Account:
    """Return an account whose cross positions are also backed by coins."""
    coins = bt.Collateral("COIN", 20.0, prices=load_market(), rate=0.9, slippage=0.001)
    return bt.Account(capital=2_000.0, collateral=[coins], negative_limit=500.0)


# --------------------------------------------------------------------------------------- the runs


def run_one(**changes: Any) -> bt.Result:
    """Return a run of one position with flows and a reserve."""
    return bt.run(load_market(), Rise(9.0, 4), **{**ONE, "account": CALLED, **changes})


def run_two(**changes: Any) -> bt.Result:
    """Return a run of two positions, one isolated, under an overlay."""
    terms = {**TWO, "account": MIXED, "signal": LONG, "overlay": Keep(0.8), **changes}
    return bt.run(load_markets(), Rise(20.0, 4), **terms)


def cut_one(**changes: Any) -> bt.Result:
    """Return the first part of the run of one position."""
    return bt.run(load_market().prefix(CUT), Rise(9.0, 4), **{**ONE, "account": CALLED}, **changes)


def cut_two(**changes: Any) -> bt.Result:
    """Return the first part of the run of two positions."""
    terms = {**TWO, "account": MIXED, "signal": LONG, "overlay": Keep(0.8), **changes}
    return bt.run(load_markets().prefix(CUT), Rise(20.0, 4), **terms)


RUNS: dict[str, Callable[..., Any]] = {
    "run": run_one,
    "run cut": cut_one,
    "run isolated": lambda: bt.run(load_market(), Keep(14.0), account=ISOLATED, **ONE),
    "run of two": run_two,
    "run of two, cut": cut_two,
    "run of two, collateral": lambda: bt.run(
        load_markets(), Keep(9.0), account=hold_collateral(), signal={"AAA": 0.6, "BBB": 0.4}, **TWO
    ),
}
RESUMED: dict[str, Callable[[Any], Any]] = {
    "run cut": lambda earlier: run_one(resume=earlier),
    "run of two, cut": lambda earlier: run_two(resume=earlier),
}


def walk(several: bool) -> bt.WalkForward:
    """Return a walk forward on one market, or on two."""
    market, terms = (load_long(), TWO) if several else (load_long()["AAA"], ONE)
    return bt.walk_forward(market, Rise, account=PLAIN, **terms, **SEARCH, **FOLDS)


def search(several: bool, store: Path) -> bt.Study:
    """Return a search on one market, or on two."""
    market, terms = (load_markets(), TWO) if several else (load_market(), ONE)
    return bt.tune(market, Rise, account=PLAIN, **terms, **SEARCH, trials=8, store=store)


def draw_paths(market: Any) -> Any:
    """Return a few continuations of a day."""
    return bt.simulate_paths(market, bt.paths.GBM(volatility=1.5), paths=40, horizon="12h", seed=1)


def make_risks() -> Iterator[tuple[str, Any]]:
    """Yield the results about risk, of one market and of two."""
    long = load_long().prefix(130)
    for text, market, longer, venue in (
        ("", load_market(), long["AAA"], make_venue()),
        (" of two", load_markets(), long, make_venues()),
    ):
        terms: dict[str, Any] = {"venue": venue, "account": PLAIN, "compile": False}
        paths = draw_paths(market.prefix(104))
        yield f"risk{text}", bt.liquidation_risk(paths, Keep(20.0), **terms, method="plain")
        yield f"runway{text}", bt.runway(paths, Keep(2.0), bt.Spending(0.1, every="4h"), **terms)
        run = bt.run(market.prefix(104), Keep(5.0), account=PLAIN, venue=venue, **SHORT)
        fall = [bt.Scenario("fall", price=-0.15, over="2h"), bt.Scenario("rise", price=0.1)]
        yield f"stress{text}", bt.stress(run, fall, ladder={"price": (-0.2, 0.2, 3)})
        found = bt.sensitivity(market, Keep(2.0), **terms, sampling="6h", factors=["fees"])
        yield f"sensitivity{text}", found
        yield (
            f"capacity{text}",
            bt.capacity(market, Keep(2.0), **terms, sampling="6h", capitals=[1e4, 1e6]),
        )
        yield (
            f"largest{text}",
            bt.max_leverage(
                longer, **terms, probability=0.6, horizon="4h", models=["gbm"], paths=34
            ),
        )
    market, terms = load_market(), {**ONE, "account": PLAIN}
    yield "bounds", bt.bounds(market, Keep(9.0), account=ISOLATED, **ONE)
    plan = bt.Allocation({"a": (Keep(2.0), 0.6), "b": (Keep(0.5), 0.4)}, rebalance="2d")
    yield "allocation", plan.run(market, **terms)
    named = bt.Allocation(
        {"a": bt.Pocket(Keep(2.0), 0.6, "AAA"), "b": bt.Pocket(Keep(1.0), 0.4, "AAA")},
        rebalance="2d",
    )
    yield "allocation of two", named.run(load_markets(), **{**TWO, "account": PLAIN})


def make_results(store: Path) -> Iterator[tuple[str, Any]]:
    """Yield every result with its label."""
    for label, make in RUNS.items():
        made = make()
        yield label, made
        if label in RESUMED:
            yield label.replace("cut", "resumed"), RESUMED[label](made)
    one, two = {**ONE, "account": PLAIN}, {**TWO, "account": PLAIN}
    market, markets = load_market(), load_markets()
    yield "sweep", bt.sweep(market, Rise, SETS, **one)
    yield "sweep of two", bt.sweep(markets, Rise, SETS, **two, overlay=Keep(0.8))
    yield "study", search(False, store)
    yield "study of two", search(True, store)
    policies = {"rise": Rise(2.0, 4), "keep": Keep(1.0), "more": Keep(2.0)}
    yield "comparison", bt.compare(market, policies, **one, draws=99, confidence=0.9)
    yield (
        "comparison of two",
        bt.compare(markets, policies, **two, draws=99, confidence=0.9, signal=WEIGHTS),
    )
    yield "walk", walk(False)
    yield "walk of two", walk(True)
    search_all = {name: each for name, each in SEARCH.items() if name not in ("robust", "sampler")}
    groups: dict[str, Any] = {"groups": 2, "test_groups": 1, "embargo": 0, "trials": 4}
    plans: dict[str, Any] = {"train": ("15d",), "test": ("1d",), "trials": 4, "draws": 99}
    for text, long, terms in (("", load_long()["AAA"], one), (" of two", load_long(), two)):
        yield (
            f"cross-validation{text}",
            bt.cross_validate(long, Rise, **terms, **search_all, **groups),
        )
        yield f"schedules{text}", bt.schedules(long, Rise, **terms, **SEARCH, **plans)
    yield from make_risks()


def make_baselines() -> dict[str, Callable[[], Any]]:
    """Return what makes the result of each baseline, by name."""
    return {
        "run": run_one,
        "run-isolated": RUNS["run isolated"],
        "run-of-two": run_two,
        "walk": lambda: walk(False),
        "walk-of-two": lambda: walk(True),
    }


def write() -> None:
    """Write the markets if there are none, the store, the baselines and the list of contents."""
    if not MARKETS.exists():
        make_market("AAA", 1, 0, BARS).save(MARKETS / "AAA")
        make_market("BBB", 2, 20, BARS - 16).save(MARKETS / "BBB")
    folders = {}
    for label, made in make_results(STORE):
        folder = made.folder if isinstance(made, bt.Study) else made.save(STORE)
        folders[label] = folder.name
    for name, make in make_baselines().items():
        save_baseline(take_baseline(make(), name), BASELINES)
    measures = {
        each.name: {name: x for name, x in sorted(each.metrics.items()) if math.isfinite(x)}
        for each in list_results(STORE)
    }
    contents = {
        label: {"folder": name, "measures": measures[name]} for label, name in folders.items()
    }
    CONTENTS.write_text(json.dumps(contents, indent=1) + "\n")
