"""run(): take an account through a market under a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, overload

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.account.account import check_account
from backtest.base.checked_calls import checked_only
from backtest.base.compile_choice import set_hurry
from backtest.base.errors import ParameterError
from backtest.base.phrases import Place
from backtest.base.provenance import record_making
from backtest.base.units import (
    FloatArray,
    TimeLike,
)
from backtest.engine.benchmark import BenchmarkLike, begin_moves, read_own_benchmark
from backtest.engine.lookahead.causality import observe_checked
from backtest.engine.lookahead.checked_signals import join_checks
from backtest.engine.loop_driver import LoopStart, Progress, run_loop
from backtest.engine.loop_inputs import Inputs, has_interest, read_inputs, start_state
from backtest.engine.manifest import RunTerms, hash_source, write_manifest
from backtest.engine.named_signals import resolve_signal
from backtest.engine.no_fill import TARGET, explain_no_fill, is_cash
from backtest.engine.portfolio.cut_terms import end_expired
from backtest.engine.portfolio.narrow_to_one import narrow_to_one
from backtest.engine.portfolio.portfolio_checks import check_account_kind, check_expiry
from backtest.engine.portfolio.run_portfolio import is_single, run_portfolio
from backtest.engine.result import Result
from backtest.engine.run_before import find_before
from backtest.engine.run_data import Quotes
from backtest.engine.run_history import find_history, list_flows
from backtest.engine.run_warnings import (
    warn_of_market,
    warn_of_outcome,
)
from backtest.engine.sampling_periods import check_periods, count_periods
from backtest.engine.signal_input import describe_signal, read_signal, recall_signal
from backtest.engine.signal_rule import SignalRule
from backtest.market import Market, Markets
from backtest.market.weight_frame import Weights
from backtest.measures.run_span import RunSpan
from backtest.policy import Policy, start_memory
from backtest.venue import Venue


@overload
def run(
    market: Market,
    policy: Policy,
    *,
    venue: Venue,
    account: Account,
    signal: pd.Series | FloatArray | float | str | SignalRule | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    compile: bool = True,
    resume: Result | None = None,
    start: TimeLike | None = None,
    progress: Progress | None = None,
    benchmark: BenchmarkLike = None,
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
    resume: Any = None,
    start: TimeLike | None = None,
    progress: Progress | None = None,
    benchmark: BenchmarkLike = None,
) -> Any: ...


@record_making
@checked_only("progress")
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
) -> Any:
    """Run an account through a market, or through several, under a policy.

    Parameters
    ----------
    market : Market or Markets
        Bars, mark prices and funding; of several instruments for an account with several positions.
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
        overlap. The new result holds the new bars only. Several markets must hold the earlier bars
        too.
    start : str or Timestamp, optional
        When the account begins, in UTC: at the first bar from then on. The bars before it only
        warm the policy's columns.
    progress : callable, optional
        Called with bars done and bars in all.
    benchmark : str, DataFrame, mapping or Series, optional
        What ``alpha``, ``beta``, ``break_even_drift`` and ``break_even_leverage`` compare with: an
        instrument, weights by time and instrument (:meth:`Markets.index`), or prices at the closes
        of the bars that open at the times of a Series. Default: the market; of several instruments
        the index of what is traded, with the weights abs(s_i) / sum abs(s) of the signal.

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
    set_hurry(True)
    name = ""
    if isinstance(market, Markets):
        check_account_kind(account)
        signal = resolve_signal(signal, market)
        panel = end_expired(market, venue)
        if not is_single(panel, account, overlay):
            return run_portfolio(
                panel,
                policy,
                venue=venue,
                account=account,
                signal=signal,
                overlay=overlay,
                sampling=sampling,
                calendar=calendar,
                is_compiled=compile,
                start=start,
                progress=progress,
                resume=resume,
                benchmark=benchmark,
            )
        one = narrow_to_one(panel, policy, venue, account, signal)
        market, policy, venue, account, signal = one
        name = panel.names[0]
    elif overlay is not None:
        raise ParameterError(
            "an overlay needs several markets, was given one",
            where=Place("overlay", of="bt.run"),
            cure="combine the policies instead, or give bt.Markets({name: market, ...})",
        )
    check_kinds(market, policy, venue, account, resume)
    name = name or market.instrument or "market"
    check_settings(market, account, venue, sampling, calendar)
    check_resume(resume, policy, venue, account)
    market, first, started = find_history(resume, market, start)
    compared = read_own_benchmark(benchmark, market, venue, name, first)
    signal = resolve_signal(signal, market)
    directions = read_signal(signal, market, first)
    warn_of_market(market, venue, first)
    market = market.with_signal(recall_signal(directions, market, resume, first))
    columns, causality = observe_checked(policy, market)
    inputs = read_inputs(
        market,
        venue,
        account,
        signal=directions,
        sampling=sampling,
        first=first,
        started=started,
    )
    begin = find_loop_start(resume, account, policy, first)
    outcome = run_loop(policy, inputs, columns, begin, is_compiled=compile, progress=progress)
    if inputs.fees is not None:
        inputs = inputs._replace(fees=inputs.fees._replace(charged=outcome.charged))
    closes = market.time[first:] + market.interval
    no_fill = explain_no_fill(outcome, inputs, columns, venue, account, first)
    target = outcome.book[TARGET]
    said = "" if is_cash(columns, target) else no_fill
    warn_of_outcome(type(policy).__name__, said, target, closes)
    periods = count_periods(calendar, sampling, market, first)
    span = RunSpan(int(market.time[first]), closes, first, periods)
    markets = Markets({name: market})
    given = None if compared is None else compared.text
    terms = RunTerms(
        is_panel=False,
        markets=markets,
        policies={name: policy},
        overlay=None,
        venues={name: venue},
        account=account,
        signal=describe_signal(signal, directions),
        sampling=sampling,
        calendar=calendar,
    )
    manifest = write_manifest(
        terms,
        span,
        plain_because=outcome.plain_because,
        causality=join_checks(causality, signal),
        resumed=None if resume is None else resume.manifest["id"],
        benchmark=given,
        compared_with=given or "",
    )
    return Result(
        policies={name: policy},
        overlay=None,
        venues={name: venue},
        account=account,
        manifest=manifest,
        names=(name,),
        span=span,
        spans=np.array([[0, len(closes)]]),
        interval=market.interval,
        is_session=market.sessions,
        tally=outcome.tally,
        state=outcome.state,
        memory=outcome.memory,
        started=started,
        first_peak=account.capital + account.reserve if resume is None else resume.state.peak,
        record=outcome.book.T,
        positions_record=None,
        entries=outcome.entries,
        quotes=read_quotes(market, inputs, first),
        asset_marks=np.empty((len(closes), 0)),
        ends_sample=inputs.clock.ends_sample[first:],
        before=find_before(resume, markets, first),
        benchmark=None
        if compared is None
        else begin_moves(compared.moves, first, is_resumed=resume is not None),
        markets=markets,
        inputs=inputs,
        no_fill=no_fill,
        traded=outcome.traded,
    )


def read_quotes(market: Market, inputs: Inputs, first: int) -> Quotes:
    """Return prices, signal and multipliers of the bars of a run of one position."""
    margin = (inputs.feed.multiplier, inputs.feed.initial)
    multiplier, initial = (each if len(each) == 1 else each[first:] for each in margin)
    return Quotes(
        close=market.close[first:, None],
        mark=market.mark_close[first:, None],
        mark_low=market.mark_low[first:, None],
        mark_high=market.mark_high[first:, None],
        signal=market.signal[first:, None],
        multiplier=multiplier[:, None],
        initial_multiplier=initial[:, None],
    )


def check_kinds(
    market: object, policy: object, venue: object, account: object, resume: object
) -> None:
    """Require arguments of the right classes."""
    wanted: tuple[tuple[str, object, type, str], ...] = (
        ("market", market, Market, "pass bt.Market.load(...), from_frames(...) or sample()"),
        ("policy", policy, Policy, "pass an instance of a class derived from bt.Policy"),
        ("venue", venue, Venue, "pass bt.Venue(...), or bt.Venue.preset(...)"),
        ("account", account, Account, "pass bt.Account(...)"),
        ("resume", resume, Result, "pass the earlier result, or bt.Result.load(folder)"),
    )
    for name, value, kind, cure in wanted:
        is_other = isinstance(value, Result) and not value.has_one_position
        if is_other or not (isinstance(value, kind) or (name == "resume" and value is None)):
            raise ParameterError(
                f"{name} must be a {kind.__name__}, was {str(value)[:60]!r}",
                where=f"bt.run, {name}",
                cure=f"{cure}: add ()" if isinstance(value, type) else cure,
            )


def check_settings(
    market: Market, account: Account, venue: Venue, sampling: str, calendar: str
) -> None:
    """Require settings that fit together."""
    check_account(account, venue)
    check_periods(market, sampling, calendar)
    check_expiry(market, venue)


def check_resume(resume: Result | None, policy: Policy, venue: Venue, account: Account) -> None:
    """Require the rules of the earlier run; only later flows may be added."""
    if resume is None:
        return
    earlier = resume.manifest["policy"]
    same_policy = repr(policy) == earlier["text"]
    same_policy &= hash_source(type(policy)) == earlier["source_hash"]
    past = list_rules(resume.account, resume.venue, resume.last_time)
    present = list_rules(account, venue, resume.last_time)
    differing = ["policy"] if not same_policy else []
    differing += [name for name in {**past, **present} if past.get(name) != present.get(name)]
    if differing:
        raise ParameterError(
            f"a resumed run must keep the same rules, was given another {', '.join(differing)}",
            where="bt.run, resume",
            cure="pass the policy, venue and account of the earlier result; flows after its end "
            "may be added",
        )


def list_rules(account: Account, venue: Venue, until: int) -> dict[str, object]:
    """Return the rules of a run by name: flows up to a time, and no rule that has no effect."""
    rules: dict[str, object] = {f"account.{name}": x for name, x in account.to_dict().items()}
    rules["account.flows"] = list_flows(account, until)
    rules |= {f"venue.{name}": x for name, x in venue.to_dict().items()}
    if not has_interest(venue):
        rules.pop("venue.interest_on", None)
    return rules


def find_loop_start(
    resume: Result | None, account: Account, policy: Policy, first: int
) -> LoopStart:
    """Return where the loop begins: a fresh account, or the end of an earlier result."""
    if resume is None:
        memory = tuple(map(float, start_memory(policy) or ()))
        return LoopStart(start_state(account), memory, first)
    state = resume.state._replace(funding_next=0, flow_next=0)
    return LoopStart(state, resume.memory, first, resume.traded)
