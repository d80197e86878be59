"""The conditions of a test: data, rules, account, and what is decided when.

Functions of the rooms take them first, and alone. Users make a ``bt.Backtest``, which is these
conditions with the questions that can be asked of them as methods.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeAlias, TypeVar

from backtest import core
from backtest.account import Account
from backtest.account.account import BY_INSTRUMENT
from backtest.core.code_names import pd
from backtest.core.units import DAY
from backtest.engine import checks
from backtest.engine.policies import check_overlay
from backtest.margin import ScenarioMargin
from backtest.market import Market, Markets, Weights, as_given, as_markets, read_source, with_clock
from backtest.policies import Policy
from backtest.signals.directions import cut_rows
from backtest.signals.rules import SignalRule, read_named
from backtest.venue import Venue, VenueLike, read_venue

_T = TypeVar("_T")
_C = TypeVar("_C", bound="Conditions")

AnyPolicy: TypeAlias = Policy | Mapping[str, Policy]
SignalLike: TypeAlias = "Weights | pd.Series | float | str | SignalRule"
DetailLike: TypeAlias = "Market | Mapping[str, Market] | str | Path | None"


@dataclass(frozen=True, eq=False, repr=False)
class Conditions:
    """What a test of policies is made of; ``bt.Backtest`` documents the fields.

    They are checked when they are made, and do not change: :meth:`replace` returns others.
    """

    market: Market | Markets
    _: KW_ONLY
    venue: VenueLike
    account: Account
    signal: SignalLike = None
    overlay: Policy | None = None
    calendar: str = "auto"
    sampling: str = "1d"
    decision_interval: str | None = None
    detail: DetailLike = None
    start: core.TimeLike | None = None
    end: core.TimeLike | None = None

    def __post_init__(self) -> None:
        """Read and check the fields; ParameterError or VenueError names the one at fault.

        Fields are written into ``vars(self)``, as a frozen dataclass refuses to be assigned to.
        """
        if not isinstance(self.account, Account):
            raise core.ParameterError(
                f"account must be an Account, got {core.repr_plain(self.account)}"
            )
        markets = as_markets(self.market)
        if isinstance(self.venue, str) and ":" not in self.venue and len(markets.names) > 1:
            raise core.VenueError(
                f"venue must be of each instrument, got {self.venue!r}; "
                f"bt.Venue.preset({self.venue!r}, {[*markets.names]})"
            )
        read: dict[str, Any] = {
            "market": as_given(markets, self.market),
            "venue": read_venue(self.venue),
            "overlay": check_overlay(self.overlay),
        }
        if self.calendar == "auto":
            read["calendar"] = "252" if markets.sessions else "365"
        vars(self).update(read)
        check_span(self.start, self.end)

        # Conditions with longer bars or an end are checked as the plain ones made of them.
        if plain(self) is self:
            check_conditions(self, markets)

    def __repr__(self) -> str:
        venue = ", ".join(dict.fromkeys(map(repr, core.list_values(self.venue))))
        return f"<{type(self).__name__} of {self.market!r} on {venue:.60}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in FIELDS}

    def __setstate__(self, fields: dict[str, Any]) -> None:
        vars(self).update(fields)

    def replace(self, **changes: Any) -> Self:
        """Return the test with other fields.

        In another market with sessions, years count by sessions unless ``calendar`` is given.
        """
        if "market" in changes and as_markets(changes["market"]).sessions:
            changes.setdefault("calendar", "auto")
        return replace(self, **changes)


def check_span(start: core.TimeLike | None, end: core.TimeLike | None) -> None:
    """Raise ParameterError if a span ends before it begins."""
    if start is None or end is None:
        return
    if core.to_nanoseconds(start, "start") >= core.to_nanoseconds(end, "end"):
        raise core.ParameterError(f"start must lie before end, got {start} and {end}")


def check_conditions(conditions: Conditions, markets: Markets) -> None:
    """Raise ParameterError where the fields of plain conditions do not fit each other.

    Plain are conditions without longer bars and without an end of their own (:func:`plain`).
    """
    calendar = conditions.calendar
    core.Choice("365", "252", "auto").check("calendar", calendar)
    if markets.sessions and calendar != "252":
        raise core.ParameterError("calendar must be '252' for a market with sessions, got '365'")
    period = core.parse_duration(conditions.sampling, "sampling")
    if calendar == "252" and period != DAY:
        raise core.ParameterError(
            "sampling must be '1d' with calendar='252', which counts sessions, got "
            f"{conditions.sampling!r}"
        )

    last_open = int(markets.time[-1])
    start = conditions.start
    if start is not None and core.to_nanoseconds(start, "start") > last_open:
        raise core.ParameterError(
            f"start must lie before the last bar, {core.format_time(last_open)} UTC, got {start}"
        )

    # A text must name a column or a rule. Markets, venues and account must fit each other:
    # all in one account, or each instrument in an account of its own.
    read_named(conditions.signal, conditions.market)
    try:
        setting(conditions)
    except core.ParameterError:
        if not fits_apart(conditions):
            raise


def find_kept(conditions: Conditions) -> dict[str, Any]:
    """Return what was computed of conditions and is kept with them, to read and to write."""
    kept: dict[str, Any] = vars(conditions).setdefault("_kept", {})
    return kept


def keep(name: str) -> Callable[[Callable[[_C], _T]], Callable[[_C], _T]]:
    """Return a decorator: the function computes its answer once for each conditions, and keeps it.

    The answer is kept with the conditions, under ``name``.
    """

    def wrap(find: Callable[[_C], _T]) -> Callable[[_C], _T]:
        """Return a function that calls ``find`` once for each conditions, and keeps its answer."""

        @functools.wraps(find)
        def call(conditions: _C) -> _T:
            """Return what is kept, computed at the first call."""
            memory = find_kept(conditions)
            if name not in memory:
                memory[name] = find(conditions)
            value: _T = memory[name]
            return value

        return call

    return wrap


def fields(conditions: Conditions) -> dict[str, Any]:
    """Return the fields beside the market, by name."""
    return {name: vars(conditions)[name] for name in FIELDS[1:]}


def is_plain(conditions: Conditions) -> bool:
    """Return whether policies decide at each close of the market as it is given."""
    return (
        conditions.decision_interval is None
        and conditions.detail is None
        and conditions.end is None
    )


def plain(conditions: _C) -> _C:
    """Return the same by the bars of the account, without ``detail``, ``end`` and clock."""
    if isinstance(conditions.market, Unread):
        raise core.DataError(
            f"{conditions.market.why}; give it: bt.Backtest.of(result).replace(market=...)"
        )
    return conditions if is_plain(conditions) else make_plain(conditions)


@keep("plain")
def make_plain(conditions: _C) -> _C:
    """Return conditions with a plain market: their longer bars and their end are part of it."""
    decision_interval = conditions.decision_interval
    detail = conditions.detail
    whole = with_clock(conditions.market, decision_interval, detail)
    changes = {"market": whole, "decision_interval": None, "detail": None, "end": None}

    if conditions.end is not None:
        before_end = as_markets(conditions.market).slice(None, conditions.end)
        ended = with_clock(as_given(before_end, conditions.market), decision_interval, detail)
        changes["market"] = ended
        changes["signal"] = cut_rows(conditions.signal, whole, ended)
    return replace(conditions, **changes)


def cut(conditions: Conditions, rows: _T) -> _T:
    """Return the rows of a table by time that are of bars before ``end``."""
    if conditions.end is None or rows is None:
        return rows
    whole = with_clock(conditions.market, conditions.decision_interval, conditions.detail)
    before_end: _T = cut_rows(rows, whole, plain(conditions).market)
    return before_end


def fits_apart(conditions: Conditions) -> bool:
    """Return whether each of several instruments fits an account of its own.

    Then conditions that do not fit one account of all may still test the instruments apart.
    """
    markets = as_markets(conditions.market)
    if len(markets) < 2:
        return False

    try:
        for name, market in markets.items():
            account = conditions.account.for_instrument(name)
            check_panel(as_markets(market), account, core.pick_value(conditions.venue, name))
    # KeyError: a table by instrument lacks one of them.
    except (core.ParameterError, KeyError):
        return False
    return True


@keep("setting")
def setting(conditions: Conditions) -> tuple[Markets, dict[str, Venue], Account]:
    """Return the markets, the venue of each, and the account, checked together once."""
    markets = as_markets(end_expired(conditions.market, conditions.venue))
    return markets, *check_panel(markets, conditions.account, conditions.venue)


class Unread:
    """Stands for the market of a loaded result that could not be read again, and says why."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __repr__(self) -> str:
        return "a market that was not read"


FIELDS = tuple(field.name for field in dataclasses.fields(Conditions))


_make: Any = core.checked_only("calendar")(Conditions.__init__)


@functools.wraps(_make)
def make_conditions(self: object, *positional: Any, **named: Any) -> None:
    """Check the names of the arguments, and then the fields."""
    needed = ("market", "venue", "account")[len(positional[:1]) :]
    core.check_names("bt.Backtest", named, FIELDS, needed)
    _make(self, *positional, **named)


Conditions.__init__ = make_conditions  # type: ignore[method-assign] # as it was, with other errors


def check_panel(markets: Markets, account: Account, venue: Any) -> tuple[dict[str, Venue], Account]:
    """Return the venue of each market and the account, checked against each other.

    Settings for instruments that were cut from the markets are dropped first.
    """
    venues = checks.read_venues(venue, markets)
    account = drop_other_instruments(account, markets)
    requirement = account.requirement.resolve(markets.names)
    if requirement is not account.requirement:
        account = replace(account, requirement=requirement)
    checks.check_run(markets, venues, account)
    return venues, account


def drop_other_instruments(account: Account, markets: Markets) -> Account:
    """Return an account without its settings for instruments that are not in the markets any more.

    These were cut from the markets: ``last_opens`` still names them.
    """
    gone = {name for name in markets.last_opens if name not in markets}
    if not gone:
        return account

    changes: dict[str, Any] = {}
    for field in BY_INSTRUMENT:
        table = getattr(account, field)
        if isinstance(table, core.FrozenTable):
            changes[field] = {name: value for name, value in table.items() if name not in gone}

    if isinstance(account.requirement, ScenarioMargin):
        changes |= drop_groups(account, account.requirement, [*markets.last_opens], gone)
    return replace(account, **changes)


def drop_groups(
    account: Account, rule: ScenarioMargin, names: list[str], gone: set[str]
) -> dict[str, Any]:
    """Return requirement and collateral of an account after instruments were cut from the markets.

    ``names`` are all instruments, ``gone`` those that were cut. A group of scenarios that has lost
    its last instrument is gone too, and collateral that canceled its risk cancels none then.
    """
    smaller = rule.without(gone)
    groups_before = {*rule.list_groups(names)}
    groups_left = {*smaller.list_groups([name for name in names if name not in gone])}
    lost = groups_before - groups_left

    collateral = []
    for asset in account.collateral:
        if asset.cancels_risk in lost:
            asset = replace(asset, cancels_risk=None)  # noqa: PLW2901 - the same coin
        collateral.append(asset)
    return {"requirement": smaller, "collateral": collateral}


def end_expired(market: Any, venue: Any) -> Any:
    """Return markets in which each contract ends when it expires."""
    if not isinstance(market, Markets):
        return market

    ends = {}
    for name in market:
        of_instrument = venue.get(name) if isinstance(venue, Mapping) else venue
        if isinstance(of_instrument, Venue) and of_instrument.contract.expires is not None:
            ends[name] = core.to_nanoseconds(of_instrument.contract.expires)
    if not ends:
        return market
    return market.end_at(ends)


# The conditions of a result.


def recall(result: Any) -> Conditions:
    """Return the conditions under which a result was computed.

    Those of a loaded result are read from its files. Its market is loaded again from the recorded
    path, if that holds the same data; else it is an :class:`Unread`. Raises DataError for what a
    loaded result does not hold: an overlay, or the signal of policies that decide on longer bars.
    """
    if result.setup is not None:
        run_under: Conditions = result.setup.test
        return run_under

    manifest = result.manifest
    names = result.names
    if "overlay" in manifest:
        raise core.DataError(
            f"a loaded result does not hold its overlay, {manifest['overlay']['text']}: give a new "
            "bt.Backtest"
        )
    recorded: dict[str, Any] = {
        "venue": result.venues[names[0]] if len(names) == 1 else result.venues,
        "account": result.account,
        "signal": recall_signal(result),
        "calendar": manifest["calendar"],
        "sampling": manifest["sampling"],
        "start": core.utc_index(result.time)[0],
    }
    try:
        market = recall_market(result)
    except core.BacktestError as error:
        known = dict.fromkeys(FIELDS) | recorded | {"market": Unread(str(error))}
        return restore(Conditions, known)
    return Conditions(market, **recorded)


def recall_signal(result: Any) -> SignalLike:
    """Return the signal of a loaded result: a number, nothing, or what it has at closes."""
    text = result.manifest["signal"]
    kind, _, number = text.partition(" ")
    if kind == "constant":
        return float(number)
    if text == "equal weights":
        return None
    if "decision_interval" in result.manifest["data"]:
        raise core.DataError(
            "a loaded result does not hold the signal of decision_interval=, "
            f"{text:.60}: give a new bt.Backtest"
        )

    frame = pd.DataFrame(result.quotes.signal, core.utc_index(result.time), [*result.names])
    return frame.iloc[:, 0] if len(result.names) == 1 else frame


def recall_market(result: Any) -> Market | Markets:
    """Return the market of a loaded result, read again; raises BacktestError if it cannot be."""
    data = result.manifest["data"]
    if len(result.names) == 1:
        return read_source(data["source"], data["content_hash"])
    markets = {}
    for name, row in data["instruments"].items():
        markets[name] = read_source(row["source"], row["content_hash"])
    return Markets(markets)


def restore(kind: type[_C], known: Mapping[str, Any]) -> _C:
    """Return conditions of fields that were checked before, or whose market could not be read."""
    made = kind.__new__(kind)
    made.__setstate__({name: known[name] for name in FIELDS})
    return made
