"""run(): take an account through a market under a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import pandas as pd

from backtest.account import Account
from backtest.base import (
    FloatArray,
    TimeLike,
    checked_only,
    record_making,
    set_single,
)
from backtest.engine.account_loop import run_account
from backtest.engine.benchmark import BenchmarkLike
from backtest.engine.option_schedule import schedule_options
from backtest.engine.portfolio_driver import Progress
from backtest.engine.result import Result
from backtest.engine.run_result import finish
from backtest.engine.run_setup import set_up_run
from backtest.engine.signal_rule import SignalRule
from backtest.market import Market, Markets, Weights, with_clock
from backtest.policy import Policy
from backtest.venue import Venue


@overload
def run(
    market: Market,
    policy: Policy,
    *,
    venue: Venue,
    account: Account,
    signal: pd.Series | FloatArray | float | str | SignalRule | None = None,
    overlay: Policy | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    compile: bool = True,
    resume: Result | None = None,
    start: TimeLike | None = None,
    progress: Progress | None = None,
    benchmark: BenchmarkLike = None,
    decide: str | None = None,
    detail: Any = None,
) -> Result: ...


@overload
def run(
    market: Markets,
    policy: Policy | Mapping[str, Policy],
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    signal: Weights | str | SignalRule = None,
    overlay: Policy | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    compile: bool = True,
    resume: Result | None = None,
    start: TimeLike | None = None,
    progress: Progress | None = None,
    benchmark: BenchmarkLike = None,
    decide: str | None = None,
    detail: Any = None,
    option_quantities: pd.DataFrame | None = None,
) -> Result: ...


@record_making
@checked_only("calendar", "compile", "progress")
def run(  # noqa: PLR0913 - the terms of a run, by name
    market: Market | Markets,
    policy: Any,
    *,
    venue: Any,
    account: Account,
    signal: Any = None,
    overlay: Policy | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    compile: bool = True,  # noqa: A002 - the word users know
    resume: Result | None = None,
    start: TimeLike | None = None,
    progress: Progress | None = None,
    benchmark: BenchmarkLike = None,
    decide: str | None = None,
    detail: Any = None,
    option_quantities: Any = None,
) -> Result:
    """Run an account through a market, or through several, under a policy.

    Parameters
    ----------
    market : Market or Markets
        Bars, mark prices and funding; of several instruments for an account with several positions.
        One market is the only instrument of such an account where an overlay, collateral, another
        setting of several, or values by instrument are given.
    policy : Policy, or a mapping of names to policies
        Decides the leverage at each close; filled at the next open. With several instruments, one
        for all or one for each.
    venue, account : Venue (or a mapping of names to venues), Account
        The rules and the costs.
    signal : float, array of shape (n_bars,), Series by UTC time, str or SignalRule, optional
        Direction and scale in [-1, 1]; default 1. The signal of a bar belongs to the decision at
        its close. A text is a column of the bars, or a rule of
        :mod:`backtest.engine.indicator_rules` with its parameters in order, ``"rsi:14:30:70"``.
        With several instruments, a frame by time and instrument of direction times weight, or a
        rule for the direction in each times 1/n; default 1/n.
    overlay : Policy, optional
        Scales all targets of several instruments; its market is ``markets.index(signal)``.
    sampling : str
        The period over which returns are sampled, ``"1d"`` by default.
    calendar : str
        ``"365"`` days a year, or ``"252"`` sessions.
    compile : bool
        False runs the policy in plain Python, for a debugger; the numbers are the same bits.
    resume : Result, optional
        Go on from the last close of an earlier result; ``market`` holds the bars after it and may
        overlap: a result of this process gives the bars before it, a loaded one needs a market that
        has them. The new result holds the new bars only.
    start : str or Timestamp, optional
        When the account begins, in UTC: at the first bar from then on. The bars before it only
        warm the policy's columns.
    progress : callable, optional
        Called with bars done and bars in all.
    benchmark : str, DataFrame, mapping or Series, optional
        What ``alpha`` and ``beta`` compare with: an instrument, weights by time and instrument
        (:meth:`Markets.index`), or prices at the closes of the bars that open at the times of a
        Series. Default: the market; of several instruments the index of what is traded, with the
        weights abs(s_i) / sum abs(s) of the signal.
    decide : str, optional
        The length of the bars at whose closes policies decide, such as ``"1h"``: a multiple of the
        market's interval. Policies, columns and signal see these bars alone, and the account lives
        the bars of the market; see docs/accounting.md. Default: policies decide at each close.
    detail : Market, Markets, mapping of str to Market, str or Path, optional
        Shorter bars of the same instruments, or their folder. The account lives them where they
        are known, and the bars of ``market`` elsewhere; policies see those of ``market``, or of
        ``decide``.
    option_quantities : DataFrame, optional
        Signed contracts to hold of listed options, by time and contract: the row of a bar is
        decided at its close and fills at the next open; NaN leaves a contract as it is.

    Returns
    -------
    Result

    Raises
    ------
    ParameterError
        If an argument is not allowed, or the resumed market does not join.
    PolicyError
        If the policy raises, looks ahead, or returns a negative number or the wrong type.
    AccountingError
        If the books do not balance at some bar.
    """
    market = with_clock(market, decide, detail)
    market = schedule_options(market, option_quantities)
    set_single(True)
    setup = set_up_run(
        market,
        policy,
        venue=venue,
        account=account,
        signal=signal,
        overlay=overlay,
        sampling=sampling,
        calendar=calendar,
        resume=resume,
        start=start,
        benchmark=benchmark,
    )
    outcome = run_account(setup, is_compiled=compile, progress=progress)
    return finish(setup, outcome, calendar=calendar)
