"""Take an account with any positions through many paths, one after another."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Account
from backtest.account.ledger import CALLED, LIQUIDATED
from backtest.base import FloatArray, ParameterError
from backtest.engine import (
    Outcome,
    Result,
    Setup,
    check_portfolio,
    generalize,
    read_state,
    read_venues,
    run,
    set_up,
    set_up_again,
    take,
)
from backtest.market import Markets, find_clock, read_weights, weights_to_frame
from backtest.risk.liquidation.path_events import OWN_BLOCK, WARMUP, PathLives
from backtest.risk.liquidation.paths_account import PathsAccount
from backtest.risk.paths.instrument_paths import MARKS, PRICES
from backtest.risk.paths.path_set import Paths
from backtest.risk.paths.path_writer import PathBars
from backtest.venue import Venue

DEPENDENT = ("multiplier", "initial", "sigma", "adv", "stop_scale", "profit_scale", "trail_scale")


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
        if self.terms.collateral:
            raise ParameterError(
                "simulated paths have no prices of account.collateral; count it as capital"
            )
        resume, overlay = self.runner.resume, self.runner.overlay
        if resume is not None and (overlay is None) != (resume.overlay is None):
            raise ParameterError(
                f"overlay must be that of the result, {resume.overlay!r}, got {overlay!r}"
            )

    def list_weights(self, markets: Markets) -> FloatArray:
        """Return the signal on the bars of a path, of shape (n, n_bars)."""
        names, given = self.paths.names, self.runner.signal
        chosen: Any = given
        if given is None and self.runner.resume is not None:
            last = read_state(self.runner.resume).signal
            chosen = dict(zip(names, map(float, last), strict=True))
        elif isinstance(given, float):
            chosen = dict.fromkeys(names, given)
        return read_weights(chosen, markets, first=0)

    @functools.cached_property
    def prepared(self) -> Prepared:
        path = self.paths.markets_of(self.paths.draw_all(0, 1), 0, 0)
        joined = self.paths.join_history(path, WARMUP)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setup = set_up(
                joined,
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

    def run_block(self, first: int, stop: int) -> PathLives:
        bars, n, width = self.paths.draw_all(first, stop), stop - first, self.paths.width
        rows = np.zeros((5, n, width - 1))
        for k in range(n):
            setup = self.place(bars, k, first + k)
            rows[:, k] = self.read_bars(setup, self.run_loop(setup))
        closes = np.array([each.prices[3].reshape(n, width)[:, 1:] for each in bars.values()])
        return PathLives(first, *rows, closes=closes)  # type: ignore[misc] # its fields

    def read_bars(self, setup: Setup, outcome: Outcome) -> FloatArray:
        """Return the fields of :class:`PathLives` of one path, of shape (5, n_bars)."""
        n_bars, begins = self.paths.n_bars, self.prepared.offset + 1
        since = begins - setup.first  # rows before the first bar after history
        found = np.zeros((5, n_bars))
        wealth = outcome.of_account("equity") + outcome.of_account("reserve")
        found[0] = wealth[since:]
        found[2] = outcome.of_account("bad_debt")[since:]
        for row, kind in ((1, LIQUIDATED), (3, CALLED)):
            at = outcome.entries[outcome.entries[:, 1] == kind, 0].astype(np.int64) - begins
            np.add.at(found[row], at[at >= 0], 1.0)
        if outcome.tally.ruin >= 0:  # also of an account that holds nothing then
            found[4, max(outcome.tally.ruin - begins, 0) :] = 1.0
        return found

    def place(self, bars: Mapping[str, PathBars], k: int, number: int) -> Setup:
        setup = self.prepared.setup
        if not self.prepared.is_own:
            return self.replace_prices(setup, bars, k)
        return self.begin_on(
            self.paths.join_history(self.paths.markets_of(bars, k, number), WARMUP), setup
        )

    def run_loop(self, setup: Setup) -> Outcome:
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
