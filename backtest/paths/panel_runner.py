"""Run one account with several positions on many paths."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Account
from backtest.account.ledger import CALLED, LIQUIDATED, RUINED
from backtest.base.errors import DataError, ParameterError
from backtest.base.units import FloatArray, format_time
from backtest.engine import Result
from backtest.engine.portfolio.book_driver import BookOutcome, run_book_loop
from backtest.engine.portfolio.portfolio_setup import Setup, set_up, set_up_again
from backtest.engine.portfolio.run_portfolio import begin, copy_book
from backtest.engine.run import run
from backtest.market import Markets
from backtest.market.weight_frame import read_weights
from backtest.paths.panel_paths import PanelPaths
from backtest.paths.path_writer import PathBars
from backtest.paths.paths_runner import (
    PRICES,
    WARMUP,
    PathLives,
    Progress,
    list_blocks,
    run_blocks,
)
from backtest.policy import Policy
from backtest.venue import Venue
from backtest.venue.own_requirement import OwnMargin

WHERE = "bt.liquidation_risk"
DEPENDENT = ("multiplier", "initial", "sigma", "adv", "stop_scale", "profit_scale", "trail_scale")
"""Fields of the feed that may depend on the prices of a path."""


class PanelStart(NamedTuple):
    """The account before its first bar on the first path, as a pattern for all paths.

    ``offset`` is the bar of the clock that is the first of a path. ``is_own``: inputs or columns
    depend on the prices of a path, so that they are made for each one.
    """

    setup: Setup
    weights: FloatArray
    offset: int
    is_own: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class PanelRunner:
    """One account with several positions, to be taken through paths.

    Parameters
    ----------
    paths : PanelPaths
        The bars.
    policy, venue : as in :func:`backtest.run` of several instruments
        Of dated margin tables, those in force at the start hold for all bars.
    account : Account or Result
        A new account, which decides first at the last close of history; or a result that ended
        there, to go on from.
    signal : mapping of str to float, optional
        Direction times weight by instrument, the same at all times; by default 1/n, or that of the
        result's last close.
    overlay : Policy, optional
        Scales all targets.
    compile : bool
        False runs in plain Python; the numbers are the same bits.
    """

    paths: PanelPaths
    policy: Policy | Mapping[str, Policy]
    venue: Venue | Mapping[str, Venue]
    account: Account | Result
    signal: Mapping[str, float] | None = None
    overlay: Policy | None = None
    compile: bool = True

    @property
    def resume(self) -> Result | None:
        """The result to continue, None for a new account."""
        return self.account if isinstance(self.account, Result) else None

    @property
    def terms(self) -> Account:
        """The account as it was opened."""
        return self.account.account if isinstance(self.account, Result) else self.account

    @property
    def base(self) -> float:
        """The reference price of lives, a mean over the instruments."""
        return 1.0

    @property
    def has_columns(self) -> bool:
        """Whether a policy reads columns, which may depend on ranges."""
        return any(each.columns for each in self.prepared.setup.panelists)

    @functools.cached_property
    def fixed_venues(self) -> dict[str, Venue]:
        """The venues with the margin tables that are in force at the start."""
        given: Any = self.venue
        if isinstance(given, Venue):
            given = dict.fromkeys(self.paths.names, given)
        start = self.paths.calendar.time[:1]
        return {name: each.with_table(each.in_use(start)[0]) for name, each in given.items()}

    def list_weights(self, markets: Markets) -> FloatArray:
        """Return the signal on the bars of a path, of shape (n, n_bars)."""
        chosen: Any = self.signal
        if chosen is None and self.resume is not None:
            last = self.resume.state.signal
            chosen = dict(zip(self.paths.names, map(float, last), strict=True))
        return read_weights(chosen, markets, where=WHERE, first=0)

    @functools.cached_property
    def prepared(self) -> PanelStart:
        """The account before the first path; its policies are checked for looking ahead."""
        self.check_start()
        path = self.paths[0]
        joined = self.paths.join_history(path, WARMUP)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setup = set_up(
                joined,
                self.policy,
                venue=self.fixed_venues,
                account=replace(self.terms, flows=None),
                signal=self.list_weights(joined).T,
                overlay=self.overlay,
                sampling="1d",
                periods=365.0,
                start=None,
            )
        setup = setup._replace(account=replace(setup.account, flows=self.terms.flows))
        feed = setup.inputs.feed
        is_own = self.overlay is not None or any(each.columns for each in setup.panelists)
        is_own |= any(getattr(feed, name).shape[1] > 1 for name in DEPENDENT)
        is_own |= any(each.open_interest_margin is not None for each in self.fixed_venues.values())
        begun = self.begin_on(joined if is_own else path, setup, is_own=is_own)
        return begun if is_own or self.has_all_stamps(begun) else begun._replace(is_own=True)

    def has_all_stamps(self, begun: PanelStart) -> bool:
        """Return whether each settlement that is drawn belongs to a bar after history."""
        feed = begun.setup.inputs.feed
        drawn = feed.funding_instrument[feed.funding_bar > begun.offset]
        return all(
            int(np.sum(drawn == i)) == len(each.calendar.stamps)
            for i, each in enumerate(self.paths.members.values())
        )

    def check_start(self) -> None:
        """Require a result that ended where the paths begin, and an account without collateral."""
        if self.terms.collateral:
            raise ParameterError(
                "simulated paths have no prices of collateral, the account has some",
                where="Account.collateral",
                cure="leave the collateral out, or count it as capital",
            )
        result = self.resume
        if result is None:
            return
        if result.names != self.paths.names:
            raise ParameterError(
                f"paths must be of the instruments of the result, {', '.join(result.names)}, "
                f"were of {', '.join(self.paths.names)}",
                where="account=result",
                cure="simulate paths of the markets that the result ran on",
            )
        begins = int(self.paths.calendar.time[0])
        if int(result.time[-1]) != begins:
            raise DataError(
                f"paths must begin where the result ended, {format_time(int(result.time[-1]))}, "
                f"their first bar is {format_time(begins)}",
                where="account=result",
                cure="simulate paths of the markets that the result ran on, with start='now'",
            )

    def begin_on(self, joined: Markets, setup: Setup, *, is_own: bool) -> PanelStart:
        """Return the account before its first bar on a joined path."""
        offset = joined.n_bars - self.paths.width
        weights = self.list_weights(joined)
        first, started = offset, int(joined.time[offset])
        if self.resume is not None:
            first, started = offset + 1, self.resume.span.start
        own = set_up_again(setup, joined, weights, first=first, started=started)
        return PanelStart(own, weights, offset, is_own)

    def run_path(self, i: int) -> Result:
        """Return the whole result of path i, from :func:`backtest.run`."""
        if self.resume is not None:
            raise ParameterError(
                "a path that continues a result of several positions is not kept as a whole result",
                where="LiquidationRisk.run",
                cure="give a new account: account=bt.Account(...)",
            )
        joined = self.paths.join_history(self.paths[i], WARMUP)
        start = np.datetime64(int(joined.time[joined.n_bars - self.paths.width]), "ns")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: Result = run(
                joined,
                self.policy,
                venue=self.fixed_venues,
                account=self.terms,
                signal=self.list_weights(joined).T,
                overlay=self.overlay,
                compile=self.compile,
                start=start,
            )
        return found

    def run_chunks(
        self,
        plans: None = None,
        *,
        count: int | None = None,
        threads: int = 1,
        progress: Progress | None = None,
    ) -> Iterator[PathLives]:
        """Yield the outcomes of the account on chunks of paths, in order.

        ``plans`` is not for several instruments. Results do not depend on the number of threads.
        """
        del plans
        total = self.paths.count if count is None else count
        self.prepare()
        edges = list_blocks(total, self.paths.width, is_own=True)

        def work(edge: tuple[int, int]) -> PathLives:
            return self.run_block(*edge)

        yield from run_blocks(work, edges, threads, progress)

    def prepare(self) -> None:
        """Check the policies on the first path."""
        _ = self.prepared

    def run_block(self, first: int, stop: int) -> PathLives:
        """Return the outcomes of the account on the paths from ``first`` up to ``stop``."""
        bars, n, width = self.paths.draw(first, stop), stop - first, self.paths.width
        rows = np.zeros((6, n, width - 1))
        price = np.zeros((n, width - 1))
        for k in range(n):
            rows[:, k] = self.live(bars, k, first + k)
        for each in bars.values():
            closes = each.prices[3].reshape(n, width)
            price += closes[:, 1:] / closes[:, :1] / len(bars)
        return PathLives(first, *rows, price=price)  # type: ignore[misc] # its fields

    def live(self, bars: Mapping[str, PathBars], k: int, number: int) -> FloatArray:
        """Return wealth, counts and debts on path k of some bars, of shape (6, n_bars)."""
        prepared = self.prepared
        if prepared.is_own:
            joined = self.paths.join_history(self.paths.markets_of(bars, k, number), WARMUP)
            setup = self.begin_on(joined, prepared.setup, is_own=True).setup
        else:
            setup = self.replace_prices(bars, k)
        outcome = self.run_loop(setup)
        width, first = self.paths.width, setup.first
        since = prepared.offset + 1 - first  # rows before the first bar after history
        found = np.zeros((6, width - 1))
        found[0] = (outcome.account[:, 0] + outcome.account[:, 3])[since:]
        found[2] = outcome.account[since:, 19]
        for row, kind in ((1, LIQUIDATED), (3, CALLED), (4, RUINED)):
            at = outcome.entries[outcome.entries[:, 1] == kind, 0].astype(np.int64)
            at -= prepared.offset + 1
            np.add.at(found[row], at[at >= 0], 1.0)
        return found

    def run_loop(self, setup: Setup) -> BookOutcome:
        """Take the account through the bars of a path."""
        inputs, book, desk, tally = begin(setup)
        own = setup.account.requirement
        if self.resume is not None:
            book = copy_book(self.resume.state)
            desk.memory[:] = self.resume.memory
        return run_book_loop(
            inputs,
            book,
            desk,
            tally,
            setup.first,
            [(each.policy, tuple(each.columns)) for each in setup.panelists],
            is_compiled=self.compile,
            progress=None,
            own=own if isinstance(own, OwnMargin) else None,
            names=setup.markets.names,
        )

    def replace_prices(self, bars: Mapping[str, PathBars], k: int) -> Setup:
        """Return the setup with the prices, volumes and funding of path k of some bars."""
        setup, width = self.prepared.setup, self.paths.width
        feed, part = setup.inputs.feed, slice(k * width, (k + 1) * width)
        fields: dict[str, Any] = {}
        for j, name in enumerate(PRICES):
            marks = [each.prices if each.marks is None else each.marks for each in bars.values()]
            fields[name] = np.array([each.prices[j, part] for each in bars.values()])
            fields[f"mark_{name}"] = np.array([each[j, part] for each in marks])
        fields["volume"] = np.array([each.volume[part] for each in bars.values()])
        rates = feed.funding_rate.copy()
        for i, each in enumerate(bars.values()):
            drawn = each.rates[k]
            if len(drawn):
                rates[np.flatnonzero(feed.funding_instrument == i)[-len(drawn) :]] = drawn
        fields["funding_rate"] = rates
        return setup._replace(inputs=setup.inputs._replace(feed=feed._replace(**fields)))
