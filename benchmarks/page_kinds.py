"""Every kind of result, each small, and its page: what ``benchmarks.pages`` looks at.

    python -m benchmarks.page_kinds FOLDER [KIND ...]

Writes FOLDER/KIND.html for each kind, or for those that are named, and, of all of them,
FOLDER/index/index.html with the pages that share one library. Prints the bytes of both as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.core import Reportable, SavedResult
from backtest.report.render import write_page
from backtest.report.side_by_side import build_pair_page
from backtest.report.store_pages import write_all
from backtest.signals.rules import MaCross
from backtest.strategies import Carry, Constant, Cppi, HealthTarget, TailHedge, VolTarget

VENUE = "binance-usdm:BTCUSDT"
SIDES = ("BTCUSDT", "ETHUSDT")
OPTION_COSTS = bt.OptionCosts(
    fee=0.0003, fee_cap=0.125, delivery_fee=0.00015, delivery_cap=0.125, tick=0.1, spread=0.02
)


class Once(bt.Policy):
    """Open 8x at the first close, and leave the position alone."""

    def leverage(self, bar: Any, account: Any) -> float:
        """Return 8 in the first hour, then nothing."""
        return 8.0 if account.days < 0.05 else float("nan")


def make_test(days: int = 120, **settings: Any) -> bt.Backtest:
    """Return a test on days of the sample, its account with some settings."""
    market = bt.Market.sample(bars=24 * days)
    return bt.Backtest(market, venue=VENUE, account=bt.Account(**{"capital": 10_000} | settings))


def make_markets(days: int) -> bt.Markets:
    """Return two samples as one market."""
    samples = {}
    for seed, name in enumerate(SIDES):
        sample = bt.Market.sample(bars=24 * days, seed=seed)
        samples[name] = replace(sample, instrument=name)
    return bt.Markets(samples)


def make_book(days: int = 120, **settings: Any) -> bt.Backtest:
    """Return a test of two instruments on one collateral."""
    venues = bt.Venue.preset("binance-usdm", list(SIDES))
    account = bt.Account(capital=10_000, **settings)
    return bt.Backtest(make_markets(days), venue=venues, account=account)


def run() -> Reportable:
    """Return a run."""
    return make_test(band=0.1).run(VolTarget(target=0.5))


def ruined() -> Reportable:
    """Return a run that loses everything."""
    return make_test(after_liquidation="halt").run(Constant(20.0))


def book() -> Reportable:
    """Return a run with two instruments."""
    weights = {"BTCUSDT": 1.0, "ETHUSDT": 0.5}
    return make_book().replace(signal=weights).run(Constant(1.5))


def pulled() -> Reportable:
    """Return a run whose winning leg is closed with its losing one."""
    return make_book().replace(signal={"BTCUSDT": 1.0, "ETHUSDT": -1.0}).run(Constant(12.0))


def inverse() -> Reportable:
    """Return a run of a contract that settles in coins."""
    market = bt.Market.sample(bars=24 * 60)
    account = bt.Account(capital=0.5)
    test = bt.Backtest(market, venue="bybit-inverse:BTCUSD", account=account, signal=-1.0)
    return test.run(Constant(1.0))


def options() -> Reportable:
    """Return a run that buys and rolls puts."""
    market = bt.Market.sample(bars=24 * 30)
    puts = bt.Option.grid(
        "BTC",
        strikes=range(20_000, 30_000, 2_000),
        start="2023-01-06",
        end="2023-02-10",
        kinds=["put"],
    )
    surfaces = {"BTC": bt.Surfaces.fit(bt.Chain.sample())}
    markets = bt.Markets({"BTC": market, **puts}, surfaces=surfaces, max_age="60d")
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT").override(option_costs=OPTION_COSTS)
    account = bt.Account(capital=100_000, requirement="deribit-standard")
    test = bt.Backtest(markets, venue=venue, account=account)
    return test.run(TailHedge(Constant(2.0), delta=-0.1, tenor=14.0, roll=5.0, budget=0.005))


def carry() -> Reportable:
    """Return a run of a spot leg and a perpetual."""
    perpetual = bt.Market.sample(bars=24 * 90)
    bars = perpetual.bars()[["open", "high", "low", "close", "volume"]]
    spot = bt.Market.from_frames(bars, funding=perpetual.funding())
    margined = bt.Venue.preset("binance-usdm", "BTCUSDT").override(
        interest_on="balance", borrow_rate=0.03
    )
    paid = bt.Venue.spot(taker=0.001, slippage=1e-4, haircut=0.05, borrow_rate=0.04, like=margined)
    test = bt.Backtest(
        bt.Markets({"spot": spot, "perpetual": perpetual}, currency="USDT"),
        venue={"spot": paid, "perpetual": margined},
        account=bt.Account(capital=100_000, band=0.1),
        signal={"spot": 1.0, "perpetual": -1.0},
    )
    return test.run(Carry(rise=0.5, borrow_rate=0.03))


def loan() -> Reportable:
    """Return a run that borrows at a lending market."""
    prices = bt.Market.sample(bars=24 * 90).bars()
    market = bt.Market.from_frames(prices, instrument="ETHUSDT")
    venue = bt.Venue(
        contract=bt.Contract(),
        brackets=[bt.Bracket(floor=0.0, cap=1e9, max_leverage=5.0, maintenance_rate=0.17)],
        fees=bt.Fees(taker=0.0005, maker=0.0005),
        slippage=bt.Slippage(rate=0.0005),
        liquidation=bt.Liquidation(mode="partial", step=0.43, fee=0.047, slippage=0.0),
        interest_on="loan",
        borrow_rate=0.05,
        cash_rate=0.02,
    )
    return bt.Backtest(market, venue=venue, account=bt.Account()).run(HealthTarget())


def accounts() -> Reportable:
    """Return two accounts with transfers between them."""
    market = bt.Market.sample(bars=24 * 30)
    account = bt.Account(capital=10_000)
    sides = {
        "long": bt.Backtest(market, venue=VENUE, account=account),
        "short": bt.Backtest(market, venue=VENUE, account=account, signal=-1.0),
    }
    transfer = bt.TopUp(when_margin_ratio=0.045, to=0.03)
    pair = bt.Accounts(sides, transfer=transfer, every="1h", delay="10min", fee=5.0)
    return pair.run(Once())


def replay() -> Reportable:
    """Return the fills of a run, replayed."""
    test = make_test(40)
    return test.replay(test.run(VolTarget()).fills)


def shadow() -> Reportable:
    """Return a live account beside its policy."""
    test = make_test(20)
    start = bt.AccountSnapshot(equity=10_000.0, time="2023-01-05")
    end = bt.AccountSnapshot(equity=9_950.0, time="2023-01-15")
    fills = test.replace(start="2023-01-04 23:00").run(VolTarget()).fills
    return test.shadow(VolTarget(), fills[fills["time"] < end.time], [start, end])


def sweep() -> Reportable:
    """Return a sweep of three parameters."""
    values = {"target": np.linspace(0.1, 1.5, 6), "half_life": [12.0, 24.0, 72.0, 144.0]}
    return make_test(60).sweep(VolTarget, {**values, "account.band": [0.0, 0.1]})


def study() -> Reportable:
    """Return a search."""
    return make_test(60).tune(VolTarget, trials=40, seed=0)


def walk() -> Reportable:
    """Return a walk-forward."""
    return make_test(60).walk_forward(VolTarget, train="20d", test="10d", trials=8, seed=0)


def cv() -> Reportable:
    """Return a cross-validation."""
    return make_test(60).cross_validate(VolTarget, groups=6, trials=32, seed=0)


def frontier() -> Reportable:
    """Return a search of two objectives."""
    objectives = ("cagr", "max_drawdown")
    return make_test(120).frontier(VolTarget, objectives=objectives, trials=40)


def compare() -> Reportable:
    """Return three policies compared."""
    policies = {"calm": VolTarget(target=0.2), "bold": VolTarget(target=0.8), "cppi": Cppi()}
    return make_test(100).compare(policies, baseline="calm", equal_risk=True, draws=199, seed=0)


def timing() -> Reportable:
    """Return the test of a run's timing."""
    return bt.timing_test(make_test(100).run(VolTarget()))


def judge() -> Reportable:
    """Return the judgement of a policy."""
    return make_test(60, band=0.1).judge(VolTarget(), draws=199)


def risk() -> Reportable:
    """Return the probabilities of liquidation."""
    test = make_test(60)
    paths = bt.simulate_paths(test.market, "filtered", paths=100, horizon="30d")
    return test.liquidation_risk(Constant(leverage=8.0), paths=paths)


def largest() -> Reportable:
    """Return the largest leverage within a probability of liquidation."""
    return make_test(60).max_leverage(
        probability=0.05, horizon="7d", models=["filtered"], paths=400, evaluations=6
    )


def growth() -> Reportable:
    """Return growth by leverage."""
    return make_test(60).leverage_frontier(drift="shrunk", horizon="7d", model="gbm", paths=100)


def funded() -> Reportable:
    """Return the probability that a funded account passes."""
    test = make_test(30, daily_loss=0.05)
    paths = bt.simulate_paths(test.market, bt.paths.GBM(volatility=0.8), paths=60, horizon="10d")
    return test.passing_probability(Constant(leverage=1.5), paths=paths, days=10)


def stress() -> Reportable:
    """Return what crashes would do to an account."""
    result = make_test(30).run(Constant(leverage=3.0))
    return bt.stress(result, bt.crashes()[:6])


def ladder() -> Reportable:
    """Return what a grid of shocks would do to an account."""
    result = make_test(30).run(Constant(leverage=3.0))
    return bt.stress(result, ladder={"price": (-0.5, 0.5, 21), "margin": (1.0, 2.0)})


def bands() -> Reportable:
    """Return what resampled markets did to an account."""
    return make_test(30).run(VolTarget(half_life=24.0)).bands(40, loss=0.3, goal=0.5)


def bounds() -> Reportable:
    """Return a run by the order of prices inside its bars."""
    test = make_book(15, stop_loss=0.005, take_profit=0.005)
    return bt.bounds(test.replace(signal={"BTCUSDT": 1.0, "ETHUSDT": -1.0}).run(Constant(1.0)))


def sensitivity() -> Reportable:
    """Return growth by one assumption at a time."""
    return make_test(60).sensitivity(VolTarget(target=0.5))


def steps() -> Reportable:
    """Return growth by one parameter at a time, also of the signal."""
    return make_test(40).replace(signal=MaCross(24, 72)).sensitivity(VolTarget(), parameters=True)


def capacity() -> Reportable:
    """Return growth by capital."""
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT").override({"slippage.impact": 1.0})
    return make_test(60).replace(venue=venue).capacity(VolTarget(target=0.5))


def margin() -> Reportable:
    """Return three margin rules compared."""
    ewma = bt.margin_rules.Volatility(days=1.0)
    rules = {"table": None, "ewma": ewma, "buffer": bt.margin_rules.Buffer(ewma, 0.25)}
    return make_test(365).compare_margin(rules, accounts=200, paths=20)


def calibration() -> Reportable:
    """Return the parameter of a margin rule with few shortfalls."""
    rule = bt.margin_rules.Volatility(days=1.0)
    return make_test(365).calibrate_margin(rule, shortfall=0.05)


def cascade() -> Reportable:
    """Return a cascade of liquidations in one market."""
    market = bt.Market.sample(bars=24 * 60)
    crowd = bt.Crowd.from_leverage(
        open_interest=3e9, leverage="loguniform:1:50", entries=market, accounts=1_000
    )
    return bt.cascade(crowd, VENUE, shock=-0.1, impact=bt.SquareRoot(1.0), insurance=5e6)


def contagion() -> Reportable:
    """Return a cascade through two markets."""
    rows = [("a", "BTC", "long", 2, 100), ("b", "BTC", "long", 1, 100), ("b", "ETH", "long", 9, 10)]
    frame = pd.DataFrame(rows, columns=["account", "market", "side", "quantity", "entry"])
    prices = {"BTC": 100, "ETH": 10}
    crowd = bt.BookCrowd.from_positions(frame, cash={"a": 12, "b": 10}, prices=prices)
    return bt.cascade(crowd, VENUE, shock={"BTC": -0.06}, impact=bt.Linear(0.05), volume=200.0)


def surface() -> Reportable:
    """Return a surface of implied volatility."""
    return bt.Surface.fit(bt.Chain.sample())


KINDS: Mapping[str, Callable[[], Reportable]] = {
    make.__name__: make
    for make in (
        run, ruined, book, pulled, inverse, options, carry, loan, accounts, replay, shadow,
        sweep, study, walk, cv, frontier, compare, timing, judge,
        risk, largest, growth, funded, stress, ladder, bands, bounds, sensitivity, steps, capacity,
        margin, calibration, cascade, contagion, surface,
    )
}  # fmt: skip
"""What makes a result of each kind, by the name of its page."""


def write_pages(folder: Path, names: list[str]) -> dict[str, int]:
    """Write the pages of kinds into a folder, and save what can be saved; return their bytes."""
    sizes = {}
    for name in names:
        found = KINDS[name]()
        sizes[name] = found.report(folder / f"{name}.html").stat().st_size
        if isinstance(found, SavedResult):
            found.save(folder / "store")
        sys.stderr.write(f"{name}: {sizes[name]:,} bytes\n")
    return sizes


def write_pair(folder: Path) -> int:
    """Write the page of two runs side by side; return its bytes."""
    first = make_test(band=0.1).run(VolTarget(target=0.5))
    second = make_test(band=0.0).run(VolTarget(target=0.8))
    return write_page(build_pair_page(first, second), folder / "pair.html").stat().st_size


def write_index(folder: Path) -> dict[str, int]:
    """Write all results that were saved, with their list; return how many bytes that takes."""
    write_all(folder / "store", folder / "index")
    files = [path for path in (folder / "index").rglob("*") if path.is_file()]
    pages = [path for path in files if path.parent.name == "pages" and path.suffix == ".html"]
    return {"pages": len(pages), "bytes": sum(path.stat().st_size for path in files)}


def main() -> None:
    """Write the pages, and print their sizes."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    names = sys.argv[2:] or [*KINDS]
    sizes = write_pages(folder, names)
    if not sys.argv[2:]:
        sizes["pair"] = write_pair(folder)
    report = {"pages": sizes, "largest": max(sizes.values()), "index": write_index(folder)}
    sys.stdout.write(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
