"""Take an account with any positions through many paths, one after another."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Account, refuse_currencies
from backtest.account.ledger import CALLED, LIQUIDATED
from backtest.base import Either, FloatArray, ParameterError, Phrase
from backtest.engine import (
    Outcome,
    Result,
    Setup,
    assign_policies,
    check_portfolio,
    compute_notionals,
    generalize,
    measure_profits,
    read_state,
    read_venues,
    run,
    set_up,
    set_up_again,
    take,
)
from backtest.market import Markets, find_clock, read_weights, weights_to_frame
from backtest.options import find_underlying
from backtest.policy import trades_options
from backtest.risk.liquidation.path_events import OWN_BLOCK, WARMUP, PathLives
from backtest.risk.liquidation.paths_account import PathsAccount
from backtest.risk.paths.draw_plan import DrawPlan
from backtest.risk.paths.instrument_paths import MARKS, PRICES
from backtest.risk.paths.path_options import (
    PathLister,
    add_options,
    make_lister,
    place_options,
)
from backtest.risk.paths.path_set import Paths
from backtest.risk.paths.path_writer import PathBars
from backtest.venue import Option, Venue

WHERE = "bt.liquidation_risk"
DEPENDENT = ("multiplier", "initial", "sigma", "adv", "stop_scale", "profit_scale", "trail_scale")
SLOTS = 8
"""Contracts for which there is room at first on a path."""


class Prepared(NamedTuple):
    setup: Setup
    offset: int
    is_own: bool


@dataclass(frozen=True, eq=False)
class GeneralLoop:
    runner: PathsAccount

    @property
    def paths(self) -> Paths:
        return self.runner.paths

    @property
    def terms(self) -> Account:
        return self.runner.terms

    @property
    def venues(self) -> dict[str, Venue]:
        return self.runner.venues

    @property
    def block(self) -> int:
        return OWN_BLOCK

    @property
    def has_columns(self) -> bool:
        return any(each.columns for each in self.prepared.setup.observed)

    def check(self) -> None:
        markets = self.paths.markets
        check_portfolio(markets, read_venues(self.runner.venue, markets), self.terms)
        refuse_currencies(self.terms, where="Account.rates")
        if self.terms.collateral:
            raise ParameterError(
                "simulated paths have no prices of collateral, the account has some",
                where="Account.collateral",
                cure="leave the collateral out, or count it as capital",
            )
        self.check_options()
        resume, overlay = self.runner.resume, self.runner.overlay
        if resume is not None and (overlay is None) != (resume.overlay is None):
            raise ParameterError(
                f"a result goes on with the overlay that it had, {resume.overlay!r}, "
                f"got {overlay!r}",
                where="account=result",
                cure="give the overlay of the result, or a new account",
            )

    def check_options(self) -> None:
        if not self.is_trading:
            return
        known, markets = self.paths.surfaces, self.paths.markets
        policies, _ = assign_policies(self.runner.policy, markets, None)
        wanted = [name for name, each in policies.items() if trades_options(each)]
        wanted += [
            find_underlying(str(each.underlying), markets, f"option {name!r}")
            for name, each in self.held.items()
        ]
        missing = [name for name in wanted if name not in known]
        if not known or missing:
            name = (missing or self.paths.names)[0]
            held = f"a result that holds {next(iter(self.held))}" if self.held else ""
            raise ParameterError(
                f"{held or 'a policy that trades options'} on simulated paths needs a model of the "
                f"volatility of its instrument, got none of {name!r}",
                where=f"{WHERE}, paths",
                cure=Phrase(
                    f"give {{}}, or a {'result' if held else 'policy'} without options",
                    Either(
                        f"bt.simulate_paths(..., surfaces={{{name!r}: "
                        "bt.paths.SimulatedSurface(ratio=1.1)})",
                        "--surfaces ratio=1.1"
                        if len(self.paths.names) == 1
                        else f"--surfaces {name}.ratio=1.1",
                    ),
                ),
            )

    @functools.cached_property
    def is_trading(self) -> bool:
        own = trades_options(self.runner.policy) or trades_options(self.runner.overlay)
        return own or bool(self.held)

    @functools.cached_property
    def held(self) -> dict[str, Option]:
        options = None if self.runner.resume is None else self.runner.resume.options
        if options is None:
            return {}
        pairs = zip(options.terms.names, options.contracts, strict=True)
        last = options.record.quantity[-1].tolist()
        return {name: each for (name, each), q in zip(pairs, last, strict=True) if q != 0.0}

    @functools.cached_property
    def room(self) -> list[int]:
        return [SLOTS + len(self.held)]

    @property
    def owner(self) -> str:
        return next(iter(self.paths.surfaces))

    def list_weights(self, markets: Markets) -> FloatArray:
        """Return the signal on the bars of a path, of shape (n, n_bars)."""
        names, given = self.paths.names, self.runner.signal
        chosen: Any = given
        if given is None and self.runner.resume is not None:
            last = read_state(self.runner.resume).signal
            chosen = dict(zip(names, map(float, last), strict=True))
        elif isinstance(given, float):
            chosen = dict.fromkeys(names, given)
        return read_weights(chosen, markets, where=WHERE, first=0)

    @functools.cached_property
    def prepared(self) -> Prepared:
        path = self.paths.markets_of(self.paths.draw_plan(self.paths.plan(0)), 0, 0)
        joined = self.paths.join_history(path, WARMUP)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setup = set_up(
                self.list_one(joined) if self.is_trading else joined,
                self.runner.policy,
                venue=self.venues,
                account=replace(self.terms, flows=None),
                signal=self.list_weights(find_clock(joined).seen).T,
                overlay=self.runner.overlay,
                sampling="1d",
                periods=365.0,
                start=None,
            )
        account = replace(setup.account, flows=self.terms.flows)
        resume = None if self.runner.resume is None else generalize(self.runner.resume)
        setup = setup._replace(account=account, resume=resume)
        is_own = self.runner.overlay is not None or any(each.columns for each in setup.observed)
        is_own |= joined.decide > 0
        is_own |= any(getattr(setup.inputs.feed, name).shape[0] > 1 for name in DEPENDENT)
        is_own |= any(each.open_interest_margin is not None for each in self.venues.values())
        begun = self.begin_on(joined if is_own else path, setup)
        if not is_own and not self.has_all_stamps(begun):
            is_own, begun = True, self.begin_on(joined, setup)
        markets = joined if is_own else path
        return Prepared(begun, markets.n_bars - self.paths.width, is_own)

    def list_one(self, joined: Markets) -> Markets:
        lister = self.make_lister(joined, 1)
        lister.list_nearest("", joined.n_bars - self.paths.width, "put", -0.5, 30.0, 0.0)
        return add_options(joined, lister, lister.contracts)

    def make_lister(self, markets: Markets, slots: int) -> PathLister:
        owner = self.owner
        return make_lister(
            markets, self.paths.makers[owner], owner, self.venues[owner], self.paths.width, slots
        )

    def list_chosen(self, path: Markets, joined: Markets) -> Markets:
        markets = joined if self.prepared.is_own else path
        _, lister = self.trade_options(self.begin_on(markets, self.prepared.setup), markets)
        if not lister.names:
            return self.list_one(joined)
        return add_options(joined, lister, lister.contracts)

    def trade_options(self, setup: Setup, markets: Markets) -> tuple[Outcome, PathLister]:
        while True:
            slots = self.room[-1]
            lister = self.make_lister(markets, slots)
            lister.hold(self.held)
            placed = place_options(setup, lister)
            outcome = take(placed, is_compiled=self.runner.compile, progress=None)
            if not lister.is_full:
                return outcome, lister
            self.room.append(max(2 * slots, self.room[-1]))  # the path begins again

    def has_all_stamps(self, setup: Setup) -> bool:
        feed = setup.inputs.feed
        drawn = feed.funding_instrument[feed.funding_bar > 0]
        return all(
            int(np.sum(drawn == i)) == len(each.calendar.stamps)
            for i, (name, each) in enumerate(self.paths.members.items())
            if not setup.venues[name].contract.is_spot
        )

    def begin_on(self, joined: Markets, setup: Setup) -> Setup:
        first = joined.n_bars - self.paths.width
        started, weights = int(joined.time[first]), self.list_weights(joined)
        if setup.resume is not None:
            first, started = first + 1, setup.resume.span.start
        return set_up_again(setup, joined, weights, first=first, started=started)

    def run_path(self, path: Markets, *, is_compiled: bool) -> Result:
        joined, resume = self.paths.join_history(path, WARMUP), self.runner.resume_in_force
        start = np.datetime64(int(joined.time[joined.n_bars - self.paths.width]), "ns")
        seen = find_clock(joined).seen
        began: dict[str, Any] = {"start": start}
        if resume is not None:
            began = {"resume": resume}
        if self.is_trading:
            joined = self.list_chosen(path, joined)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Result = run(
                joined,
                self.runner.policy,
                venue=self.venues,
                account=self.terms,
                signal=weights_to_frame(self.list_weights(seen), seen),
                overlay=self.runner.overlay,
                calendar="252" if joined.sessions else "365",
                compile=is_compiled,
                **began,
            )
        return found

    def time_columns(self) -> float:
        return 0.0

    def prepare(self) -> None:
        _ = self.prepared

    def run_plan(self, plan: DrawPlan, number: int, *, has_ratio: bool = False) -> PathLives:
        bars, n, width = self.paths.draw_plan(plan), len(plan.keys), self.paths.width
        rows, options = np.zeros((6, n, width - 1)), np.zeros((2, n))
        for k in range(n):
            setup = self.place(bars, k, number + k)
            outcome = self.run_loop(setup)
            rows[:, k] = self.read_bars(setup, outcome, has_ratio=has_ratio)
            options[:, k] = add_up_options(outcome)
        closes = np.array([each.prices[3].reshape(n, width)[:, 1:] for each in bars.values()])
        return PathLives(number, *rows, closes=closes, options=options)  # type: ignore[misc] # its fields

    def read_bars(self, setup: Setup, outcome: Outcome, *, has_ratio: bool) -> FloatArray:
        """Return the fields of :class:`PathLives` of one path, of shape (6, n_bars)."""
        n_bars, begins = self.paths.n_bars, self.prepared.offset + 1
        since = begins - setup.first  # rows before the first bar after history
        found = np.zeros((6, n_bars))
        wealth = outcome.of_account("equity") + outcome.of_account("reserve")
        found[0] = wealth[since:]
        found[2] = outcome.of_account("bad_debt")[since:]
        for row, kind in ((1, LIQUIDATED), (3, CALLED)):
            at = outcome.entries[outcome.entries[:, 1] == kind, 0].astype(np.int64) - begins
            np.add.at(found[row], at[at >= 0], 1.0)
        if outcome.tally.ruin >= 0:  # also of an account that holds nothing then
            found[4, max(outcome.tally.ruin - begins, 0) :] = 1.0
        if has_ratio:
            found[5] = self.find_nearness(setup, outcome)[since:]
        return found

    def find_nearness(self, setup: Setup, outcome: Outcome) -> FloatArray:
        held = outcome.record.positions._asdict()
        closes: Any = outcome.record.closes
        needed, pool = closes.requirement, closes.backing
        marks = setup.inputs.feed.mark_close[setup.first :]
        profit = measure_profits(held, marks, [*self.venues.values()])
        move, backing = closes.failure - held["entry"], held["margin"] + profit
        with np.errstate(divide="ignore", invalid="ignore"):
            shared = np.where(pool > 0.0, needed / pool, np.inf)
            left = profit - held["quantity"] * move  # to be lost until it fails
            own = np.where(backing > 0.0, 1.0 - left / backing, np.inf)
        modes = [self.terms.for_instrument(name).margin for name in self.paths.names]
        is_own = (held["quantity"] != 0.0) & (np.array(modes) == "isolated")
        alone = np.where(is_own & ~np.isnan(move), own, 0.0).max(axis=1)
        return np.asarray(np.maximum(np.where(needed > 0.0, shared, 0.0), alone))

    def find_exposure(self) -> FloatArray:
        setup = self.place(self.paths.draw_plan(self.paths.plan(0)), 0, 0)
        held = {"quantity": self.run_loop(setup).of_positions("quantity")}
        marks = setup.inputs.feed.mark_close[setup.first :]
        mean = compute_notionals(held, marks, [*self.venues.values()]).mean(axis=0)
        largest = float(np.abs(mean).max())
        return np.asarray(mean / largest) if largest > 0.0 else np.ones(len(mean))

    def place(self, bars: Mapping[str, PathBars], k: int, number: int) -> Setup:
        setup = self.prepared.setup
        if not self.prepared.is_own:
            placed = self.replace_prices(setup, bars, k)
            if not self.is_trading:
                return placed
            return placed._replace(markets=self.paths.markets_of(bars, k, number))
        return self.begin_on(
            self.paths.join_history(self.paths.markets_of(bars, k, number), WARMUP), setup
        )

    def run_loop(self, setup: Setup) -> Outcome:
        if self.is_trading:
            return self.trade_options(setup, setup.markets)[0]
        return take(setup, is_compiled=self.runner.compile, progress=None)

    def replace_prices(self, setup: Setup, bars: Mapping[str, PathBars], k: int) -> Setup:
        """Return the setup with the prices, volumes and funding of path k, (n_bars, n)."""
        feed, width = setup.inputs.feed, self.paths.width
        part = slice(k * width, (k + 1) * width)
        fields: dict[str, Any] = {}
        for j, (name, mark) in enumerate(zip(PRICES, MARKS, strict=True)):
            marks = [each.prices if each.marks is None else each.marks for each in bars.values()]
            fields[name] = np.stack([each.prices[j, part] for each in bars.values()], axis=1)
            fields[mark] = np.stack([each[j, part] for each in marks], axis=1)
        fields["volume"] = np.stack([each.volume[part] for each in bars.values()], axis=1)
        rates = feed.funding_rate.copy()
        for i, each in enumerate(bars.values()):
            drawn, own = each.rates[k], np.flatnonzero(feed.funding_instrument == i)
            if len(drawn) and len(own):  # a spot leg pays none
                rates[own[-len(drawn) :]] = drawn
        fields["funding_rate"] = rates
        return setup._replace(inputs=setup.inputs._replace(feed=feed._replace(**fields)))


def add_up_options(outcome: Outcome) -> FloatArray:
    own = outcome.record.options
    if own is None:
        return np.zeros(2)
    spread = float(own.slippage.sum())
    costs = float(own.fees.sum() + own.liquidation_loss.sum()) + spread
    return np.array([costs - float(own.price_pnl.sum()), spread])
