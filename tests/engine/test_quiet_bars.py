"""Quiet bars, taken in one pass, have the bits of the general steps of a bar."""

from typing import Annotated, Any

import numpy as np
import pytest

import backtest as bt
from backtest.engine import loop
from backtest.strategies import Constant, VolTarget
from tests.kit import slow

SIMPLE = bt.Venue.simple(
    taker=5e-4, slippage=1e-4, maintenance_rate=0.005, max_leverage=100, liquidation_fee=0.0125
)
BRACKETS = bt.Venue(
    contract=bt.Contract(kind="linear", size=1.0, lot=0.001, tick=0.01, min_notional=5.0),
    brackets=[
        bt.Bracket(floor=0.0, cap=5e3, max_leverage=100.0, maintenance_rate=0.004),
        bt.Bracket(floor=5e3, cap=2e4, max_leverage=50.0, maintenance_rate=0.01),
        bt.Bracket(floor=2e4, cap=1e9, max_leverage=10.0, maintenance_rate=0.05),
    ],
    fees=bt.Fees(taker=5e-4, maker=0.0, maker_share=0.0),
    slippage=bt.Slippage(rate=1e-4),
    liquidation=bt.Liquidation(mode="close", fee=0.0125, slippage=0.0),
)
INVERSE = bt.Venue(
    contract=bt.Contract(kind="inverse", size=100.0, lot=1.0, tick=0.5, min_notional=0.0),
    brackets=[bt.Bracket(floor=0.0, cap=1e9, max_leverage=100.0, maintenance_rate=0.005)],
    fees=bt.Fees(taker=5e-4, maker=0.0, maker_share=0.0),
    slippage=bt.Slippage(rate=1e-4),
    liquidation=bt.Liquidation(mode="close", fee=0.0125, slippage=0.0),
)


class Careful(bt.Policy):
    """Hold less while the account is down, its margin is short, or its liquidation is near."""

    most: Annotated[float, bt.Range(0.1, 90.0)] = 3.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return half of the most in danger, else the most."""
        is_short = account.margin_ratio > 0.016 or account.drawdown > 0.01
        if is_short or bar.close < account.liquidation_price * 1.4:
            return self.most * 0.5
        return self.most


ACCOUNTS: dict[str, tuple[bt.Policy, bt.Venue, bt.Account]] = {
    "a band": (VolTarget(), SIMPLE, bt.Account(band=0.02)),
    "a fill at every bar": (VolTarget(), SIMPLE, bt.Account(band=0.0)),
    "no trade": (Constant(), SIMPLE, bt.Account(band=5.0)),
    "three brackets": (Constant(15.0), BRACKETS, bt.Account(band=0.3)),
    "liquidations": (Constant(90.0), SIMPLE, bt.Account(band=1.0)),
    "limits of leverage": (
        VolTarget(target=2.0), BRACKETS, bt.Account(band=0.05, max_leverage=3.0, min_leverage=1.5),
    ),
    "stops": (VolTarget(), SIMPLE, bt.Account(band=0.0, stop_loss=0.003)),
    "isolated": (
        VolTarget(), SIMPLE, bt.Account(band=0.0, margin="isolated", venue_leverage=10.0),
    ),
    "isolated, near its liquidation": (
        Constant(30.0), BRACKETS, bt.Account(band=0.2, margin="isolated", venue_leverage=45.0),
    ),
    "inverse": (VolTarget(target=0.8), INVERSE, bt.Account(band=0.0, capital=1.0)),
    "a policy that reads its margin": (Careful(), BRACKETS, bt.Account(band=0.02)),
    "orders too small": (VolTarget(target=0.8), BRACKETS, bt.Account(band=0.0, capital=100.0)),
    "a limit of the day's loss": (VolTarget(), SIMPLE, bt.Account(band=0.02, daily_loss=0.02)),
}  # fmt: skip


def list_bytes(
    account: tuple[bt.Policy, bt.Venue, bt.Account],
    signal: float | dict[str, float],
    market: bt.Market | bt.Markets | None = None,
) -> dict[str, Any]:
    """Run an account; return the bytes of its record and log, and its measures as text."""
    policy, venue, terms = account
    market = market or bt.Market.sample(bars=500, interval="15m")
    result = bt.run(market, policy, venue=venue, account=terms, signal=signal, compile=False)

    listed: dict[str, Any] = {"entries": np.asarray(result.entries).tobytes()}
    for columns in (result.record.account._asdict(), result.record.positions._asdict()):
        for name, values in columns.items():
            listed[name] = np.asarray(values).tobytes()
    for name, value in dict(result.metrics).items():
        listed[name] = repr(value)
    return listed


def take_general_steps(_terms: Any, _feed: Any, deciders: Any, state: Any) -> bool:
    loop.begin_peak(deciders, state)
    return False


@pytest.mark.parametrize("signal", [1.0, *slow([-1.0])], ids=["long", "short"])
@pytest.mark.parametrize("name", ACCOUNTS)
def test_quiet_bars_have_the_bits_of_the_general_steps(
    name: str, signal: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = list_bytes(ACCOUNTS[name], signal)

    monkeypatch.setattr(loop, "begin_bars", take_general_steps)
    general = list_bytes(ACCOUNTS[name], signal)
    assert quiet == general


DEAR: dict[str, tuple[bt.Policy, bt.Venue, bt.Account]] = {
    "cross, until it is ruined": (Constant(60.0), SIMPLE, bt.Account(band=0.3)),
    "isolated, from its margin": (
        Constant(3.0), SIMPLE, bt.Account(band=0.3, margin="isolated", venue_leverage=60.0),
    ),
    "isolated, from the wallet": (
        Constant(3.0), SIMPLE.override(isolated_funding="wallet"),
        bt.Account(band=0.3, margin="isolated", venue_leverage=60.0),
    ),
    "inverse, with a stop": (
        Constant(20.0), INVERSE, bt.Account(band=0.3, capital=1.0, stop_loss=0.003),
    ),
    "a policy that reads its margin": (Careful(most=60.0), SIMPLE, bt.Account(band=0.3)),
}  # fmt: skip
"""Accounts that funding of a percent takes to their limits."""
UNDONE = ("isolated, from its margin", "inverse, with a stop")
"""Those that a bar with funding liquidates or stops."""


def make_dear(bars: int) -> bt.Market:
    """Return a market with funding of a percent, in turn at, inside and twice in a bar."""
    market = bt.Market.sample(bars=bars, interval="15m", seed=3)
    step = market.interval
    at_open = market.time[4::9]
    times = np.unique([*at_open, *(market.time[9::27] + step // 2), *(at_open[::4] + step // 3)])
    rates = 0.01 * np.random.default_rng(0).standard_normal(len(times))
    fields = market.fields() | {"funding_time": times, "funding_rate": rates}
    fields |= {"funding_mark": np.full(len(times), np.nan), "source": "dear funding"}
    return bt.Market(**fields)


@pytest.mark.parametrize("name", DEAR)
def test_bars_with_funding_have_the_bits_of_the_general_steps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Funding is undone, and paid by the general steps, where more than it happens in the bar."""
    market = make_dear(400)
    ways: set[int] = set()
    undone: list[int] = []
    take_quietly = loop.take_quietly
    put_back = loop.a.put_back

    def note(*given: Any) -> tuple[int, float, float]:
        taken = take_quietly(*given)
        ways.add(taken[0])
        return taken

    def note_undone(*given: Any) -> None:
        undone.append(1)
        put_back(*given)

    monkeypatch.setattr(loop, "take_quietly", note)
    monkeypatch.setattr(loop.a, "put_back", note_undone)

    quiet = list_bytes(DEAR[name], 1.0, market)
    assert loop.a.PAID in ways
    assert bool(undone) == (name in UNDONE)

    monkeypatch.setattr(loop, "begin_bars", take_general_steps)
    general = list_bytes(DEAR[name], 1.0, market)
    assert quiet == general


@pytest.mark.parametrize("name", [name for name in ACCOUNTS if "day" not in name])
def test_accounts_of_one_position_pass_quietly(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above compares two ways only where the first one is taken."""
    answers: list[bool] = []
    may_pass = loop.may_pass_quiet

    def note(*given: Any) -> bool:
        answers.append(may_pass(*given))
        return answers[-1]

    monkeypatch.setattr(loop, "may_pass_quiet", note)

    list_bytes(ACCOUNTS[name], 1.0)
    assert answers == [True]


def make_three(bars: int) -> bt.Markets:
    """Return three markets: one is listed later, one is not to the end."""
    first = bt.Market.sample(bars=bars, interval="15m", seed=0)
    late = bt.Market.sample(bars=bars, interval="15m", seed=1).slice(40, bars)
    ends = bt.Market.sample(bars=bars, interval="15m", seed=2).slice(0, bars - 60)
    return bt.Markets({"ONE": first, "LATE": late, "ENDS": ends})


SEVERAL: dict[str, tuple[bt.Policy, bt.Venue, bt.Account]] = {
    "a band": (VolTarget(target=0.3), SIMPLE, bt.Account(band=0.02)),
    "a fill at every bar": (VolTarget(), SIMPLE, bt.Account(band=0.0)),
    "a cap of gross leverage": (
        VolTarget(), SIMPLE, bt.Account(band=0.05, max_gross_leverage=1.2),
    ),
    "brackets and liquidations": (Constant(12.0), BRACKETS, bt.Account(band=0.2)),
    "stops": (VolTarget(), SIMPLE, bt.Account(band=0.0, stop_loss=0.004)),
    "isolated": (
        Constant(6.0), BRACKETS, bt.Account(band=0.05, margin="isolated", venue_leverage=20.0),
    ),
    "a policy that reads its margin": (Careful(), BRACKETS, bt.Account(band=0.02)),
    "orders too small": (VolTarget(target=0.8), BRACKETS, bt.Account(band=0.0, capital=300.0)),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:the history of ENDS ends before")
@pytest.mark.parametrize("name", SEVERAL)
def test_quiet_bars_of_several_positions_have_the_bits_of_the_general_steps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    markets = make_three(240)
    signal = {"ONE": 1.0, "LATE": -1.0, "ENDS": 0.5}
    ways: set[int] = set()
    take_together = loop.a.take_together

    def note(*given: Any) -> int:
        how = take_together(*given)
        ways.add(how)
        return how

    monkeypatch.setattr(loop.a, "take_together", note)

    quiet = list_bytes(SEVERAL[name], signal, markets)
    assert {loop.a.QUIET, loop.a.FILLED} & ways  # some bars were taken so

    monkeypatch.setattr(loop, "begin_bars", take_general_steps)
    general = list_bytes(SEVERAL[name], signal, markets)
    assert quiet == general
