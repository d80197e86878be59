"""cascade(): a shock, the liquidations it causes, and those that they cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import Account, find_least
from backtest.base import (
    AccountingError,
    Choice,
    FloatArray,
    Number,
    ParameterError,
    check_range,
    checked_only,
    compute_id,
    find_versions,
    parse_duration,
    record_making,
    repr_plain,
    to_plain,
)
from backtest.base.units import DAY, TOLERANCE
from backtest.crowd.cascade_record import PAYERS, Cascade
from backtest.crowd.crowd import ARRAYS_OF_CROWD, Crowd, find_price, to_price, to_value
from backtest.crowd.impact import Impact, ImpactCurve
from backtest.crowd.rounds import (
    SLACK,
    Books,
    Round,
    Terms,
    check_books,
    do_round,
    find_failing,
    open_books,
    read_terms,
)
from backtest.engine import Result, describe_history
from backtest.venue import Venue, read_rules

MOST_ROUNDS = 200_000


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
    start = find_price(price, None, crowd.price)
    known = crowd.at_venue(venue)
    curve = impact.curve(volume=volume, market=crowd.market, contract=venue.contract)
    Number(-1.0, 10.0, open_low=True).check("shock", shock)
    check_range("insurance", insurance, low=0.0)
    if adl is not None:
        Choice("queue", "pro-rata").check("adl", adl)
    length, decay = parse_duration(round_time, "round_time"), 1.0
    if recovery is not None:
        decay = 0.5 ** (length / parse_duration(recovery, "recovery"))
    check_range("margin", margin, low=0.0, high=100.0, open_low=True)
    own = read_own_account(me, venue, start)
    terms = read_terms(venue, curve, start, float(shock), adl, jump=jump)
    everyone = known if own is None else join(known, own)
    books = open_books(everyone, terms.rules, insurance, margin, start)
    clearing = find_clearing_prices(books, terms, shock)
    rows, outcomes, final = run_rounds(books, terms, decay, progress)
    rounds = pd.DataFrame(rows)
    rounds.index.name = "round"
    ladder = replace(known, price=start).ladder().reset_index()
    tables = {
        "rounds": rounds, "accounts": tabulate_outcomes(books, len(known)), "ladder": ladder,
    }  # fmt: skip
    first = outcomes[0].flow if outcomes else 0.0
    is_empty = rounds["insurance"] <= SLACK * insurance
    outcome = {
        "price": start,
        "shock": shock,
        "final_price": final,
        "multiplier": (final / start - 1.0) / shock if shock != 0.0 else math.nan,
        "reproduction": outcomes[1].fresh / abs(first) if len(outcomes) > 1 and first else 0.0,
        "deficit": float(rounds["deficit"].sum()),
        "days_empty": int(is_empty.sum()) * length / DAY if 0.0 < insurance < math.inf else 0.0,
        "liquidated": int(np.sum(books.first_round[: len(known)] > 0)),
        "clearing_prices": clearing,
        "me": None if own is None else describe_own_account(books, start, final),
    }
    arguments = {
        "impact": impact.to_dict() | {"law": type(impact).__name__},
        "curve": curve._asdict(),
        "insurance": insurance,
        "adl": adl,
        "recovery": recovery,
        "round_time": round_time,
        "jump": bool(jump),
        "margin": margin,
        "me": own,
    }
    return Cascade(tables, build_manifest(known, venue, outcome, arguments), known)


def run_rounds(
    books: Books, terms: Terms, decay: float, progress: Callable[[int, int], None] | None
) -> tuple[list[dict[str, float]], list[Round], float]:
    mark, flow, level = terms.shocked, 0.0, terms.start
    names = ("accounts", "long", "short", "insurance", "adl", "fees", "deficit", *PAYERS, "off")
    rows = [{"mark": terms.start, "price": mark} | dict.fromkeys(names, 0.0)]
    rows[0] |= {"accounts": 0, "insurance": books.fund}
    outcomes: list[Round] = []
    while len(failing := find_failing(books, mark)):
        if len(rows) > MOST_ROUNDS:
            raise AccountingError(
                f"a cascade did not end in {MOST_ROUNDS:,} rounds, {len(failing)} still fail"
            )
        value = float(to_value(terms.rules, mark))
        before = books.sum_money(value)
        done = do_round(books, terms, failing, mark, flow, level, len(rows))
        off = check_books(books, value, before, len(rows))
        flow, level = flow + done.flow, done.level
        fall = float(terms.curve.fall(flow))
        found = {"mark": mark, "price": terms.find_price(fall), "accounts": len(failing)}
        found |= {"insurance": books.fund, "off": off}
        rows.append({name: found.get(name, getattr(done, name, 0.0)) for name in rows[0]})
        outcomes.append(done)
        if decay < 1.0:
            fall *= decay
            flow = terms.curve.flow_of(fall)
        mark = terms.find_price(fall)
        if progress is not None:
            progress(len(rows) - 1, 0)
    return rows, outcomes, mark


def find_clearing_prices(books: Books, terms: Terms, shock: float) -> list[float]:
    side = 1.0 if shock < 0.0 else -1.0
    notional = books.quantity * terms.unit
    moves = find_clearing_moves(
        side * (1.0 - books.liquidation / terms.start), side * notional, abs(shock), terms.curve
    )
    return [terms.start * max(1.0 - side * float(move), 0.0) for move in moves[:100]]


def find_clearing_moves(
    distance: FloatArray, notional: FloatArray, shock: float, curve: ImpactCurve
) -> FloatArray:
    """Return all adverse moves at which a one-sided cascade clears, the nearest first.

    Accounts with a positive ``notional`` fail at an adverse move of ``distance``, fractions of the
    price before the ``shock``. With k of them liquidated the move is ``shock + fall(Q_k)``; it
    clears if the next one lies farther, and the last one does not.
    """
    is_known = (notional > 0.0) & ~np.isnan(distance)
    order = np.argsort(distance[is_known], kind="stable")
    distance, notional = distance[is_known][order], notional[is_known][order]
    move = shock + curve.fall(np.concatenate(([0.0], np.cumsum(notional))))
    slack = TOLERANCE * (1.0 + np.abs(distance))
    next_holds = np.append(distance > move[:-1] + slack, True)
    last_fails = np.append(True, distance <= move[1:] + slack)
    return np.asarray(move[next_holds & last_fails])


def tabulate_outcomes(books: Books, n: int) -> pd.DataFrame:
    closed = books.closed[:n]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = books.closed_money[:n] / closed
    return pd.DataFrame(
        {
            "quantity": books.quantity[:n],
            "round": books.first_round[:n],
            "close_price": np.where(closed > 0.0, to_price(books.rules, value), np.nan),
            "deleveraged": books.deleveraged[:n],
            "haircut": books.haircut[:n],
        }
    )


def build_manifest(
    crowd: Crowd, venue: Venue, outcome: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    market, content = crowd.market, crowd.content_hash
    data = {
        **describe_history(market),
        "source": repr(crowd if market is None else market),
        "content_hash": content if market is None else market.content_hash,
    }
    manifest: dict[str, Any] = to_plain(
        {
            "kind": "cascade",
            "data": data,
            "crowd": {**crowd.origin, "content_hash": content},
            "venue": venue.to_dict(),
            "arguments": dict(arguments),
            "outcome": dict(outcome),
            "versions": find_versions(),
        }
    )
    return {"id": compute_id(manifest), **manifest}


# ----- one's own account -----


def join(crowd: Crowd, own: Mapping[str, float]) -> Crowd:
    added: dict[str, Any] = {
        name: np.append(getattr(crowd, name), own[name]) for name in ARRAYS_OF_CROWD
    }
    return replace(crowd, **added)


def read_own_account(
    me: Result | Account | Mapping[str, Any] | None, venue: Venue, price: float
) -> dict[str, float] | None:
    """Return the quantity, entry price, collateral and equity of one's own account."""
    if me is None:
        return None
    if isinstance(me, Result):
        return read_result(me)
    if isinstance(me, Account):
        return read_account(me, venue, price)
    if isinstance(me, Mapping):
        row = Crowd.from_positions(pd.DataFrame([dict(me)]))
        return {name: float(getattr(row, name)[0]) for name in ARRAYS_OF_CROWD}
    raise ParameterError(
        f"me must be a Result, an Account or a position as a mapping of side, quantity, entry and "
        f"collateral, got {repr_plain(me)}"
    )


def read_result(result: Result) -> dict[str, float]:
    last = {name: float(values[-1]) for name, values in result.record.of_one().items()}
    quantity, entry = last["quantity"], last["entry"]
    if quantity == 0.0:
        raise ParameterError("me must be a run that ends with a position, got a flat end")
    if result.account.margin == "isolated":
        collateral, more = last["margin"], last["cash"] + last["reserve"]
    else:
        collateral, more = last["cash"] + quantity * entry, last["reserve"]
    price = float(to_price(read_rules(result.venue), np.asarray(entry)))
    return dict(zip(ARRAYS_OF_CROWD, (quantity, price, collateral, collateral + more), strict=True))


def read_account(account: Account, venue: Venue, price: float) -> dict[str, float]:
    leverage = account.venue_leverage
    leverage = find_least(account.max_leverage) if leverage is None else leverage
    if not 0.0 < leverage < math.inf:
        raise ParameterError(
            f"me must be an account with a finite venue_leverage or max_leverage, got {leverage:g}"
        )
    capital = account.capital
    size = capital * leverage / abs(float(to_value(read_rules(venue), price)))
    found = (size, price, capital, capital + account.reserve)
    return dict(zip(ARRAYS_OF_CROWD, found, strict=True))


def describe_own_account(books: Books, start: float, final: float) -> dict[str, Any]:
    moved = float(to_value(books.rules, start)) - books.entry[-1]
    before = float(books.first_equity[-1] + books.first_quantity[-1] * moved)
    after = float(books.equity(float(to_value(books.rules, final)))[-1])
    row = tabulate_outcomes(books, len(books.quantity)).iloc[-1]
    return {
        "liquidated": bool(row["round"] > 0),
        "round": int(row["round"]),
        "quantity": float(row["quantity"]),
        "close_price": float(row["close_price"]),
        "equity_before": before,
        "equity": after,
        "loss": before - after,
        "deleveraged": float(row["deleveraged"]),
        "haircut": float(row["haircut"]),
        "liquidation_price": float(books.liquidation[-1]),
    }
