"""Where a run begins: at a start, or after an earlier run, whose markets and rules must fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import (
    DataError,
    ParameterError,
    TimeLike,
    format_duration,
    format_time,
    to_nanoseconds,
    to_plain,
)
from backtest.engine.loop_inputs import has_interest
from backtest.engine.manifest import describe_policies, describe_policy
from backtest.engine.run_record import RunRecord
from backtest.market import Market, Markets, label_names, remake
from backtest.market.tables import DIVIDEND
from backtest.policy import Policy
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord


def find_start_bar(market: Market | Markets, start: TimeLike | None) -> int:
    first = 0
    if start is not None:
        first = int(np.searchsorted(market.time, to_nanoseconds(start, "start")))
        if first == market.n_bars:
            last = format_time(int(market.time[-1]))
            raise ParameterError(f"start must lie before the last bar, {last} UTC, got {start}")
    if market.n_bars - first < 2:
        raise ParameterError(
            f"a run needs at least 2 bars, for the first never trades, got {market.n_bars - first} "
            + (f"of {market!r}" if start is None else f"from start {start} on")
        )
    return first


def join_resumed(resume: RunRecord, markets: Markets) -> tuple[Markets, int]:
    last, markets = resume.last_time, put_before(resume, markets)
    first = int(np.searchsorted(markets.time, last, side="right"))
    is_inside = 0 < first < markets.n_bars and int(markets.time[first - 1]) == last
    is_next = is_inside and int(markets.time[first]) == last + markets.interval
    if not (is_next or (is_inside and markets.sessions)):
        raise DataError(
            f"the markets of a resumed run must hold the bar of {format_time(last)} UTC, the last "
            "one of the earlier run, the history that the policy's columns need, and bars after "
            f"it, got {format_time(markets.start)} to {format_time(markets.end)} UTC"
        )
    check_marks(resume, markets, first)
    return close_ended(resume, markets, first), first


def put_before(resume: RunRecord, markets: Markets) -> Markets:
    if not is_same_account(markets.names, resume.names):
        raise ParameterError(
            f"a resumed run must have the same instruments in the same order, "
            f"{', '.join(resume.names)}, got {', '.join(markets.names)}"
        )
    if resume.markets is None:
        return markets
    last, joined = resume.last_time, {}
    for (name, market), before in zip(markets.items(), resume.markets.values(), strict=True):
        if before.start < market.start <= last + market.interval:
            joined[name] = _concatenate(before, market)
    return replace_markets(markets, joined)


def is_same_account(names: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return names == others or len(names) == len(others) == 1


def replace_markets(markets: Markets, changed: dict[str, Market]) -> Markets:
    if not changed:
        return markets
    return remake(markets, {**markets, **changed})


def check_marks(resume: RunRecord, markets: Markets, first: int) -> None:
    for mark, (name, market), (listed, gone) in zip(
        resume.marks[-1].tolist(), markets.items(), markets.spans.tolist(), strict=True
    ):
        if not listed < first <= gone:
            continue
        found = float(market.mark_close[first - 1 - listed])
        if found != mark:
            raise DataError(
                f"the mark close of {name} at {format_time(resume.last_time)} UTC must be the one "
                f"the earlier run ended on, {mark!r}, got {found!r}; resume on the same data"
            )


def close_ended(resume: RunRecord, markets: Markets, first: int) -> Markets:
    held = resume.of_positions("quantity")[-1].tolist()
    ended = {
        name: append_last_bar(market, int(markets.time[first]))
        for (name, market), gone, quantity in zip(
            markets.items(), markets.spans[:, 1].tolist(), held, strict=True
        )
        if gone == first and quantity != 0.0
    }
    return replace_markets(markets, ended)


def _concatenate(before: Market, after: Market) -> Market:
    kept = int(np.searchsorted(before.time, after.start))
    if after.interval != before.interval or set(after.columns) != set(before.columns):
        raise DataError(
            "the market of a resumed run must have the interval and columns of the earlier one, "
            f"{format_duration(before.interval)} and {sorted(before.columns)}, got "
            f"{format_duration(after.interval)} and {sorted(after.columns)}"
        )
    bars = ("time", "open", "high", "low", "close", "volume")
    marks = ("mark_open", "mark_high", "mark_low", "mark_close")
    events = ("funding_time", "funding_rate", "funding_mark", "funding_predicted")
    cuts = dict.fromkeys((*bars, *marks), (kept, 0))
    later = int(np.searchsorted(after.funding_time, after.start - after.interval // 4))
    ours = np.concatenate([after.funding_time[later:], [after.end]])
    funded = int(np.searchsorted(before.funding_time, ours[0]))
    cuts |= dict.fromkeys(events, (funded, later))
    joined = {
        name: np.concatenate([getattr(before, name)[:stop], getattr(after, name)[start:]])
        for name, (stop, start) in cuts.items()
    }
    columns = {
        name: np.concatenate([before.columns[name][:kept], after.columns[name]])
        for name in after.columns
    }
    return Market(
        **joined,
        instrument=after.instrument,
        interval=after.interval,
        has_mark=before.has_mark and after.has_mark,
        columns=columns,
        synthetic=before.synthetic or after.synthetic,
        sessions=after.sessions,
        decide=after.decide,
        filled={**before.filled, **after.filled},
        source=f"{before.source} then {after.source}",
    )


def append_last_bar(
    market: Market, time: int, price: float | None = None, mark: float | None = None
) -> Market:
    last = float(market.close[-1]) if price is None else price
    marked = float(market.mark_close[-1]) if mark is None else mark
    rows = {"time": time, **dict.fromkeys(("open", "high", "low", "close"), last), "volume": 0.0}
    rows |= dict.fromkeys(("mark_open", "mark_high", "mark_low", "mark_close"), marked)
    kept = ("funding_time", "funding_rate", "funding_mark", "funding_predicted")
    return Market(
        **{name: np.append(getattr(market, name), value) for name, value in rows.items()},
        **{name: getattr(market, name) for name in kept},
        columns={
            name: np.append(each, np.nan if name == DIVIDEND else each[-1])
            for name, each in market.columns.items()
        },
        instrument=market.instrument,
        interval=market.interval,
        has_mark=market.has_mark,
        synthetic=market.synthetic,
        sessions=market.sessions,
        decide=market.decide,
        filled=market.filled,
        source=f"{market.source} and its last prices",
    )


def read_resume(resume: object, start: TimeLike | None) -> RunRecord | None:
    if resume is None:
        return None
    if not isinstance(resume, RunRecord):
        raise ParameterError(f"resume must be the result of a run, got {resume!r:.60}")
    if start is not None:
        raise ParameterError(
            f"start must be left out with resume, which goes on where it ended, got {start}"
        )
    return resume


def check_rules(
    resume: RunRecord | None,
    policies: Mapping[str, Policy],
    overlay: Policy | None,
    venues: Mapping[str, Venue],
    account: Account,
) -> None:
    if resume is None:
        return
    above = None if overlay is None else describe_policy(overlay)
    present: Any = to_plain({"policy": describe_policies(policies), "overlay": above})
    past: Any = to_plain(
        {"policy": resume.manifest["policy"], "overlay": resume.manifest.get("overlay")}
    )
    present |= list_rules(account, venues, resume.last_time)
    past |= list_rules(resume.account, resume.venues, resume.last_time)
    differing = [name for name in {**past, **present} if past.get(name) != present.get(name)]
    if differing:
        raise ParameterError(
            f"a resumed run must keep the same rules, got another {', '.join(differing)}; flows "
            "after the end of the earlier run may be added"
        )


def list_rules(account: Account, venues: Mapping[str, Venue], until: int) -> dict[str, Any]:
    rules = {f"account.{name}": x for name, x in describe_account(account, until).items()}
    for instrument, label in label_names(venues).items():
        venue, of = venues[instrument], f" of {label}" * bool(label)
        rules |= {f"venue.{name}{of}": x for name, x in venue.to_dict().items()}
        if not has_interest(venue):
            rules.pop(f"venue.interest_on{of}", None)
    plain: dict[str, Any] = to_plain(rules)
    return plain


def describe_account(account: Account, until: int) -> dict[str, Any]:
    found = replace(account, flows=None).to_dict()
    for each in found.get("collateral", ()):
        if isinstance(each["prices"], Mapping):
            each["prices"] = each["prices"]["instrument"]
    return {**found, "flows": list_flows(account, until)}


def list_flows(account: Account, until: int) -> list[tuple[int, float]]:
    """Return the flows of an account up to a time, as (ns, amount)."""
    if account.flows is None:
        return []
    stamps = pd.DatetimeIndex(account.flows.index).as_unit("ns").asi8.tolist()
    pairs = zip(stamps, account.flows.tolist(), strict=True)
    return [(stamp, amount) for stamp, amount in pairs if stamp <= until]
