"""A policy on a market and on the accounts that its contract is checked with."""

from __future__ import annotations

import warnings
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
from backtest.policies.lookahead import observe
from backtest.results.result import Result

EVERY = 21
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
    begin, price = pd.Timestamp(market.time[0], tz="UTC"), float(market.close[0])
    settlement = "coin" if is_coin else "cash"
    days = range(EVERY, int((end - begin.value) / DAY) + 2 * EVERY + 1, EVERY)
    options = [
        venues.Option(
            kind=kind,
            strike=float(f"{share * price:.3g}"),
            expiry=str(begin + pd.Timedelta(days=day)),
            underlying="X",
            settlement=settlement,
        )
        for day in days
        for share in STRIKES
        for kind in ("call", "put")
    ]
    stamp, nothing = begin - pd.Timedelta(1), pd.DataFrame()
    ends = pd.to_timedelta([EVERY, days[-1]], unit="D")
    years = ends / pd.Timedelta(days=YEAR_DAYS)
    fits = pd.DataFrame({"expiry": stamp + ends, "years": years, "forward": price})
    smiles = tuple(SVI(VOLATILITY**2 * each, 0.0, 0.0, 0.0, 0.1) for each in years)
    unread: Any = None  # it was fitted to no chain
    surface = Surface(stamp, "X", "svi", smiles, fits, nothing, price, settlement, nothing, unread)
    surfaces = Surfaces((surface,), pd.DataFrame(columns=["time", "reason"]))
    listed = {str(each.name): each for each in options}
    return Markets({"X": market, **listed}, surfaces={"X": surfaces}, max_age="10000d")


SAMPLES = (1200, 2400, 4800, 9600)
"""Bars of the sample market: the first of these in whose first half the policy decides."""

ACCOUNTS = ("cross", "isolated", "inverse")


class Situation(NamedTuple):
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
    cls: type[policies.Policy]
    market: Market
    accounts: tuple[str, ...] = ACCOUNTS
    terms: Terms | None = None
    known: dict[str, Result] = field(default_factory=dict)  # by situation, of the market as it is

    @cached_property
    def policy(self) -> policies.Policy:
        return self.cls()

    @cached_property
    def columns(self) -> dict[str, core.FloatArray]:
        return observe(self.policy, self.market)

    @cached_property
    def is_warm(self) -> npt.NDArray[np.bool_]:
        known = [np.isfinite(column) for column in self.columns.values()]
        return np.asarray(np.all([np.ones(self.market.n_bars, dtype=np.bool_), *known], axis=0))

    @cached_property
    def situations(self) -> tuple[Situation, ...]:
        if self.terms is not None:
            return (Situation("the account as given", *self.terms, None),)
        terms, costs = dict[str, Any](), dict[str, Any]()
        moves_margin = policies.sets_margin(self.cls)
        if moves_margin:  # of positions with a margin of their own
            terms |= {"margin": "isolated", "venue_leverage": 20.0}
        if any(name == "stop_distance" for _, name in list_terms(self.cls)):
            terms["stop_loss"] = 0.05
        if policies.trades_options(self.cls):
            terms |= {"margin": "cross", "venue_leverage": None, "requirement": "deribit-standard"}
            costs = {"option_costs": COSTS}
        venue = venues.Venue.preset("binance-usdm", "BTCUSDT")
        coin = venues.Venue(
            contract=venues.Contract(
                kind="inverse", size=100.0, lot=1.0, tick=0.1, min_notional=0.0
            ),
            brackets=[venues.Bracket(0.0, 5.0, 100.0, 0.005), venues.Bracket(5.0, 1e6, 50.0, 0.01)],
            fees=venues.Fees(taker=5e-4, maker=1e-4),
            slippage=venues.Slippage(rate=1e-4),
            liquidation=venues.Liquidation(mode="partial", fee=0.005, slippage=0.002),
        )
        flips = np.array([1.0, -1.0, 0.5, 0.0])[np.arange(self.market.n_bars) // 37 % 4]
        isolated = Account(margin="isolated", venue_leverage=20.0, band=0.05)
        situations = (
            Situation("cross margin", venue, Account(), None),
            Situation("isolated margin, signal with flips", venue, isolated, flips),
            Situation("inverse contract", coin, Account(capital=1.0), None),
        )
        return tuple(
            each._replace(venue=each.venue.override(costs), account=replace(each.account, **terms))
            for each in situations
            if each.name.split()[0] in self.accounts and not (moves_margin and "cross" in each.name)
        )

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
        return tuple(each for each in self.situations if holds(self.find(each)))

    @property
    def target(self) -> core.FloatArray:
        return self.plain.of_positions("target")[:, 0]

    def run(self, market: Market, situation: Situation, *, compiled: Compile = False) -> Result:
        signal, is_coin = situation.signal, situation.venue.contract.kind == "inverse"
        has_options = policies.trades_options(self.cls)
        conditions = Conditions(
            list_options(market, self.market.end, is_coin=is_coin) if has_options else market,
            venue=situation.venue,
            account=situation.account,
            signal=None if signal is None else signal[: market.n_bars],
        )
        return run(conditions, self.policy, compile=compiled)

    def name_bar(self, t: int) -> str:
        return f"bar {t}, {core.format_time(int(self.market.time[t]))}"

    def require_same(
        self, one: core.FloatArray, other: core.FloatArray, what: str, when: str
    ) -> None:
        bad = find_difference(one, other)
        if bad is not None:
            raise core.PolicyError(f"{what} at {self.name_bar(bad)} differs {when}")


def choose_trial(
    policy_class: type[policies.Policy],
    market: Market | None,
    accounts: tuple[str, ...],
    terms: Terms | None = None,
) -> ContractTrial:
    if market is not None:
        known = market.prefix(min(market.n_bars, SAMPLES[-1]))
        return ContractTrial(policy_class, known, accounts, terms)
    for bars in SAMPLES:
        sample = Market.sample(bars=bars)
        sample = sample.with_columns(
            implied_volatility=0.5 + 10.0 * np.log(sample.high / sample.low)
        )
        trial = ContractTrial(policy_class, sample, accounts, terms)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                is_decided = (trial.is_warm & ~np.isnan(trial.target))[: bars // 2 + 1]
                is_long = is_decided.any() or policies.trades_options(policy_class)
                is_long &= policy_class.may_hold_nothing or holds(trial.plain)
        except core.RAISED:  # the checks report it
            break
        if is_long:
            break
    return trial


def holds(result: Result) -> bool:
    return bool((result.positions["quantity"] != 0.0).any())


def find_difference(one: core.FloatArray, other: core.FloatArray) -> int | None:
    n = min(len(one), len(other))
    x, y = one[:n], other[:n]
    is_same = (x.view(np.int64) == y.view(np.int64)) | (np.isnan(x) & np.isnan(y))
    if not is_same.all():
        return int(np.argmin(is_same))
    return None if len(one) == len(other) else n
