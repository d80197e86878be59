"""What most tests take: markets and venues, refusals, commands, long lists of cases.

Hand-made accounts are in ``scenes.py``, random ones, which the oracle lives too, in ``cases.py``.
"""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import Market
from backtest.cli import main, printing
from backtest.core import BacktestError
from backtest.engine.conditions import FIELDS
from backtest.policies.lookahead import rewrite_after

YEAR = 8760
"""Hours."""
AT_BINANCE: dict[str, Any] = {
    "venue": bt.Venue.preset("binance-usdm", "BTCUSDT"),
    "account": bt.Account(),
}
"""Terms of a run at Binance's costs and margins."""
RULES = ("baseline", "equal_risk", "confidence", "draws", "seed", "progress")
"""Arguments of the comparison; the others are those of the runs."""
Estimate = Callable[[Market, Any], np.ndarray]


def free_venue(**terms: Any) -> bt.Venue:
    """Return a venue without costs and nearly without margin; compiles as the presets do."""
    return bt.Venue(
        contract=bt.Contract(lot=0.0, tick=1e-8, min_notional=0.0),
        brackets=[bt.Bracket(0.0, 1e15, 1000.0, 1e-6), bt.Bracket(1e15, 1e16, 999.0, 2e-6)],
        fees=bt.Fees(taker=0.0, maker=0.0),
        slippage=bt.Slippage(rate=0.0),
        liquidation=bt.Liquidation(mode="close", fee=0.0, slippage=0.0),
        **terms,
    )


def market_of(close: np.ndarray, freq: str = "1h", **more: Any) -> bt.Market:
    """Return a market of closes, each bar opening at the close before."""
    return bars_market(np.concatenate([close[:1], close[:-1]]), close, freq, **more)


def bars_market(
    opens: np.ndarray,
    close: np.ndarray,
    freq: str = "1h",
    start: str = "2020-01-01",
    terms: Mapping[str, Any] | None = None,
    **columns: Any,
) -> bt.Market:
    """Return a market of opens and closes, and of other columns; terms are those of frames."""
    bars = {
        "open": opens,
        "high": np.maximum(opens, close),
        "low": np.minimum(opens, close),
        "close": close,
        **columns,
    }
    index = pd.date_range(start, periods=len(close), freq=freq, tz="UTC")
    settings = {"now": "2200-01-01", **(terms or {})}  # generated bars may be of the future
    return bt.Market.from_frames(pd.DataFrame(bars, index=index), **settings)


def walk(
    n: int, mu: float, sigma: float | np.ndarray, seed: int, start: float = 100.0
) -> bt.Market:
    """Return hourly bars of a geometric Brownian motion: dS / S = mu dt + sigma dW, annual."""
    noise = np.random.default_rng(seed).standard_normal(n)
    steps = (mu - 0.5 * np.square(sigma)) / YEAR + sigma / math.sqrt(YEAR) * noise
    return market_of(start * np.exp(np.cumsum(steps)))


def live(market: bt.Market, policy: bt.Policy, **settings: Any) -> bt.Result:
    """Run without costs."""
    settings = {"venue": free_venue(), "account": bt.Account(), **settings}
    return bt.run(market, policy, **settings)


def find_touches(position, price, low, high, bars):
    """Return whether each close's liquidation price is touched in so many bars, and is known."""
    lowest = pd.Series(low).rolling(bars).min().shift(-bars).to_numpy()
    highest = pd.Series(high).rolling(bars).max().shift(-bars).to_numpy()

    is_known = ~np.isnan(lowest) & ~np.isnan(price) & (position != 0.0)
    is_touched = np.where(position > 0.0, lowest <= price, highest >= price)
    return is_touched & is_known, is_known


class Hold(bt.Policy):
    """A constant leverage, which may be infinite."""

    level: Annotated[float, bt.Range(0.0, 1e9, "turns")] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the level."""
        return self.level


class Once(bt.Policy):
    """Take a leverage at the first close, and leave the position alone afterwards."""

    level: Annotated[float, bt.Range(0.0, 100.0, "turns")] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the level in the first day's first hour, then NaN."""
        return self.level if account.days < 1.5 / 24.0 else float("nan")


def make_market(rows: Sequence[Sequence[float]], start: str = "2024-01-01", **more):
    """Return an hourly market of rows (open, high, low, close)."""
    index = pd.date_range(start, periods=len(rows), freq="1h", tz="UTC")
    bars = pd.DataFrame(rows, columns=["open", "high", "low", "close"], index=index)
    bars["volume"] = 1e6
    return bt.Market.from_frames(bars, **more)


def flat(price: float) -> tuple[float, float, float, float]:
    """Return a bar that stays at a price."""
    return (price, price, price, price)


def make_venue(**more) -> bt.Venue:
    """Return a venue without costs, maintenance 5 %, leverage up to 20, closing."""
    terms = {
        "taker": 0.0, "slippage": 0.0, "maintenance_rate": 0.05, "max_leverage": 20.0,
        "liquidation_fee": 0.0,
    }  # fmt: skip
    return bt.Venue.simple(**{**terms, **more})


class Loud(bt.Policy):
    """Hold a leverage, and raise where it is over 4."""

    least: Annotated[float, bt.Range(-5.0, 5.0)] = 1.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return the level."""
        if self.least > 4.0:
            raise ValueError("too loud")
        return self.least


def simulate_pair(n: int = 600, seed: int = 0) -> bt.Markets:
    """Return two wild markets with funding, the second listed later and delisted earlier."""
    rng = np.random.default_rng(seed)
    index = pd.date_range("2024-01-01", periods=n, freq="1h", tz="UTC")
    markets = {}

    for name, first, stop in (("AAA", 0, n), ("BBB", n // 10, n - n // 10)):
        close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.02, n)))
        start = np.concatenate(([100.0], close[:-1]))
        wick = 1.0 + np.abs(rng.normal(0.0, 0.01, (2, n)))

        bars = {
            "open": start,
            "high": np.maximum(start, close) * wick[0],
            "low": np.minimum(start, close) / wick[1],
            "close": close,
            "volume": 1e5,
        }

        frame = pd.DataFrame(bars, index=index).iloc[first:stop]

        stamps = frame.index[::8]
        funding = pd.DataFrame({"rate": rng.normal(0.0, 1e-3, len(stamps))}, index=stamps)
        markets[name] = bt.Market.from_frames(frame, funding=funding)

    return bt.Markets(markets, currency="USDT")


MY_POLICY = '''
import backtest as bt


class Mine(bt.Policy):
    """Hold one."""

    def leverage(self, bar, account):
        return 1.0


class Other(bt.Policy):
    """Hold two."""

    def leverage(self, bar, account):
        return 2.0
'''


def check_refused(
    make: Callable[[], object], words: str, kind: type[BacktestError] = BacktestError
) -> None:
    """Require an error with one of the words, which ``|`` separates."""
    with pytest.raises(kind) as caught:
        make()
    message = str(caught.value)
    assert any(part in message for part in words.split("|")), caught.value


def override(words: Sequence[str], *flags: str) -> list[str]:
    """Return the words of a command with flags, in the place of those of the same name."""
    replaced = {flag for flag in flags if flag.startswith("--")}

    kept = []
    for before, word in pairwise(["", *words]):
        is_value = before in replaced and not word.startswith("--")
        if word not in replaced and not is_value:
            kept.append(word)

    return [*kept, *flags]


printing.EVERY = 1e6  # no line of progress among errors, however busy the machine is


def call(capsys, *words: object) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it printed, on both streams."""
    code = main(list(map(str, words)))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def ask(capsys, *words: object, code: int = 0) -> Any:
    """Run a command with ``--json``; return what it printed."""
    ended, out, err = call(capsys, *words, "--json")
    assert ended == code, err
    return json.loads(out)


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every file in a folder and those below, by the path inside it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def run_python(code: str) -> str:
    """Run code in a process of its own; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    return done.stdout.strip()


def compare_policies(market: Any, policies: Mapping[str, Any], **settings: Any) -> bt.Comparison:
    """Return the comparison of policies, or of results among them, by name."""
    rules = {name: settings.pop(name) for name in RULES if name in settings}

    results = {}
    for name, policy in policies.items():
        if isinstance(policy, bt.Result):
            results[name] = policy
        else:
            results[name] = bt.run(market, policy, **settings)

    return bt.compare(results, **{"draws": 99, **rules})


def ask_test(method: str, market: Any, *given: Any, **terms: Any) -> Any:
    """Make a test of a market and those terms that are its fields; call a method with the rest."""
    taken = {"start"} if method == "replay" else set()  # its start may be a snapshot
    fields = {name: terms.pop(name) for name in FIELDS if name in terms.keys() - taken}
    return getattr(bt.Backtest(market, **fields), method)(*given, **terms)


def risk_of(paths: bt.Paths, policy: Any, **terms: Any) -> bt.LiquidationRisk:
    """Return the risk of liquidation of a test of the paths' own history, on these paths."""
    return ask_test("liquidation_risk", paths.history, policy, paths=paths, **terms)


def slow(cases: Iterable[Any]) -> list[Any]:
    """Return cases of a parametrized test that are marked slow: those like one that is not. A case
    of several arguments is a plain tuple."""
    marked = []
    for case in cases:
        arguments = case if type(case) is tuple else (case,)
        marked.append(pytest.param(*arguments, marks=pytest.mark.slow))
    return marked


def check_lanes_are_each_alone(estimate: Estimate, market: Market, values: np.ndarray) -> None:
    """Assert that each value among many has the bits it has alone, wherever it stands."""
    whole = estimate(market, values)
    assert whole.shape == (market.n_bars, len(values))
    assert whole.dtype == np.float64
    assert whole.flags.c_contiguous

    for k, value in enumerate(values):
        assert whole[:, k].tobytes() == estimate(market, value).tobytes()

    for n in (1, 2, 7, 8, 9, 31):
        assert estimate(market, values[:n]).tobytes() == whole[:, :n].tobytes()

    assert estimate(market, values[::-1]).tobytes() == whole[:, ::-1].tobytes()


def check_knows_the_past_only(
    estimate: Estimate, market: Market, values: np.ndarray, cuts: tuple[int, ...]
) -> None:
    """Assert that the first n bars have the same bits, whatever comes after them."""
    whole = estimate(market, values)
    for n in cuts:
        assert estimate(market.prefix(n), values).tobytes() == whole[:n].tobytes()

        other = estimate(rewrite_after(market, n - 1, np.random.default_rng(n)), values)
        assert other[:n].tobytes() == whole[:n].tobytes()

        if np.isfinite(whole[-1]).all() and n < market.n_bars - 20:
            assert (other[n + 1 :] != whole[n + 1 :]).any()
