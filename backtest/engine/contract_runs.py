"""Checks of a policy's runs: finite, repeatable, the same compiled, without lookahead."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest.account import Account
from backtest.base import FloatArray, PolicyError, compiling_first, format_time, repr_plain
from backtest.engine.contract_options import hold_options, list_options
from backtest.engine.lookahead import Causality, make_futures, observe, observe_checked
from backtest.engine.result import Result
from backtest.engine.run import run
from backtest.market import Market
from backtest.measures import flatten_tally
from backtest.policy import Policy, sets_margin, trades_options
from backtest.venue import Bracket, Contract, Fees, Liquidation, Slippage, Venue

EFFORT = 8
"""Cuts of the check for look-ahead, as a multiple of those of a run."""
STEADY = "use no random numbers, no clock, and no state but the memory"
SAMPLES = (1200, 2400, 4800, 9600)
"""Bars of the sample market: the first of these in whose first half the policy decides."""

ACCOUNTS = ("cross", "isolated", "inverse")


class BrokenContractError(Exception):
    """A policy breaks its contract."""


class Situation(NamedTuple):
    """An account at a venue with its signal: None, or an array of shape (n_bars,)."""

    name: str
    venue: Venue
    account: Account
    signal: FloatArray | None


@dataclass(frozen=True, eq=False)
class ContractTrial:
    cls: type[Policy]
    market: Market
    accounts: tuple[str, ...] = ACCOUNTS

    @cached_property
    def policy(self) -> Policy:
        return self.cls()

    @cached_property
    def looked(self) -> tuple[dict[str, FloatArray], Causality | PolicyError]:
        """The columns, and how they were checked or why they are refused."""
        try:
            return observe_checked(self.policy, self.market, effort=EFFORT)
        except PolicyError as error:
            return observe(self.policy, self.market), error

    @property
    def columns(self) -> dict[str, FloatArray]:
        return self.looked[0]

    @cached_property
    def is_warm(self) -> npt.NDArray[np.bool_]:
        is_warm = np.ones(self.market.n_bars, dtype=np.bool_)
        for column in self.columns.values():
            is_warm &= np.isfinite(column)
        return is_warm

    @cached_property
    def situations(self) -> tuple[Situation, ...]:
        every = make_situations(self.market.n_bars)
        if sets_margin(self.cls):  # of positions with a margin of their own
            terms: dict[str, Any] = {"margin": "isolated", "venue_leverage": 20.0}
            moved = (each._replace(account=replace(each.account, **terms)) for each in every)
            every = tuple(each for each in moved if "cross" not in each.name)
        chosen = tuple(each for each in every if each.name.split()[0] in self.accounts)
        if not trades_options(self.cls):
            return chosen
        held = ((each, *hold_options(each.venue, each.account)) for each in chosen)
        return tuple(each._replace(venue=venue, account=own) for each, venue, own in held)

    @cached_property
    def plain(self) -> Result:
        return self.run(self.market, self.situations[0])

    def run(self, market: Market, situation: Situation, *, is_compiled: bool = False) -> Result:
        signal, is_coin = situation.signal, situation.venue.contract.kind == "inverse"
        return run(
            list_options(market, self.market.end, is_coin=is_coin)
            if trades_options(self.cls)
            else market,
            self.policy,
            venue=situation.venue,
            account=situation.account,
            signal=None if signal is None else signal[: market.n_bars],
            calendar="252" if market.sessions else "365",
            compile=is_compiled,
        )

    def find_first_decision(self) -> int:
        """Return the first bar with a leverage, after the last if there is none."""
        is_decided = self.is_warm & ~np.isnan(self.plain.of_positions("target")[:, 0])
        return int(is_decided.argmax()) if is_decided.any() else self.market.n_bars

    def name_bar(self, t: int) -> str:
        return f"bar {t}, {format_time(int(self.market.time[t]))}"


def make_situations(n_bars: int) -> tuple[Situation, ...]:
    venue = Venue.preset("binance-usdm", "BTCUSDT")
    coin = Venue(
        contract=Contract(kind="inverse", size=100.0, lot=1.0, tick=0.1, min_notional=0.0),
        brackets=[Bracket(0.0, 5.0, 100.0, 0.005), Bracket(5.0, 1e6, 50.0, 0.01)],
        fees=Fees(taker=5e-4, maker=1e-4),
        slippage=Slippage(rate=1e-4),
        liquidation=Liquidation(mode="partial", fee=0.005, slippage=0.002),
    )
    flips = np.array([1.0, -1.0, 0.5, 0.0])[np.arange(n_bars) // 37 % 4]
    isolated = Account(margin="isolated", venue_leverage=20.0, band=0.05)
    return (
        Situation("cross margin", venue, Account(), None),
        Situation("isolated margin, signal with flips", venue, isolated, flips),
        Situation("inverse contract", coin, Account(capital=1.0), None),
    )


def choose_trial(
    policy_class: type[Policy], market: Market | None, accounts: tuple[str, ...]
) -> ContractTrial:
    """Return a trial on the market given, or on a sample longer than what the policy needs."""
    if market is not None:
        most = market.prefix(min(market.n_bars, SAMPLES[-1]))
        return ContractTrial(policy_class, most, accounts)
    for bars in SAMPLES:
        trial = ContractTrial(policy_class, make_sample(bars), accounts)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                is_long = trial.find_first_decision() <= bars // 2 or trades_options(policy_class)
        except (Exception, SystemExit):  # the checks report it
            break
        if is_long:
            break
    return trial


def make_sample(bars: int) -> Market:
    market = Market.sample(bars=bars)
    return market.with_columns(implied_volatility=0.5 + 10.0 * np.log(market.high / market.low))


# ---------------------------------------------------------------------------------- the checks


def check_columns(trial: ContractTrial) -> str:
    if not trial.columns:
        return "observes nothing"
    again = observe(trial.policy, trial.market)
    for name, column in trial.columns.items():
        bad = find_difference(column, again.get(name, np.empty(0)))
        if bad is not None:
            raise BrokenContractError(
                f"column {name!r} at {trial.name_bar(bad)} differs between two calls: {STEADY}"
            )
    if not trial.is_warm.any():
        never = [name for name, column in trial.columns.items() if not np.isfinite(column).any()]
        raise BrokenContractError(
            f"{', '.join(never) or 'the columns together'} never known in "
            f"{trial.market.n_bars} bars: give a longer market, or shorter windows as defaults"
        )
    first = int(np.argmax(trial.is_warm))
    return f"observes {', '.join(trial.columns)}, known from bar {first} on"


def check_causal_columns(trial: ContractTrial) -> str:
    found = trial.looked[1]
    if isinstance(found, PolicyError):
        raise found
    rng = np.random.default_rng(0)
    for t in choose_ends(trial):
        for what, market in make_futures(trial.market, t, rng):
            seen = observe(trial.policy, market)
            if seen.keys() != trial.columns.keys():
                raise BrokenContractError(
                    f"observes {', '.join(seen)} {what} {t}, {', '.join(trial.columns)} before"
                )
            for name, column in trial.columns.items():
                bad = find_difference(column[: t + 1], seen[name][: t + 1])
                if bad is not None:
                    raise BrokenContractError(
                        f"looks ahead: column {name!r} at {trial.name_bar(bad)} is "
                        f"{repr_plain(column[bad])}, but {repr_plain(seen[name][bad])} {what} {t}. "
                        "Use only values up to each bar: "
                        "rolling and ewm, not mean() of all, not shift(-1), no centered windows"
                    )
    if not trial.columns:
        return "observes nothing"
    return f"the same columns, whatever comes after; {found}"


def choose_ends(trial: ContractTrial) -> list[int]:
    n = trial.market.n_bars
    warm = int(np.argmax(trial.is_warm))
    cuts = {warm + 1, *(warm + (n - warm) * k // 4 for k in (1, 2, 3)), n - 2}
    return sorted(t for t in cuts if 1 <= t <= n - 2)


# -------------------------------------------------------------------------- as a decision maker


def check_runs(trial: ContractTrial) -> str:
    results = [trial.plain, *(trial.run(trial.market, each) for each in trial.situations[1:])]
    return ", ".join(
        f"{situation.name}: mean leverage {result.metrics['mean_leverage']:.3g}"
        for situation, result in zip(trial.situations, results, strict=True)
    )


def check_finite(trial: ContractTrial) -> str:
    target, equity = trial.plain.of_positions("target")[:, 0], trial.plain.of_account("equity")
    asked = trial.is_warm & (equity > 0.0)
    infinite = np.flatnonzero(asked & np.isinf(target))
    if len(infinite):
        raise BrokenContractError(
            f"infinite at {len(infinite)} of {asked.sum()} decisions, first at "
            f"{trial.name_bar(int(infinite[0]))}: return a finite leverage"
        )
    known = asked & np.isfinite(target)
    if not known.any() and not trades_options(trial.cls):
        raise BrokenContractError(
            f"it never decides: its leverage is NaN at all {asked.sum()} closes of "
            f"{trial.market.n_bars} bars"
        )
    if known.sum() < asked.sum():
        return f"finite at {known.sum()} of {asked.sum()} decisions, NaN (no change) at the others"
    return f"finite at all {asked.sum()} decisions"


def check_repeatable(trial: ContractTrial) -> str:
    again = ContractTrial(trial.cls, trial.market, trial.accounts)
    targets = (each.plain.of_positions("target")[:, 0] for each in (again, trial))
    bad = find_difference(*targets)
    if bad is not None:
        raise BrokenContractError(
            f"the leverage at {trial.name_bar(bad)} differs between two runs: {STEADY}"
        )
    return "the same bits twice"


def check_compiled(trial: ContractTrial) -> str:
    for situation in trial.situations:
        with warnings.catch_warnings(record=True) as caught, compiling_first():
            warnings.simplefilter("always")
            compiled = trial.run(trial.market, situation, is_compiled=True)
        reason = compiled.manifest["compiled"]
        if reason != "yes":
            if len(caught) != 1:
                raise BrokenContractError(f"{len(caught)} warnings where one says: {reason}")
            return f"runs in plain Python only: {reason}"
        is_done = situation is trial.situations[0]
        plain = trial.plain if is_done else trial.run(trial.market, situation)
        compare_runs(trial, situation, compiled, plain)
    names = ", ".join(situation.name for situation in trial.situations)
    return f"compiled; the same bits in: {names}"


def compare_runs(
    trial: ContractTrial, situation: Situation, compiled: Result, plain: Result
) -> None:
    advice = (
        "in leverage use math.log, math.exp, math.sqrt and so on rather than numpy's functions or "
        "** 0.5, whose last bit may differ once compiled"
    )
    ours, theirs = compiled.of_positions("target")[:, 0], plain.of_positions("target")[:, 0]
    bad = find_difference(ours, theirs)
    if bad is not None:
        one, other = ours[bad], theirs[bad]
        raise BrokenContractError(
            f"{situation.name}: the leverage at {trial.name_bar(bad)} is {repr_plain(one)} "
            f"compiled, {repr_plain(other)} in plain Python; {advice}"
        )
    pairs: dict[str, tuple[FloatArray, FloatArray]] = {
        "record": (compiled.record.values, plain.record.values),
        "events": (np.asarray(compiled.entries), np.asarray(plain.entries)),
        "measures": (list_measures(compiled), list_measures(plain)),
    }
    for name, (ours, theirs) in pairs.items():
        if find_difference(ours.ravel(), theirs.ravel()) is not None:
            raise BrokenContractError(
                f"{situation.name}: the {name} differ compiled and in plain Python, though the "
                "leverage does not: this is a defect of the engine, please report it"
            )


def check_causal_decisions(trial: ContractTrial) -> str:
    rng = np.random.default_rng(1)
    situation = trial.situations[0]
    for t in choose_ends(trial)[1::2]:
        for what, market in make_futures(trial.market, t, rng):
            result = trial.run(market, situation)
            for column, word in (("target", "leverage"), ("margin", "margin")):
                seen = [each.of_positions(column)[:, 0][: t + 1] for each in (trial.plain, result)]
                bad = find_difference(*seen)
                if bad is not None:
                    raise BrokenContractError(
                        f"looks ahead: the {word} at {trial.name_bar(bad)} differs {what} {t}"
                    )
            compare_held(trial, result, t, f"{what} {t}")
    return "the same decisions, whatever comes after"


def compare_held(trial: ContractTrial, result: Result, t: int, what: str) -> None:
    if not trades_options(trial.cls):
        return
    columns, end = ["time", "instrument", "quantity"], trial.plain.bars.index[t]
    ours, theirs = (
        each.positions.loc[each.positions["time"] <= end, columns]
        .astype({"instrument": str}).sort_values(columns[:2]).reset_index(drop=True)
        for each in (trial.plain, result)
    )  # fmt: skip
    if not ours.equals(theirs):
        raise BrokenContractError(f"looks ahead: the options held up to bar {t} differ {what}")


def list_measures(result: Result) -> FloatArray:
    return np.array(list(flatten_tally(result.tally).values()), dtype=float)


def find_difference(one: FloatArray, other: FloatArray) -> int | None:
    n = min(len(one), len(other))
    x, y = one[:n], other[:n]
    is_same = (x.view(np.int64) == y.view(np.int64)) | (np.isnan(x) & np.isnan(y))
    if not is_same.all():
        return int(np.argmin(is_same))
    return None if len(one) == len(other) else n
