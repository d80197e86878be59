"""run() for several markets: one account, several positions, a policy for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from backtest.account import Account
from backtest.account.account import WHOLE
from backtest.base.units import TimeLike
from backtest.engine.benchmark import BenchmarkLike, begin_moves, index_traded
from backtest.engine.compile.background_compiler import CompileFirst, answer_first
from backtest.engine.compile.plain_or_compiled_book import (
    is_book_plain,
    mark_book_ready,
    order_book_loop,
)
from backtest.engine.frame_signals import describe_weights
from backtest.engine.lookahead.checked_signals import join_checks
from backtest.engine.loop_driver import Progress
from backtest.engine.manifest import RunTerms, write_manifest
from backtest.engine.no_fill import is_cash
from backtest.engine.portfolio.book_cuts import measure_book_cuts
from backtest.engine.portfolio.book_desk import set_desk
from backtest.engine.portfolio.book_driver import (
    BookOutcome,
    DeskSwitch,
    list_kernel_arguments,
    run_book_loop,
)
from backtest.engine.portfolio.book_inputs import BookInputs, start_book
from backtest.engine.portfolio.book_loop import Desk
from backtest.engine.portfolio.no_book_fill import (
    explain_no_book_fill,
    find_unknown,
    name_boundless,
)
from backtest.engine.portfolio.portfolio_checks import (
    warn_of_band,
    warn_of_delisting,
)
from backtest.engine.portfolio.portfolio_setup import Setup, set_up
from backtest.engine.portfolio.resumed_book import check_rules, read_resume
from backtest.engine.result import Result
from backtest.engine.run_before import find_before
from backtest.engine.run_data import Quotes
from backtest.engine.run_warnings import (
    warn_of_market,
    warn_of_outcome,
    warn_of_weights,
)
from backtest.engine.sampling_periods import check_periods, count_periods
from backtest.market.markets import Markets
from backtest.measures.run_span import RunSpan
from backtest.measures.tally import Tally, start_tally
from backtest.policy import Policy
from backtest.portfolio.book_ledger import DELISTED
from backtest.portfolio.book_records import EQUITY, PEAK, UNIT, Book, BookFeed
from backtest.venue import Venue
from backtest.venue.own_requirement import OwnMargin


def is_single(markets: Markets, account: Account, overlay: object) -> bool:
    """Return whether one instrument is all there is, so that the rules of one position hold."""
    fresh = all(getattr(account, name) == value for name, value in WHOLE.items())
    return len(markets) == 1 and fresh and overlay is None


def live(
    setup: Setup,
    *,
    is_compiled: bool,
    progress: Progress | None,
    switches: Sequence[DeskSwitch] = (),
) -> BookOutcome:
    """Take the account through the markets; a first run may be answered in plain Python."""
    if not is_compiled or isinstance(setup.account.requirement, OwnMargin):
        return take(setup, is_compiled=False, progress=progress, switches=switches)
    order = order_book_loop(list_kernel_arguments(*begin(setup)))
    policies = [(each.policy, tuple(each.columns)) for each in setup.panelists]
    if is_book_plain(order, policies, len(setup.inputs.feed.time) - setup.first):
        plain = partial(take, setup, is_compiled=False, progress=progress, switches=switches)
        with suppress(CompileFirst):
            return answer_first(plain, order)._replace(plain_because="")
    outcome = take(setup, is_compiled=True, progress=progress, switches=switches)
    mark_book_ready(order)
    return outcome


def begin(setup: Setup) -> tuple[BookInputs, Book, Desk, Tally]:
    """Return the inputs of the loop, and the account, the policies and the tally at its start."""
    inputs, resume = setup.inputs, setup.resume
    if resume is None:
        book = start_book(inputs, setup.account, setup.first, has_overlay=setup.overlay is not None)
    else:
        book = copy_book(resume.state)
    desk = set_desk(
        setup.panelists,
        setup.markets,
        started=inputs.started,
        width=inputs.terms.rules.brackets.floors.shape[1],
    )
    if resume is not None:
        desk.memory[:] = resume.memory
    tally = start_tally(float(book.purse[UNIT]), float(book.purse[EQUITY]), setup.first)
    return inputs, book, desk, tally


def copy_book(book: Book) -> Book:
    """Return the book of an account at the end of a run, at the first events of what follows."""
    copied = type(book)._make(
        type(each)._make(part.copy() for part in each) if isinstance(each, tuple) else each.copy()
        for each in book
    )
    copied.cursor[:] = 0
    return copied


def take(
    setup: Setup,
    *,
    is_compiled: bool,
    progress: Progress | None,
    switches: Sequence[DeskSwitch] = (),
) -> BookOutcome:
    """Take the account through the markets, in compiled code or in plain Python."""
    account = setup.account
    return run_book_loop(
        *begin(setup),
        setup.first,
        [(each.policy, tuple(each.columns)) for each in setup.panelists],
        is_compiled=is_compiled,
        progress=progress,
        own=account.requirement if isinstance(account.requirement, OwnMargin) else None,
        names=setup.markets.names,
        switches=switches,
        traded=None if setup.resume is None else setup.resume.traded,
    )


def run_portfolio(  # noqa: PLR0913 - the terms of a run, by name
    markets: Markets,
    policy: Policy | Mapping[str, Policy],
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    signal: Any,
    overlay: Policy | None,
    sampling: str,
    calendar: str,
    is_compiled: bool,
    start: TimeLike | None,
    progress: Progress | None,
    resume: object,
    benchmark: BenchmarkLike,
) -> Result:
    """Take an account with several positions through several markets; see :func:`backtest.run`."""
    earlier = read_resume(resume, start)
    check_periods(markets, sampling, calendar)
    periods = count_periods(calendar, sampling, markets)
    setup = set_up(
        markets,
        policy,
        venue=venue,
        account=account,
        signal=signal,
        overlay=overlay,
        sampling=sampling,
        periods=periods,
        start=start,
        resume=earlier,
        benchmark=benchmark,
    )
    if earlier is not None:
        check_rules(earlier, setup.policies, setup.overlay, setup.venues, setup.account)
    warn_of_market(markets, setup.venues, setup.first)
    warn_of_weights(signal, markets)
    outcome = live(setup, is_compiled=is_compiled, progress=progress)
    return finish(setup, outcome, given=signal, sampling=sampling, calendar=calendar)


def finish(
    setup: Setup, outcome: BookOutcome, *, given: Any, sampling: str, calendar: str
) -> Result:
    """Return the result of a run whose loop has ended; ``given`` is its signal as it was given."""
    markets, account, first = setup.markets, setup.account, setup.first
    level, weights = outcome.of_positions("target"), setup.signal.T[first:]
    targets = np.multiply(level, weights, out=np.zeros_like(level), where=weights != 0.0)
    warn_of_band(account, markets, targets)
    warn_of_delisting(markets, outcome.entries, DELISTED)
    closes = markets.time[first:] + markets.interval
    span = RunSpan(int(markets.time[first]), closes, first, setup.periods)
    benchmark = setup.benchmark or index_traded(markets, setup.venues, setup.signal, first)
    checks = "; ".join(dict.fromkeys(each.causality for each in setup.panelists))
    terms = RunTerms(
        is_panel=True,
        markets=markets,
        policies=setup.policies,
        overlay=setup.overlay,
        venues=setup.venues,
        account=account,
        signal=describe_weights(given, setup.signal),
        sampling=sampling,
        calendar=calendar,
    )
    manifest = write_manifest(
        terms,
        span,
        plain_because=outcome.plain_because,
        causality=join_checks(checks, given),
        resumed=None if setup.resume is None else setup.resume.manifest["id"],
        benchmark=None if setup.benchmark is None else benchmark.text,
        compared_with=benchmark.text,
    )
    measure_cuts = partial(measure_book_cuts, setup, outcome)  # slower than the run itself
    no_fill = explain_no_book_fill(setup, outcome, measure_cuts)
    highest = np.where(np.isinf(level).any(axis=1), np.inf, 0.0)
    said = "" if is_cash(find_unknown(setup), level) else no_fill
    warn_of_outcome(name_boundless(setup, level), said, highest, closes)
    is_resumed, feed = setup.resume is not None, setup.inputs.feed
    return Result(
        policies=setup.policies,
        overlay=setup.overlay,
        venues=setup.venues,
        account=account,
        manifest=manifest,
        names=markets.names,
        span=span,
        spans=np.clip(markets.spans - first, 0, None),
        interval=markets.interval,
        is_session=markets.sessions,
        tally=outcome.tally,
        state=outcome.book,
        memory=outcome.memory,
        started=setup.inputs.started,
        first_peak=find_peak(setup),
        record=outcome.account,
        positions_record=outcome.positions,
        entries=outcome.entries,
        quotes=read_quotes(feed, first),
        asset_marks=np.ascontiguousarray(feed.asset_mark_close[:, first:].T),
        ends_sample=setup.inputs.clock.ends_sample[first:],
        before=find_before(setup.resume, markets, first),
        benchmark=begin_moves(benchmark.moves, first, is_resumed=is_resumed),
        markets=markets,
        weights=setup.signal,
        measure_cuts=measure_cuts,
        no_fill=no_fill,
        traded=outcome.traded,
    )


def find_peak(setup: Setup) -> float:
    """Return the highest unit value before the first bar."""
    if setup.resume is not None:
        return float(setup.resume.state.purse[PEAK])
    account, prices = setup.account, setup.inputs.feed.asset_open[:, setup.first]
    pairs = zip(account.collateral, prices, strict=True)
    backing: float = sum(each.amount * price for each, price in pairs)
    return account.capital + account.reserve + backing


def read_quotes(feed: BookFeed, first: int) -> Quotes:
    """Return prices, signals and multipliers of the bars of a run of several positions."""
    names = ("close", "mark_close", "mark_low", "mark_high", "signal", "multiplier", "initial")
    arrays = (getattr(feed, name) for name in names)
    return Quotes(*(each if len(each) == 1 else each[first:] for each in arrays))
