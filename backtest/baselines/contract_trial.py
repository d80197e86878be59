"""A policy on a market and on the accounts that its contract is checked with."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest import core, policies
from backtest import venue as venues
from backtest.account import Account
from backtest.core.code_names import pd
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine.batch import Compile
from backtest.engine.conditions import Conditions
from backtest.engine.policies import list_terms
from backtest.engine.run import run
from backtest.market import Market, Markets
from backtest.options import SVI, Surface, Surfaces
from backtest.policies.observing import observe
from backtest.results.result import Result

DAYS_TO_EXPIRY = 21
"""Days from one expiry to the next."""
STRIKES = (0.85, 1.0, 1.2)
"""Strikes over the first close."""
VOLATILITY = 0.6
COSTS = venues.OptionCosts(
    fee=0.0003,
    fee_cap=0.125,
    delivery_fee=0.00015,
    delivery_cap=0.125,
    tick=0.0,
    spread=0.02,
    lot=0.0,
)


def list_options(market: Market, end: int, *, is_coin: bool) -> Markets:
    """Return a market with puts and calls under one flat surface, known before its first bar.

    They depend on the first close and on ``end`` (UTC ns), so that another future has the same.
    """
    begin = pd.Timestamp(market.time[0], tz="UTC")
    n_days = int((end - begin.value) / DAY)
    # The last expiries lie after the end of the market.
    days = range(DAYS_TO_EXPIRY, n_days + 2 * DAYS_TO_EXPIRY + 1, DAYS_TO_EXPIRY)
    settlement = "coin" if is_coin else "cash"

    price = float(market.close[0])
    listed: dict[str, Any] = {}
    for day in days:
        expiry = str(begin + pd.Timedelta(days=day))
        for share, kind in itertools.product(STRIKES, ("call", "put")):
            option = venues.Option(
                kind=kind,
                strike=float(f"{share * price:.3g}"),
                expiry=expiry,
                underlying="X",
                settlement=settlement,
            )
            listed[str(option.name)] = option

    surface = make_flat_surface(begin - pd.Timedelta(1), price, days, settlement)
    surfaces = Surfaces((surface,), pd.DataFrame(columns=["time", "reason"]))
    return Markets({"X": market, **listed}, surfaces={"X": surfaces}, max_age="10000d")


def make_flat_surface(
    time: pd.Timestamp,
    price: float,
    days: range,
    settlement: str,
) -> Surface:
    """Return a surface of one volatility from the first expiry to the last."""
    to_expiry = pd.to_timedelta([DAYS_TO_EXPIRY, days[-1]], unit="D")
    years = to_expiry / pd.Timedelta(days=YEAR_DAYS)
    fits = pd.DataFrame(
        {
            "expiry": time + to_expiry,
            "years": years,
            "forward": price,
        }
    )

    # SVI of a variance that does not depend on the strike: only its level is not 0.
    smiles = [SVI(VOLATILITY**2 * length, 0.0, 0.0, 0.0, 0.1) for length in years]
    none = pd.DataFrame()
    no_chain: Any = None  # it was fitted to no quotes
    return Surface(
        time=time,
        underlying="X",
        model="svi",
        smiles=tuple(smiles),
        fits=fits,
        left_out=none,
        index=price,
        settlement=settlement,
        quotes=none,
        chain=no_chain,
    )


SAMPLES = (1200, 2400, 4800, 9600)
"""Bars of the sample market: the first of these in whose first half the policy decides."""
ACCOUNTS = ("cross", "isolated", "inverse")
FLIPS = (1.0, -1.0, 0.5, 0.0)
"""Values of a signal that turns around, halves and closes positions."""
BARS_PER_FLIP = 37
"""A prime number: the flips fall on all hours of the day."""


class Situation(NamedTuple):
    """An account, its venue and its signal, with the name by which they are reported."""

    name: str
    venue: venues.Venue
    account: Account
    signal: core.FloatArray | None


class Terms(NamedTuple):
    """The venue and the account that a policy is checked on, in the place of the usual three."""

    venue: venues.Venue
    account: Account


@dataclass(frozen=True, eq=False)
class ContractTrial:
    """A policy class on a market, with the runs and columns that several checks ask for.

    ``known`` has the runs of the market as it is, by the name of their situation.
    """

    cls: type[policies.Policy]
    market: Market
    accounts: tuple[str, ...] = ACCOUNTS
    terms: Terms | None = None
    known: dict[str, Result] = field(default_factory=dict)

    @cached_property
    def policy(self) -> policies.Policy:
        return self.cls()

    @cached_property
    def columns(self) -> dict[str, core.FloatArray]:
        return observe(self.policy, self.market)

    @cached_property
    def is_warm(self) -> npt.NDArray[np.bool_]:
        """Whether all columns are known, at each bar."""
        is_warm = np.ones(self.market.n_bars, dtype=np.bool_)
        for column in self.columns.values():
            is_warm = is_warm & np.isfinite(column)
        return is_warm

    @cached_property
    def situations(self) -> tuple[Situation, ...]:
        """The accounts that a policy of this class can trade on."""
        if self.terms is not None:
            return (Situation("the account as given", *self.terms, signal=None),)

        costs: dict[str, Any] = {}
        if policies.trades_options(self.cls):
            costs["option_costs"] = COSTS
        changes = list_account_changes(self.cls)
        has_own_margin = policies.sets_margin(self.cls)

        situations = []
        for situation in list_usual_situations(self.market.n_bars):
            kind = situation.name.split()[0]
            if kind not in self.accounts or (has_own_margin and kind == "cross"):
                continue
            suited = situation._replace(
                venue=situation.venue.override(costs),
                account=replace(situation.account, **changes),
            )
            situations.append(suited)
        return tuple(situations)

    def find(self, situation: Situation) -> Result:
        """Return the run of a situation in plain Python, which is made once."""
        if situation.name not in self.known:
            self.known[situation.name] = self.run(self.market, situation)
        return self.known[situation.name]

    @property
    def plain(self) -> Result:
        return self.find(self.situations[0])

    @cached_property
    def tried(self) -> tuple[Situation, ...]:
        """The situations in which the policy held something."""
        return tuple(situation for situation in self.situations if holds(self.find(situation)))

    @property
    def target(self) -> core.FloatArray:
        return self.plain.of_positions("target")[:, 0]

    def run(
        self,
        market: Market,
        situation: Situation,
        *,
        compiled: Compile = False,
    ) -> Result:
        """Run the policy in a situation on a market that begins as the trial's does."""
        data: Market | Markets = market
        if policies.trades_options(self.cls):
            is_coin = situation.venue.contract.kind == "inverse"
            data = list_options(market, self.market.end, is_coin=is_coin)

        signal = situation.signal
        if signal is not None:
            signal = signal[: market.n_bars]
        conditions = Conditions(
            data,
            venue=situation.venue,
            account=situation.account,
            signal=signal,
        )
        return run(conditions, self.policy, compile=compiled)

    def name_bar(self, t: int) -> str:
        return f"bar {t}, {core.format_time(int(self.market.time[t]))}"

    def require_same(
        self,
        one: core.FloatArray,
        other: core.FloatArray,
        what: str,
        when: str,
    ) -> None:
        """Raise PolicyError if two columns differ in a bit, with the first such bar."""
        differing = find_difference(one, other)
        if differing is not None:
            raise core.PolicyError(f"{what} at {self.name_bar(differing)} differs {when}")


def list_account_changes(policy_class: type[policies.Policy]) -> dict[str, Any]:
    """Return what the account of a policy must have for all that the policy decides."""
    changes: dict[str, Any] = {}
    if policies.sets_margin(policy_class):  # of positions with a margin of their own
        changes |= {"margin": "isolated", "venue_leverage": 20.0}
    if any(name == "stop_distance" for _, name in list_terms(policy_class)):
        changes["stop_loss"] = 0.05

    # Options are margined together, in an account with cross margin.
    if policies.trades_options(policy_class):
        changes |= {
            "margin": "cross",
            "venue_leverage": None,
            "requirement": "deribit-standard",
        }
    return changes


def list_usual_situations(n_bars: int) -> tuple[Situation, ...]:
    """Return the three usual accounts; the first word of a name is that of :data:`ACCOUNTS`."""
    linear = venues.Venue.preset("binance-usdm", "BTCUSDT")
    inverse = venues.Venue(
        contract=venues.Contract(
            kind="inverse",
            size=100.0,
            lot=1.0,
            tick=0.1,
            min_notional=0.0,
        ),
        brackets=[
            venues.Bracket(0.0, 5.0, 100.0, 0.005),
            venues.Bracket(5.0, 1e6, 50.0, 0.01),
        ],
        fees=venues.Fees(taker=5e-4, maker=1e-4),
        slippage=venues.Slippage(rate=1e-4),
        liquidation=venues.Liquidation(mode="partial", fee=0.005, slippage=0.002),
    )
    isolated = Account(margin="isolated", venue_leverage=20.0, band=0.05)
    flips = np.array(FLIPS)[np.arange(n_bars) // BARS_PER_FLIP % len(FLIPS)]
    return (
        Situation("cross margin", linear, Account(), signal=None),
        Situation("isolated margin, signal with flips", linear, isolated, signal=flips),
        Situation("inverse contract", inverse, Account(capital=1.0), signal=None),
    )


def choose_trial(
    policy_class: type[policies.Policy],
    market: Market | None,
    accounts: tuple[str, ...],
    terms: Terms | None = None,
) -> ContractTrial:
    """Return a trial on the market, or on the shortest sample in which the policy decides."""
    if market is not None:
        first_bars = market.prefix(min(market.n_bars, SAMPLES[-1]))
        return ContractTrial(policy_class, first_bars, accounts, terms)

    for n_bars in SAMPLES:
        sample = Market.sample(bars=n_bars)
        sample = sample.with_columns(
            implied_volatility=0.5 + 10.0 * np.log(sample.high / sample.low)
        )
        trial = ContractTrial(policy_class, sample, accounts, terms)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                is_enough = is_trying(trial)
        except core.RAISED:  # the checks report it
            break
        if is_enough:
            break
    return trial


def is_trying(trial: ContractTrial) -> bool:
    """Return whether the policy decides in the first half of the market, and holds something.

    Policies of options decide nothing in leverage, and some may hold nothing.
    """
    half = trial.market.n_bars // 2 + 1
    is_decided = (trial.is_warm & ~np.isnan(trial.target))[:half]
    if not is_decided.any() and not policies.trades_options(trial.cls):
        return False
    return trial.cls.may_hold_nothing or holds(trial.plain)


def holds(result: Result) -> bool:
    return any(column.any() for _, column in list_quantities(result, len(result.time)))


def list_quantities(result: Result, n_bars: int) -> Iterator[tuple[str, core.FloatArray]]:
    """Yield the name and the contracts of each instrument and option, at the first closes.

    The table of positions has them too, but finds prices of liquidation first.
    """
    yield from zip(result.names, result.of_positions("quantity")[:n_bars].T, strict=True)
    if result.options is not None:
        quantity = result.options.record.quantity[:n_bars]
        yield from zip(result.options.names, quantity.T, strict=True)


def find_difference(one: core.FloatArray, other: core.FloatArray) -> int | None:
    """Return the first place at which two columns differ in a bit; None if nowhere.

    One NaN is the same as another. A longer column differs where the shorter one ends.
    """
    n = min(len(one), len(other))
    x = one[:n]
    y = other[:n]
    is_same = (x.view(np.int64) == y.view(np.int64)) | (np.isnan(x) & np.isnan(y))
    if not is_same.all():
        return int(np.argmin(is_same))
    return None if len(one) == len(other) else n
