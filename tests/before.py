"""The numbers of before: runs of all kinds, kept in ``data/before.json`` while the program shrinks.

``python -m tests.before`` from the root of the repository writes that file anew. Do so in the
commit that changes a number on purpose, and say there which, before and after.

What is kept of a run are its measures, to 17 digits, and its events; of many events the first, and
totals of all. :func:`differences` says where a run is not *equal*: money, prices and quantities
within 1e-9 of the larger of equity and turnover so far, measures within 1e-9 of themselves or
1e-12, the same events in the same order.
"""

import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import backtest as bt
from backtest.cli import main as run_command
from backtest.cli.regress import run_experiment
from backtest.strategies import VolTarget
from tests.golden import RUNS as GOLDEN
from tests.options.listed_markets import make_surfaces

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests" / "data" / "before.json"
WAS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
EXAMPLES = ROOT / "examples"
TOLERANCE, LEAST = 1e-9, 1e-12
FITTED = dict.fromkeys(("options.toml", "tail-hedge.toml"), 1e-6)
"""Tolerances of runs on fitted surfaces: the fit stops where another processor rounds otherwise."""
SEEDS, BARS, START = 4, 240, "2023-01-01"
NEW_MEASURES = (
    "skewness", "excess_kurtosis", "omega", "tail_ratio", "gain_to_pain", "ulcer", "best_day",
    "worst_day", "best_month", "worst_month", "positive_days", "mean_margin_use",
    "return_on_margin", "fills",
)  # fmt: skip
"""Measures that came after the file was written; it gets them when it is written anew."""
MOST, FIRST = 300, 150
"""A run of more events than the first keeps as many as the second, and totals by kind and month."""
KINDS = (
    "cross", "isolated", "inverse", "collateral", "spot", "limit", "calls", "options", "margin",
    "overlay",
)  # fmt: skip


class Asked(bt.Policy):
    def observe(self, market):
        return {"asked": market.columns["asked"]}

    def leverage(self, bar, account):
        return bar.asked


def draw_market(
    rng: np.random.Generator, name: str, level: float, price: float, swing: float
) -> bt.Market:
    index = pd.date_range(START, periods=BARS, freq="h", tz="UTC")
    moves = np.clip(swing * rng.standard_t(4, BARS), -0.3, 0.3)
    gaps = np.where(rng.random(BARS) < 0.1, swing * rng.standard_normal(BARS), 0.0)
    close = np.log(price) + np.cumsum(moves + gaps)
    log = {"open": close - moves, "close": close}
    wick = np.abs(rng.normal(0.0, 0.5 * swing, (2, BARS)))
    log["high"] = np.maximum(log["open"], close) + wick[0]
    log["low"] = np.minimum(log["open"], close) - wick[1]
    basis = rng.normal(0.0, 0.05 * swing, BARS)
    bars, mark = (
        pd.DataFrame({each: np.exp(log[each] + shift) for each in ("open", "high", "low", "close")},
                     index=index)
        for shift in (0.0, basis)
    )  # fmt: skip
    asked = level * np.clip(1.0 + 0.4 * rng.standard_normal(BARS), 0.0, 2.0)
    asked[rng.random(BARS) < 0.7] = np.nan
    bars = bars.assign(volume=rng.uniform(50.0, 500.0, BARS) * 2e4 / price, asked=asked)
    stamps = index[8::8]
    funding = pd.DataFrame({"rate": rng.normal(1e-4, 3e-4, len(stamps))}, index=stamps)
    return bt.Market.from_frames(bars, funding=funding, mark=mark, instrument=name)


def draw_venue(rng: np.random.Generator, seed: int, **changes: Any) -> bt.Venue:
    """Draw a venue: each seed has its mode of liquidation."""
    forced = [
        {"mode": "close"},
        {"mode": "takeover"},
        {"mode": "partial", "step": 0.4},
        {"mode": "partial", "step": "bracket"},
    ][seed]
    taker = float(rng.uniform(2e-4, 8e-4))
    terms: dict[str, Any] = {
        "contract": bt.Contract(lot=0.001, tick=0.01, min_notional=5.0),
        "brackets": [
            bt.Bracket(0.0, 20_000.0, 50.0, 0.01),
            bt.Bracket(20_000.0, 100_000.0, 20.0, 0.025),
            bt.Bracket(100_000.0, math.inf, 10.0, 0.05),
        ],
        "fees": bt.Fees(taker=taker, maker=taker / 4),
        "slippage": bt.Slippage(rate=float(rng.uniform(0.0, 4e-4)), impact=0.3),
        "liquidation": bt.Liquidation(**forced, fee=0.01, slippage=0.002),
        "interest_on": "balance",
        "borrow_rate": 0.08,
        "cash_rate": 0.02,
    }
    return bt.Venue(**(terms | changes))


def draw_run(kind: str, seed: int) -> bt.Result:
    rng = np.random.default_rng([seed, sum(map(ord, kind))])
    level, swing = float(rng.uniform(3.0, 14.0)), float(rng.uniform(0.006, 0.013))
    swing *= 1.6 if kind in ("cross", "margin", "overlay") else 1.0
    market = draw_market(rng, "BTCUSDT", level, 20_000.0, swing)
    second = draw_market(rng, "ETHUSDT", level / 2, 1_500.0, 1.3 * swing)
    venue = draw_venue(rng, seed)
    pair = {"BTCUSDT": market, "ETHUSDT": second}
    weights = pd.DataFrame({"BTCUSDT": 0.6, "ETHUSDT": -0.4}, index=market.times)
    on_both = {"market": bt.Markets(pair), "venue": dict.fromkeys(pair, venue), "signal": weights}
    sides = pd.Series(np.where(np.arange(BARS) % 96 < 60, 1.0, -1.0), index=market.times)
    on_one = {"market": market, "venue": venue, "signal": sides}
    given, terms = choose_terms(kind, seed, rng, on_one, on_both)
    terms = {"capital": 10_000.0, "band": 0.2} | terms
    return bt.run(policy=Asked(), account=bt.Account(**terms), compile=False, **given)


def choose_terms(
    kind: str, seed: int, rng: np.random.Generator, on_one: dict[str, Any], on_both: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    given, terms = on_one, {}
    market, venue, weights = on_one["market"], on_one["venue"], on_both["signal"]
    if kind == "cross":
        terms |= {"stop_loss": [None, 0.03][seed % 2], "flows": list_flows(), "max_leverage": 15.0}
    elif kind == "isolated":
        terms |= {"margin": "isolated", "venue_leverage": 20.0, "auto_margin": seed % 2 == 1}
        terms |= {"trailing_stop": [0.05, None, 0.05, None][seed], "take_profit": 0.08}
    elif kind == "inverse":
        contract = bt.Contract(kind="inverse", size=100.0, lot=1.0, tick=0.5)
        brackets = [bt.Bracket(0.0, 5.0, 50.0, 0.01), bt.Bracket(5.0, math.inf, 20.0, 0.025)]
        given |= {"venue": venue.override(contract=contract, brackets=brackets)}
        terms |= {"capital": 1.5, "equity_stop": [None, 0.5][seed % 2]}
    elif kind == "collateral":
        given = on_both
        coin = bt.Collateral("BTC", 0.3, prices=market, rate=0.9, slippage=0.002)
        terms |= {"capital": 4_000.0, "collateral": [coin], "negative_limit": 500.0}
    elif kind == "spot":
        leg = draw_venue(
            rng,
            seed,
            contract=bt.Contract(kind="spot", lot=0.001, tick=0.01, haircut=0.05, borrow_rate=0.04),
            brackets=[bt.Bracket(0.0, math.inf, 10.0, 0.0)],
            liquidation=venue.liquidation.override(step=0.4),
        )
        given = on_both | {"venue": {"BTCUSDT": venue, "ETHUSDT": leg}}
        given["signal"] = -weights if seed % 2 else weights
    elif kind == "limit":
        terms |= {"fill": "limit", "offset": 0.004, "closing": ["market", "limit"][seed % 2]}
        terms |= {"stop_loss": 0.04, "max_holding": "30h"}
    elif kind == "calls":
        given |= {"venue": venue.override(call_grace=3)}
        terms |= {"margin_call": 0.35, "reserve": 6_000.0, "top_up_to": 0.2}
    elif kind == "options":
        given = option_terms(market, venue, seed)
        terms |= {"capital": 30_000.0, "requirement": list_rules()[seed]}
    elif kind == "margin":
        rows = [-0.12, -0.06, 0.06, 0.12]
        across = ["independent", "same row"][seed % 2]
        rule = bt.ScenarioMargin(
            moves=rows, across=across, contingency=0.005, initial=(1.3, 0.01),
            groups=[None, {"all": ["BTCUSDT", "ETHUSDT"]}][seed // 2],
        )  # fmt: skip
        step = {"liquidation": venue.liquidation.override(step=0.4)}
        given = on_both | {"venue": dict.fromkeys(weights, venue.override(step))}
        terms |= {"requirement": rule, "intrabar": ["path", "worst"][seed // 2]}
    else:
        given = on_both | {"overlay": VolTarget(target=2.0, half_life=24.0)}
        terms |= {"max_gross_leverage": 6.0, "max_overlay": 3.0, "after_liquidation": "halt"}
    return given, terms


def list_flows() -> pd.Series:
    times = pd.to_datetime(["2023-01-04 12:20", "2023-01-07 00:00"], utc=True)
    return pd.Series([2_000.0, -1_500.0], index=times)


def list_rules() -> list[Any]:
    shocks = bt.OptionShocks(power=(0.3, 0.3), short_charge=(0.01, 0.01))
    return [
        bt.Standard(initial=0.15, least=0.1, maintenance=0.075),
        bt.Standard(initial=0.15, least=0.1, maintenance=0.075, option_value="long"),
        bt.ScenarioMargin(moves=[-0.15, 0.15], options=shocks, contingency=0.005),
        bt.Strategy(),
    ]


def option_terms(market: bt.Market, venue: bt.Venue, seed: int) -> dict[str, Any]:
    """Return a market with two puts and a call, bought and sold, one of which expires inside."""
    last = float(market.close[-1])
    expiries = {"PUT": "2023-01-08 08:00", "LATE": "2023-01-27 08:00", "CALL": "2023-01-08 08:00"}
    options = {
        name: bt.Option(
            kind="call" if name == "CALL" else "put",
            strike=float(round(last * share, -2)),
            expiry=expiries[name],
            underlying="BTCUSDT",
        )
        for name, share in {"PUT": 0.95, "LATE": 0.9, "CALL": 1.05}.items()
    }
    surfaces = {"BTCUSDT": make_surfaces(["2023-01-01 06:30", "2023-01-05 06:30"])}
    held = pd.DataFrame(
        {"PUT": [-2.0, 1.0, 0.0], "LATE": [3.0, 3.0, 1.5], "CALL": [-1.0, -3.0, -3.0]},
        index=pd.to_datetime(
            ["2023-01-01 12:00", "2023-01-04 00:00", "2023-01-06 03:00"], utc=True
        ),
    )
    costs = bt.OptionCosts(
        fee=0.0003, fee_cap=0.125, delivery_fee=0.00015, delivery_cap=0.125, tick=0.1, spread=0.02
    )
    forced = bt.Liquidation(mode=["close", "partial"][seed % 2], step=0.4, fee=0.01, slippage=0.002)
    return {
        "market": bt.Markets({"BTCUSDT": market, **options}, surfaces=surfaces),
        "venue": venue.override(option_costs=costs, liquidation=forced),
        "option_quantities": held,
    }


def run_example(name: str) -> bt.Result:
    return run_experiment(EXAMPLES / name)


def run_imported() -> bt.Result:
    with tempfile.TemporaryDirectory() as folder:
        desk = Path(folder)
        shutil.copytree(EXAMPLES / "data", desk / "data")
        shutil.copy(EXAMPLES / "run-imported.toml", desk)
        columns = "time=day,open=o,high=h,low=l,close=c,volume=v,view=view"
        code = run_command([
            "data", "import", str(desk / "data" / "prices.csv"), "--columns", columns,
            "--timezone", "UTC", "--instrument", "BTCUSDT",
            "--funding", str(desk / "data" / "funding.csv"), "--out", str(desk / "btc"),
        ])  # fmt: skip
        assert code == 0
        file = desk / "run-imported.toml"
        file.write_text(file.read_text().replace('path = "data"', 'path = "btc"'))
        return run_experiment(file)


def list_runs() -> dict[str, Callable[[], bt.Result]]:
    examples = [
        "btc-vol-target.toml", "run-inverse-short.toml", "loan.toml", "sweep-cppi.toml",
        "tune-drawdown-control.toml", "portfolio.toml", "carry.toml", "options.toml",
        "tail-hedge.toml", "policy-repo/experiments/steady.toml",
    ]  # fmt: skip
    runs: dict[str, Callable[[], bt.Result]] = {
        name: partial(run_example, name) for name in examples
    }
    runs["run-imported.toml"] = run_imported
    runs |= {f"ledger {name}": make for name, make in GOLDEN.items()}
    for kind in KINDS:
        runs |= {f"{kind} {seed}": partial(draw_run, kind, seed) for seed in range(SEEDS)}
    return runs


def run_quietly(make: Callable[[], bt.Result]) -> bt.Result:
    """Run one in plain Python; what its warnings say is not compared."""
    os.environ.setdefault("BACKTEST_COMPILE", "auto")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


def describe(result: bt.Result) -> dict[str, Any]:
    """Return the measures and the events of a run; NaN and infinite numbers as text. Payments of
    less than a trillionth are left out: rounding decides whether they are there."""
    events = result.events
    is_rounding = events["kind"].isin(["interest", "funding"]) & (events["amount"].abs() < LEAST)
    events = events[~is_rounding]
    names = [name for name in events.columns if name not in ("time", "kind", "instrument")]
    minutes = (events["time"] - result.bars.index[0]) / pd.Timedelta("1min")
    who = events["instrument"] if "instrument" in events else [""] * len(events)
    rows = [
        [round(float(minute), 6), str(kind), str(instrument), *map(keep, numbers)]
        for minute, kind, instrument, numbers in zip(
            minutes, events["kind"], who, events[names].to_numpy(dtype=float), strict=True
        )
    ]
    kept = {
        "columns": names,
        "metrics": {name: keep(value) for name, value in result.metrics.items()},
        "totals": {},
        "events": rows,
    }
    if len(rows) > MOST:
        month = events["time"].dt.strftime("%Y-%m")
        totals = events.groupby([month, "kind"], observed=True)["amount"].agg(["count", "sum"])
        kept["events"] = rows[:FIRST]
        kept["totals"] = {
            f"{month} {kind}": [int(count), float(total)]
            for (month, kind), count, total in totals.itertuples()
        }
    return kept


def keep(value: Any) -> float | str:
    number = float(value)
    return number if math.isfinite(number) else str(number)


def differences(
    was: dict[str, Any], result: bt.Result, tolerance: float = TOLERANCE
) -> Iterator[str]:
    now = describe(result)
    yield from compare_measures(was["metrics"], now["metrics"], tolerance)
    yield from compare_totals(was["totals"], now["totals"], result, tolerance)
    yield from compare_events(was["events"], now["events"], now["columns"], result, tolerance)


def compare_measures(was: dict[str, Any], now: dict[str, Any], tolerance: float) -> Iterator[str]:
    for key in sorted(({*was} ^ {*now}) - {*NEW_MEASURES}):
        yield f"{key}: {was.get(key, 'none')} before, {now.get(key, 'none')} now"
    for key in was.keys() & now.keys():
        before, after = float(was[key]), float(now[key])
        if not math.isclose(before, after, rel_tol=tolerance, abs_tol=LEAST) and not (
            math.isnan(before) and math.isnan(after)
        ):
            yield f"{key}: {before!r} before, {after!r} now"


def compare_totals(
    was: dict[str, list[float]],
    now: dict[str, list[float]],
    result: bt.Result,
    tolerance: float,
) -> Iterator[str]:
    scale = max(float(result.bars["equity"].max()), result.events["amount"].abs().sum())
    for key in sorted({*was} | {*now}):
        (count, total), (count_now, total_now) = was.get(key, (0, 0.0)), now.get(key, (0, 0.0))
        if count != count_now or not is_near(total, total_now, scale, tolerance):
            yield f"{key}: {count} of {total!r} before, {count_now} of {total_now!r} now"


def compare_events(
    was: list[list[Any]],
    now: list[list[Any]],
    columns: list[str],
    result: bt.Result,
    tolerance: float,
) -> Iterator[str]:
    if len(was) != len(now):
        yield f"{len(was)} events before, {len(now)} now"
    equity = np.maximum.accumulate(result.bars["equity"].to_numpy(dtype=float))
    ends = (result.bars.index - result.bars.index[0]) / pd.Timedelta("1min")
    turnover = 0.0
    for old, new in zip(was, now, strict=False):
        before, after = (dict(zip(columns, map(float, row[3:]), strict=True)) for row in (old, new))
        bar = max(int(np.searchsorted(ends, new[0], "right")) - 1, 0)
        if new[1] == "fill":
            turnover += abs(after["amount"]) if math.isfinite(after["amount"]) else 0.0
        scale = max(float(equity[bar]), result.account.capital, turnover)
        is_same = old[1:3] == new[1:3] and abs(old[0] - new[0]) <= 1e-6
        if is_same and all(
            is_near(
                before[each],
                after[each],
                scale if each == "amount" else abs(after[each]),
                tolerance,
            )
            for each in columns
        ):
            continue
        yield f"event {old} before, {new} now"
        return


def is_near(before: float, after: float, scale: float, tolerance: float) -> bool:
    if math.isnan(before) or math.isinf(before):
        return before == after or (math.isnan(before) and math.isnan(after))
    return abs(before - after) <= tolerance * scale + LEAST


def main() -> None:
    lines = []
    for name, make in list_runs().items():
        kept = describe(run_quietly(make))
        events = ",\n   ".join(json.dumps(row) for row in kept.pop("events"))
        head = "".join(f'  "{key}": {json.dumps(value)},\n' for key, value in kept.items())
        lines.append(f' {json.dumps(name)}: {{\n{head}  "events": [\n   {events}]}}')
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
