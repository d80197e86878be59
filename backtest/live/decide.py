"""``decide()``: the next order of a live account under a policy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    ParameterError,
    TimeLike,
    checked_only,
    format_time,
    set_single,
    to_nanoseconds,
)
from backtest.engine import Result, check_rules, read_resume, run, set_up_run
from backtest.live import several_positions
from backtest.live.act_or_not import (
    Filled,
    find_assumed,
    find_blocked,
    find_cold_columns,
    find_margin,
    find_old_data,
    find_other_account,
    find_slips,
    find_wait,
)
from backtest.live.decision import Caution, Cut, Decision, FundingDue
from backtest.live.facts import complete
from backtest.live.next_bar import Stated, find_price, look_ahead, read_stated
from backtest.live.snapshot import AccountSnapshot
from backtest.live.starting_state import find_traded, keep_memory, recall
from backtest.market import cadence, nearest_minute, with_clock
from backtest.options import refuse_options
from backtest.venue import compute_price, compute_value

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.engine import Setup, TradedDays
    from backtest.live.act_or_not import Filled
    from backtest.market import Market, Markets
    from backtest.policy import Policy


GAPS = (-0.01, 0.0, 0.01)


class Decided(NamedTuple):
    state: Any
    traded: TradedDays | None
    cautions: tuple[Caution, ...]


@checked_only("state", "assume")
def decide(  # noqa: PLR0913 - the terms of a decision, by name
    policy: Policy | Mapping[str, Policy],
    market: Market | Markets,
    *,
    venue: Any,
    account: Account,
    state: AccountSnapshot | Result,
    at: float | Mapping[str, float] | None = None,
    mark: float | Mapping[str, float] | None = None,
    funding: float | pd.DataFrame | Mapping[str, Any] | None = None,
    signal: Any = None,
    overlay: Policy | None = None,
    memory: str | Path | None = None,
    assume: Mapping[str, Any] | None = None,
    now: TimeLike | None = None,
    decide: str | None = None,
) -> Decision:
    """Return what a policy decides at the last close of a market, and the order it leads to.

    No order is sent. The account is taken through one more bar that opens at a stated price and
    stands still there, under the rules of :func:`backtest.run`: flows, interest, the gap check, and
    the fill with band, limits, lots and margin.

    Parameters
    ----------
    policy, market, venue, account, signal, overlay, decide
        As in :func:`backtest.run`. The market ends with the last closed bar.
    state : AccountSnapshot or Result
        The account at the last close. A result that ends earlier is continued to the last close.
    at : float or mapping of str to float, optional
        Price of the order, by instrument; default: the last close. It is the next open, or with
        ``fill="next_close"`` the next close.
    mark : float or mapping of str to float, optional
        Mark price at that time. Default: the price, times the last ratio of mark to last price.
    funding : float, DataFrame, or mapping of str to them, optional
        Rate of a settlement at the next open, which the position carried in pays, or settlements of
        the next bar as for :meth:`Market.from_frames`. Default: none.
    memory : str or Path, optional
        A file that keeps what the policy remembers between decisions; it is replaced at once. A
        policy that remembers nothing of the account is rebuilt from the market without one.
    assume : mapping, optional
        Facts that the snapshot lacks, such as ``{"peak_equity": "equity"}``.
    now : str or Timestamp, optional
        The present, in UTC, to refuse old data.

    Returns
    -------
    Decision

    Raises
    ------
    ParameterError
        If an argument is not allowed, or the snapshot lacks what the policy reads.
    PolicyError
        If the policy raises, looks ahead, or returns a negative number or the wrong type.
    """
    market = with_clock(market, decide, None)
    set_single(True)
    setup = set_up_run(market, policy, venue=venue, account=account, signal=signal, overlay=overlay)
    refuse_options(market, "the next order of an account")
    started = state.started if isinstance(state, Result) else find_start(state, assume)
    if started is not None:
        setup = setup.begin_at(started)
    present = None if now is None else to_nanoseconds(now, "now")
    stated = read_stated(setup, at, mark, funding)
    if isinstance(state, Result):
        refuse_with_result(memory=memory, assume=assume)
        decided = go_on(setup, state, market, policy, venue, account, signal, overlay)
    else:
        decided = start(setup, state, None if memory is None else Path(memory), assume)
    cautions = (
        *find_old_data(setup, present),
        *find_slips(setup, stated),
        *find_cold_columns(setup),
        *find_wait(setup),
        *decided.cautions,
    )
    return answer(setup, decided._replace(cautions=cautions), stated)


def find_start(snapshot: AccountSnapshot, assume: Any) -> int | None:
    """Return when an account began, ns; None if nothing says so."""
    if snapshot.started is not None:
        return int(snapshot.started.value)
    given = assume.get("started") if isinstance(assume, Mapping) else None
    return None if given is None else to_nanoseconds(given, "assume.started")


def refuse_with_result(**given: object) -> None:
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ParameterError(
            f"{' and '.join(names)} must be left out: a result knows its own state"
        )


def start(
    setup: Setup, snapshot: AccountSnapshot, file: Path | None, assume: Mapping[str, Any] | None
) -> Decided:
    completed = complete(setup, snapshot, assume)
    remembered = recall(setup, file)
    traded = find_traded(setup, completed.snapshot)
    state = several_positions.start(setup, completed, traded)
    state, kept = several_positions.ask(setup, state, remembered.numbers, traded)
    if file is not None and any(remembered.numbers):
        keep_memory(setup, file, remembered.numbers, kept)
    cautions = [*find_other_account(setup, snapshot), *find_assumed(completed)]
    if remembered.text:
        cautions.append(Caution(remembered.text, stops=False))
    return Decided(state, traded, tuple(cautions))


def go_on(
    setup: Setup, result: Result, market: Any, policy: Any, venue: Any, account: Account,
    signal: Any, overlay: Policy | None,
) -> Decided:  # fmt: skip
    last = int(setup.markets.time[-1])
    if result.last_time > last:
        raise ParameterError(
            f"state must end by the last bar of the market, {format_time(last)}, got a result that "
            f"ends with {format_time(result.last_time)}"
        )
    if result.last_time < last:
        result = run(
            market, policy, venue=venue, account=account, signal=signal, overlay=overlay,
            resume=result, compile=False,
        )  # fmt: skip
    earlier: Any = read_resume(result, None)
    check_rules(earlier, setup.policies, setup.overlay, setup.venues, setup.account)
    return Decided(result.state, result.traded, ())


# --------------------------------------------------------------------------------- the answer


def answer(setup: Setup, decided: Decided, stated: Stated) -> Decision:
    names, state = setup.markets.names, decided.state
    filled = fill_at(setup, decided, stated)
    leverage, target = read_decision(setup, state)
    before = several_positions.view_close(setup, state, decided.traded)
    ratio = find_ratio(before)
    cautions = (
        *decided.cautions,
        *find_margin(setup, ratio),
        *find_blocked(setup, filled, leverage),
    )
    return Decision(
        time=pd.Timestamp(int(setup.markets.time[-1]) + setup.markets.interval, tz="UTC"),
        leverage=leverage,
        venue_leverage=dict(zip(names, several_positions.read_settings(state), strict=True)),
        target=target,
        order={name: filled.sum_fills(i) for i, name in enumerate(names)},
        price={n: find_price(m, n, stated)[0] for n, m in setup.markets.items()},
        fill_price={name: price_fill(setup, filled, i) for i, name in enumerate(names)},
        costs={name: filled.sum_costs(i) for i, name in enumerate(names)},
        cuts=list_cuts(names, filled),
        warnings=cautions,
        by_gap=vary_gap(setup, decided, stated, filled),
        account=tabulate(names, before, filled),
        equity=(float(before[0].equity), filled.equity),
        margin_ratio=(ratio, find_ratio(filled.views)),
        funding_due=tuple(list_due(setup, before, filled)),
    )


def fill_at(setup: Setup, decided: Decided, stated: Stated) -> Filled:
    later = look_ahead(setup, stated)
    filled: Filled = several_positions.fill(setup, later, decided.state, decided.traded)
    return filled


def find_ratio(views: tuple[Any, ...]) -> float:
    return max(float(each.margin_ratio) for each in views)


def read_decision(setup: Setup, state: Any) -> tuple[dict[str, float], dict[str, float]]:
    names = setup.markets.names
    levels, signals = np.atleast_1d(state.leverage).tolist(), np.atleast_1d(state.signal).tolist()
    overlay = several_positions.read_overlay(state)
    leverage = dict(zip(names, levels, strict=True))
    target = {
        name: 0.0 if signal == 0.0 else float(signal) * leverage[name] * overlay
        for name, signal in zip(names, signals, strict=True)
    }
    return leverage, target


def price_fill(setup: Setup, filled: Filled, i: int) -> float:
    contract, value = setup.venues[setup.markets.names[i]].contract, filled.find_value(i)
    if math.isnan(value):
        return value
    return float(compute_price(contract.size, contract.kind == "inverse", value))


def list_cuts(names: tuple[str, ...], filled: Filled) -> tuple[Cut, ...]:
    return tuple(
        Cut(name, cause, amount, own.asked)
        for name, own in zip(names, filled.cuts, strict=True)
        if own is not None
        for cause, amount in own.cuts.items()
    )


def vary_gap(setup: Setup, decided: Decided, stated: Stated, filled: Filled) -> pd.DataFrame:
    names, rows = setup.markets.names, {}
    for gap in GAPS:
        found = filled
        if gap != 0.0 and setup.account.fill != "same_close":
            at, mark = {}, {}
            for name, market in setup.markets.items():
                price, marked = find_price(market, name, stated)
                at[name], mark[name] = price * (1.0 + gap), marked * (1.0 + gap)
            found = fill_at(setup, decided, stated._replace(at=at, mark=mark))
        rows[gap] = [found.sum_fills(i) for i in range(len(names))]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(names))
    return table.rename_axis("gap")


def tabulate(names: tuple[str, ...], before: tuple[Any, ...], filled: Filled) -> pd.DataFrame:
    fields = {"position": "position", "leverage": "leverage", "liquidation": "liquidation_price"}
    rows = {
        f"{name}_{when}": [float(getattr(each, field)) for each in views]
        for name, field in fields.items()
        for when, views in (("before", before), ("after", filled.views))
    }
    return pd.DataFrame(rows, index=list(names)).rename_axis("instrument")


def list_due(setup: Setup, before: tuple[Any, ...], filled: Filled) -> Iterator[FundingDue]:
    for i, (name, market) in enumerate(setup.markets.items()):
        if not market.funding_time.size:
            continue
        due = int(nearest_minute(market.funding_time[-1])) + cadence(market.funding_time)
        predicted = float(market.funding_predicted[-1])
        is_predicted = not math.isnan(predicted)
        rate = predicted if is_predicted else float(market.funding_rate[-1])
        contract = setup.venues[name].contract
        is_inverse = contract.kind == "inverse"
        unit = abs(compute_value(contract.size, is_inverse, float(market.mark_close[-1])))
        held = (float(each[i].position) * unit * rate for each in (before, filled.views))
        yield FundingDue(name, pd.Timestamp(due, tz="UTC"), rate, is_predicted, *held)
