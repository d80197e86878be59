"""cascade(): a shock, the liquidations it causes, and those that they cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import (
    AccountingError,
    Choice,
    Number,
    ParameterError,
    check_range,
    checked_only,
    parse_duration,
    record_making,
    to_plain,
)
from backtest.base.units import DAY
from backtest.crowd.account_margin import (
    find_failing,
    read_forced_rules,
    to_price,
    to_value,
)
from backtest.crowd.cascade_record import Cascade, build_cascade_manifest
from backtest.crowd.cascade_state import (
    SLACK,
    CascadeState,
    check_conservation,
    open_state,
    sum_money,
)
from backtest.crowd.crowd import Crowd
from backtest.crowd.crowd import find_price as find_start
from backtest.crowd.forced_prices import CascadeTerms, Pressure, find_price
from backtest.crowd.forced_round import Round, RoundOutcome, do_round
from backtest.crowd.impact import Impact, ImpactCurve
from backtest.crowd.liquidation_ladder import build_ladder, sweep_ladder
from backtest.crowd.own_account import describe_own_account, read_own_account
from backtest.engine import Result
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.base import FloatArray

MOST_ROUNDS = 200_000


class Settings(NamedTuple):
    shock: float
    insurance: float
    adl: str | None
    decay: float
    margin: float
    curve: ImpactCurve


@record_making
@checked_only("progress", "crowd", "venue", "impact")
def cascade(  # noqa: PLR0913 - keywords, each with a default that is said
    crowd: Crowd,
    venue: Venue,
    *,
    shock: float,
    impact: Impact,
    price: float | None = None,
    volume: float | None = None,
    insurance: float = 0.0,
    adl: str | None = "queue",
    recovery: str | None = None,
    round_time: str = "1m",
    jump: bool = False,
    margin: float = 1.0,
    me: Result | Account | Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Cascade:
    """Shock a crowd of accounts, and follow its liquidations until no account fails.

    Parameters
    ----------
    crowd : Crowd
        The accounts.
    venue : Venue
        Margin rules, mode and costs of liquidation. Its own ``liquidation.impact`` is not used:
        ``impact`` replaces it.
    shock : float
        The move that starts the cascade, a fraction of the price: -0.03 is a fall of 3 %.
    impact : SquareRoot or Linear
        How forced flow moves the price.
    price : float, optional
        The price before the shock; that of the crowd by default.
    volume : float, optional
        The money traded per day; that of the last 30 days of the crowd's market by default.
    insurance : float
        The insurance fund, in the settlement currency; may be infinite.
    adl : str or None
        How bankrupt positions that the fund cannot cover are closed: ``"queue"`` (against winners,
        highest return x leverage first), ``"pro-rata"`` (against all of the other side), or None
        (in the market; the shortfall is taken from profits).
    recovery : str, optional
        The half-life of the impact; None: it stays.
    round_time : str
        The time between rounds, for the recovery.
    jump : bool
        Whether the shock is a jump, on whose way nobody trades: all that fail in it trade at its
        end, and many are bankrupt. Otherwise the price moves through it, and each account trades
        at its liquidation price, or behind those that fail before it.
    margin : float
        The multiplier of maintenance margin.
    me : Result, Account or mapping, optional
        One's own account in the crowd: the state of a run at its end; an account that is long with
        its ``venue_leverage`` (or ``max_leverage``) at the price; or side, quantity, entry and
        collateral.
    progress : callable, optional
        Called with rounds done, and 0 as their number in all is not known.

    Returns
    -------
    Cascade

    Raises
    ------
    ParameterError
        If an argument is out of its range, or a price or volume is not known.
    AccountingError
        If the books do not balance after a round, or the rounds do not end.

    Notes
    -----
    The price is ``price (1 + shock - fall(Q))`` with Q the net flow that was forced so far, in
    notional at the price before the shock. Each round closes all accounts that fail at its price.
    So the last price is the clearing price nearest to that before the shock; ``clearing_prices``
    has the others.
    """
    if venue.contract.is_spot:
        raise ParameterError("venue must have margined positions, got one of kind 'spot'")
    start = find_start(price, None, crowd.price)
    known = crowd.at_venue(venue)
    market = crowd.market
    curve = impact.curve(volume=volume, market=market, contract=venue.contract)
    settings = read_settings(shock, insurance, adl, recovery, round_time, margin, curve)
    own = read_own_account(me, venue, start)
    everyone = known if own is None else own.join(known)
    rules = read_forced_rules(venue)
    terms = CascadeTerms(
        rules=rules,
        curve=curve,
        start=start,
        shocked=start * (1.0 + shock),
        unit=abs(float(to_value(rules.margin, start))),
        adl=adl,
        decay=settings.decay,
        is_jump=jump,
    )
    state = open_state(everyone, rules.margin, settings.insurance, settings.margin, start)
    clearing = find_clearing_prices(state, terms, shock)
    rows, outcomes, final = run_rounds(state, terms, progress)
    tables = {"rounds": pd.DataFrame(rows), "accounts": tabulate_outcomes(state, len(known))}
    tables["rounds"].index.name = "round"
    tables["ladder"] = replace(known, price=start).ladder().reset_index()
    facts = {
        "price": start,
        "shock": shock,
        "final_price": final,
        "multiplier": (final / start - 1.0) / shock if shock != 0.0 else math.nan,
        "reproduction": measure_reproduction(outcomes),
        "deficit": state.deficit,
        "days_empty": count_days_empty(rows, round_time),
        "liquidated": int(np.sum(state.first_round[: len(known)] > 0)),
        "clearing_prices": clearing,
        "me": None if own is None else describe_own_account(state, start, final),
    }
    arguments = {
        "impact": impact.to_dict() | {"law": type(impact).__name__},
        "curve": curve._asdict(),
        "insurance": settings.insurance,
        "adl": adl,
        "recovery": recovery,
        "round_time": round_time,
        "jump": bool(jump),
        "margin": settings.margin,
        "me": None if own is None else own.describe(),
    }
    manifest = build_cascade_manifest(known, venue, to_plain(facts), to_plain(arguments))
    return Cascade(tables, manifest, known)


def run_rounds(
    state: CascadeState,
    terms: CascadeTerms,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Round], list[RoundOutcome], float]:
    mark, pressure = terms.shocked, Pressure(0.0, terms.start)
    rows = [describe_start(state, terms)]
    outcomes: list[RoundOutcome] = []
    while True:
        failing = np.flatnonzero(find_failing(state.quantity, state.liquidation, mark))
        if not len(failing):
            return rows, outcomes, mark
        if len(rows) > MOST_ROUNDS:
            raise AccountingError(
                f"a cascade did not end in {MOST_ROUNDS:,} rounds, {len(failing)} still fail"
            )
        before = sum_money(state, float(to_value(state.rules, mark)))
        done = do_round(state, terms, failing, mark, pressure, len(rows))
        off = check_conservation(state, float(to_value(state.rules, mark)), before, len(rows))
        flow = pressure.flow + done.flow
        fall = float(terms.curve.fall(flow))
        price = find_price(terms, fall)
        rows.append(describe_round(state, done, mark, price, len(failing), off))
        outcomes.append(done)
        if terms.decay < 1.0:
            fall *= terms.decay
            flow = terms.curve.flow_of(fall)
        pressure = Pressure(flow, done.level)
        mark = find_price(terms, fall)
        if progress is not None:
            progress(len(rows) - 1, 0)


def describe_start(state: CascadeState, terms: CascadeTerms) -> Round:
    nothing = dict.fromkeys(Round._fields, 0.0)
    known = {"mark": terms.start, "price": terms.shocked, "insurance": state.fund}
    return Round(**{**nothing, **known, "accounts": 0})  # type: ignore[arg-type] # by name


def describe_round(
    state: CascadeState, done: RoundOutcome, mark: float, price: float, accounts: int, off: float
) -> Round:
    return Round(
        mark=mark,
        price=price,
        accounts=accounts,
        long=done.long,
        short=done.short,
        insurance=state.fund,
        adl=done.adl,
        fees=done.fees,
        deficit=done.deficit,
        fund_paid=done.fund_paid,
        adl_paid=done.adl_paid,
        haircuts=done.haircuts,
        unpaid=done.unpaid,
        off=off,
    )


def measure_reproduction(outcomes: list[RoundOutcome]) -> float:
    if len(outcomes) < 2:
        return 0.0
    first = abs(outcomes[0].flow)
    return outcomes[1].fresh / first if first > 0.0 else 0.0


def count_days_empty(rows: list[Round], round_time: str) -> float:
    if not 0.0 < rows[0].insurance < math.inf:
        return 0.0
    length = parse_duration(round_time)
    empty = sum(each.insurance <= SLACK * rows[0].insurance for each in rows)
    return empty * length / DAY


def find_clearing_prices(state: CascadeState, terms: CascadeTerms, shock: float) -> list[float]:
    side = 1.0 if shock < 0.0 else -1.0
    ladder = build_ladder(
        state.liquidation, state.quantity * terms.unit, terms.start, is_long=shock < 0.0
    )
    moves: FloatArray = sweep_ladder(ladder, abs(shock), terms.curve).roots[:100]
    return [terms.start * max(1.0 - side * float(move), 0.0) for move in moves]


def tabulate_outcomes(state: CascadeState, n: int) -> pd.DataFrame:
    closed = state.closed[:n]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = state.closed_money[:n] / closed
    return pd.DataFrame(
        {
            "quantity": state.quantity[:n],
            "round": state.first_round[:n],
            "close_price": np.where(closed > 0.0, to_price(state.rules, value), np.nan),
            "deleveraged": state.deleveraged[:n],
            "haircut": state.haircut[:n],
        }
    )


# ------------------------------------------------------------------------------------- arguments


def read_settings(
    shock: float,
    insurance: float,
    adl: str | None,
    recovery: str | None,
    round_time: str,
    margin: float,
    curve: ImpactCurve,
) -> Settings:
    Number(-1.0, 10.0, open_low=True).check("shock", shock)
    fund = check_range("insurance", insurance, low=0.0)
    if adl is not None:
        Choice("queue", "pro-rata").check("adl", adl)
    step = parse_duration(round_time, "round_time")
    decay = 1.0
    if recovery is not None:
        decay = 0.5 ** (step / parse_duration(recovery, "recovery"))
    rise = check_range("margin", margin, low=0.0, high=100.0, open_low=True)
    return Settings(float(shock), fund, adl, decay, rise, curve)
