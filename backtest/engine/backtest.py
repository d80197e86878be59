"""Backtest: one test of policies, described once; its methods in other rooms, and short forms."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Required, Self, TypeAlias, TypedDict, TypeVar

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
from backtest.signals.rules import SignalRule, cut_rows, read_named
from backtest.venue import Venue, VenueLike, read_venue

_P = ParamSpec("_P")
_T = TypeVar("_T")

AnyPolicy: TypeAlias = Policy | Mapping[str, Policy]
SignalLike: TypeAlias = "Weights | pd.Series | float | str | SignalRule"
DetailLike: TypeAlias = "Market | Mapping[str, Market] | str | Path | None"


class BacktestFields(TypedDict, total=False):
    """Types of the fields that short forms of methods of :class:`Backtest` take by name."""

    venue: Required[VenueLike]
    account: Required[Account]
    signal: SignalLike
    overlay: Policy | None
    calendar: str
    sampling: str
    decision_interval: str | None
    detail: DetailLike
    start: core.TimeLike | None
    end: core.TimeLike | None


@dataclass(frozen=True, eq=False, repr=False)
class Backtest:
    """One test of policies: data, rules, account, and what is decided when.

    Its methods are the functions that need such a test: ``test.run(policy)`` is
    ``bt.run(market, policy, **fields)``. It is checked when it is made, and does not change:
    :meth:`replace` returns another.

    Parameters
    ----------
    market : Market, Markets or mapping of names to markets
        Bars, mark prices and funding; of several instruments for an account with several positions.
    venue : Venue, str, or a mapping of names to them
        The rules and the costs. A text is the name of a preset, ``"binance-usdm:BTCUSDT"``.
    account : Account
        Capital, margin mode, limits and stops.
    signal : float, array of shape (n_bars,), Series by UTC time, str or SignalRule, optional
        Direction and scale in [-1, 1]; default 1. The signal of a bar belongs to the decision at
        its close. A text is a column of the bars, or a rule of
        :mod:`backtest.signals.rules` with its parameters in order, ``"rsi:14:30:70"``.
        With several instruments, a frame by time and instrument of direction times weight, or a
        rule for the direction in each times 1/n; default 1/n.
    overlay : Policy, optional
        Scales all targets of several instruments; its market is ``markets.index(signal)``.
    calendar : str
        ``"365"`` days a year, or ``"252"`` sessions.
    sampling : str
        The period over which returns are sampled, ``"1d"`` by default.
    decision_interval : str, optional
        The length of the bars at whose closes policies decide, such as ``"1h"``: a multiple of the
        market's interval. Policies, columns and signal see these bars alone, and the account is
        simulated on the bars of the market; see docs/accounting.md. Default: policies decide at
        each close.
    detail : Market, Markets, mapping of str to Market, str or Path, optional
        Shorter bars of the same instruments, or their folder. The account is simulated on them
        where they are available, and on the bars of ``market`` elsewhere.
    start : str or Timestamp, optional
        When the account begins, in UTC: with the first bar that opens from then on. The bars before
        only warm the policy's columns. So it is in runs, sweeps, searches and validations alike:
        spans, folds, groups, the holdout's share and years count from ``start``.
    end : str or Timestamp, optional
        When the account ends, in UTC: with the last bar that opens before then.

    Raises
    ------
    ParameterError
        If a field is unknown or not allowed, or fields do not fit each other.
    """

    market: Market | Markets
    _: KW_ONLY
    venue: VenueLike
    account: Account
    signal: SignalLike = None
    overlay: Policy | None = None
    calendar: str = "365"
    sampling: str = "1d"
    decision_interval: str | None = None
    detail: DetailLike = None
    start: core.TimeLike | None = None
    end: core.TimeLike | None = None

    if TYPE_CHECKING:  # methods of other rooms: backtest/__init__.py binds them

        def __getattr__(self, name: str) -> Any: ...

    def __post_init__(self) -> None:
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
        held = {"market": as_given(markets, self.market), "venue": read_venue(self.venue)}
        held["overlay"] = check_overlay(self.overlay)
        vars(self).update(held)
        if self.plain is self:
            core.Choice("365", "252").check("calendar", self.calendar)
            if markets.sessions and self.calendar != "252":
                raise core.ParameterError(
                    "calendar must be '252' for a market with sessions, got '365'"
                )
            period = core.parse_duration(self.sampling, "sampling")
            if self.calendar == "252" and period != DAY:
                raise core.ParameterError(
                    "sampling must be '1d' with calendar='252', which counts sessions, got "
                    f"{self.sampling!r}"
                )
            last, start = int(markets.time[-1]), self.start
            if start is not None and core.to_nanoseconds(start, "start") > last:
                raise core.ParameterError(
                    f"start must lie before the last bar, {core.format_time(last)} UTC, got {start}"
                )
            read_named(self.signal, self.market)
            try:
                _ = self.setting
            except core.ParameterError:
                if not self.fits_apart():
                    raise

    def __repr__(self) -> str:
        venue = ", ".join(dict.fromkeys(map(repr, core.list_values(self.venue))))
        return f"<Backtest of {self.market!r} on {venue:.60}>"

    def __getstate__(self) -> dict[str, Any]:
        return {name: vars(self)[name] for name in FIELDS}

    def __setstate__(self, fields: dict[str, Any]) -> None:
        vars(self).update(fields)

    def replace(self, **changes: Any) -> Self:
        """Return the test with other fields."""
        return replace(self, **changes)

    @property
    def fields(self) -> dict[str, Any]:
        """The fields beside the market, by name."""
        return {name: vars(self)[name] for name in FIELDS[1:]}

    @property
    def plain(self) -> Backtest:
        """The same test by the bars of the account, without ``detail``, ``end`` and clock."""
        if isinstance(self.market, Unread):
            raise core.DataError(f"{self.market.why}; give it: result.backtest.replace(market=...)")
        is_plain = self.decision_interval is None and self.detail is None and self.end is None
        return self if is_plain else self._plain

    @cached_property
    def _plain(self) -> Backtest:
        whole = with_clock(self.market, self.decision_interval, self.detail)
        changes = {"market": whole, "decision_interval": None, "detail": None, "end": None}
        if self.end is not None:
            part = as_given(as_markets(self.market).slice(None, self.end), self.market)
            changes["market"] = with_clock(part, self.decision_interval, self.detail)
            changes["signal"] = cut_rows(self.signal, whole, changes["market"])
        return replace(self, **changes)

    def cut(self, rows: _T) -> _T:
        """Return the rows of a table by time that are of bars before ``end``."""
        if self.end is None or rows is None:
            return rows
        whole = with_clock(self.market, self.decision_interval, self.detail)
        cut: _T = cut_rows(rows, whole, self.plain.market)
        return cut

    def fits_apart(self) -> bool:
        """Return whether each of several instruments fits an account of its own."""
        markets = as_markets(self.market)
        try:
            for name, market in markets.items() if len(markets) > 1 else ():
                account, venue = self.account.for_instrument(name), self.venue
                check_panel(as_markets(market), account, core.pick_value(venue, name))
        except (core.ParameterError, KeyError):  # a table has none of an instrument
            return False
        return len(markets) > 1

    @cached_property
    def setting(self) -> tuple[Markets, dict[str, Venue], Account]:
        """The markets, the venue of each, and the account, after checking them together."""
        markets = as_markets(end_expired(self.market, self.venue))
        return markets, *check_panel(markets, self.account, self.venue)


class Unread:
    """Stands for the market of a loaded result that could not be read again, and says why."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __repr__(self) -> str:
        return "a market that was not read"


FIELDS = tuple(each.name for each in dataclasses.fields(Backtest))


_make: Any = core.checked_only("calendar")(Backtest.__init__)


@functools.wraps(_make)
def make_test(self: object, *given: Any, **named: Any) -> None:
    needed = ("market", "venue", "account")[len(given[:1]) :]
    core.check_names("bt.Backtest", named, FIELDS, needed)
    _make(self, *given, **named)


Backtest.__init__ = make_test  # type: ignore[method-assign] # as it was, with other errors


def after_run(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Make a method of a function whose first argument is the result of a run.

    The method takes a policy in its place, and runs it, or a result of the test itself.
    """
    first, *rest = inspect.signature(function).parameters.values()
    place = inspect.Parameter.POSITIONAL_OR_KEYWORD
    heads = [inspect.Parameter(name, place) for name in ("self", "policy")]
    compiled = inspect.Parameter("compile", inspect.Parameter.KEYWORD_ONLY, default=True)

    def of_test(
        test: Backtest,
        policy: AnyPolicy | core.SavedResult,
        *args: Any,
        compile: bool = True,  # noqa: A002 - as that of bt.run
        **named: Any,
    ) -> _T:
        function_of_result: Any = function
        result: Any = policy
        if not isinstance(policy, core.SavedResult):
            result = test.run(policy, compile=compile)
        elif getattr(policy, "backtest", test) is not test:
            raise core.ParameterError(
                f"{function.__name__} of a test accepts its own results, got {policy!r:.80} of "
                f"another test; bt.{function.__name__}(result) accepts any"
            )
        found: _T = function_of_result(result, *args, **named)
        return found

    of_test.__name__ = function.__name__
    of_test.__doc__ = (
        f"Run a policy, and call :func:`backtest.{function.__name__}` with the {first.name}.\n\n"
        "A result of this test may stand in place of the policy."
    )
    of_test.__signature__ = inspect.Signature([*heads, *rest, compiled])  # type: ignore[attr-defined]
    vars(function)["as_method"] = of_test
    return function


def short_form(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Make a method of a function that takes a ``market`` and ``**fields`` as a Backtest does.

    The function itself is the short form of the method: its signature shows every field, and a name
    that is neither an argument nor a field is an error. It calls :func:`read_test`.
    """
    written = inspect.signature(function).parameters.values()
    own = [each for each in written if each.kind is not each.VAR_KEYWORD]
    fields = inspect.signature(Backtest).parameters
    names = {each.name for each in own}
    shown = [*own, *(fields[name] for name in FIELDS if name not in names)]
    known, title = [each.name for each in shown], function.__name__

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        core.check_names(f"bt.{title}", kwargs, known, noun="argument")
        try:
            return function(*args, **kwargs)
        except MemoryError as error:
            raise core.BacktestError(
                f"{title} needs more memory than there is: {core.describe_fault(error)}; give "
                "fewer sets, paths or bars"
            ) from error

    def of_test(*args: Any, **named: Any) -> _T:
        test, *rest = args
        for name in named.keys() & {*FIELDS} - names:
            raise core.ParameterError(
                f"{name} is a field of the test, got it as an argument of {title}: "
                f"test.replace({name}=...) has another"
            )
        core.check_names(f"Backtest.{title}", named, [*taken.parameters], noun="argument")
        bound: Any = call
        found: _T = bound(**taken.bind_partial(*rest, **named).arguments, market=test)
        return found

    taken = inspect.Signature([each for each in own if each.name != "market"])
    of_test.__name__, of_test.__doc__ = title, function.__doc__
    head = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    shape = inspect.Signature([head, *taken.parameters.values()])
    of_test.__signature__ = shape  # type: ignore[attr-defined]
    call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    vars(call)["as_method"] = of_test
    return call


def read_test(market: object, fields: Mapping[str, Any]) -> Backtest:
    """Return the Backtest that is given in the place of a market, or that has these fields."""
    given: Any = market
    if not isinstance(market, Backtest):
        return Backtest(given, **fields)
    if fields:
        raise core.ParameterError(
            f"a test has its own fields, got {', '.join(fields)} too; test.replace(...) changes "
            "them"
        )
    return market


def check_panel(markets: Markets, account: Account, venue: Any) -> tuple[dict[str, Venue], Account]:
    """Return the venue of each market and the account, checked against each other."""
    venues = checks.read_venues(venue, markets)
    account = drop_other_instruments(account, markets)
    account = replace(account, requirement=account.requirement.resolve(markets.names))
    checks.check_run(markets, venues, account)
    return venues, account


def drop_other_instruments(account: Account, markets: Markets) -> Account:
    gone = {name for name in markets.last_opens if name not in markets}
    if not gone:
        return account
    changes: dict[str, Any] = {}
    for field in BY_INSTRUMENT:
        value = getattr(account, field)
        if isinstance(value, core.FrozenTable):
            changes[field] = {name: each for name, each in value.items() if name not in gone}
    rule = account.requirement
    if isinstance(rule, ScenarioMargin):
        groups = {*rule.list_groups([*markets.last_opens])}
        rule = rule.without(gone)
        lost = groups - {*rule.list_groups([n for n in markets.last_opens if n not in gone])}
        changes["requirement"] = rule
        changes["collateral"] = [
            replace(each, cancels_risk=None) if each.cancels_risk in lost else each
            for each in account.collateral
        ]
    return replace(account, **changes)


def end_expired(market: Any, venue: Any) -> Any:
    if not isinstance(market, Markets):
        return market
    found = {}
    for name in market:
        given = venue.get(name) if isinstance(venue, Mapping) else venue
        expires = given.contract.expires if isinstance(given, Venue) else None
        if expires is not None:
            found[name] = core.to_nanoseconds(expires)
    return market.end_at(found) if found else market


def recall_test(result: Any) -> Backtest:
    """Return the test of a result: of a loaded one, as its files say it.

    Its market is loaded again from the recorded path, if that holds the same data; else whatever
    needs it asks for ``result.backtest.replace(market=...)``. Raises DataError if it had an overlay
    or longer bars to decide on with a signal, which a loaded result does not hold.
    """
    if result.setup is not None:
        test: Backtest = result.setup.test
        return test
    manifest, names = result.manifest, result.names
    if "overlay" in manifest:
        raise core.DataError(
            f"a loaded result does not hold its overlay, {manifest['overlay']['text']}: give a new "
            "bt.Backtest"
        )
    data, is_one = manifest["data"], len(names) == 1
    kind, _, number = manifest["signal"].partition(" ")
    signal: SignalLike = float(number) if kind == "constant" else None
    if kind != "constant" and manifest["signal"] != "equal weights":
        if "decision_interval" in data:
            raise core.DataError(
                "a loaded result does not hold the signal of decision_interval=, "
                f"{manifest['signal']:.60}: give a new bt.Backtest"
            )
        frame = pd.DataFrame(result.quotes.signal, core.utc_index(result.time), [*names])
        signal = frame.iloc[:, 0] if is_one else frame
    fields: dict[str, Any] = {
        "venue": result.venues[names[0]] if is_one else result.venues,
        "account": result.account,
        "signal": signal,
        "calendar": manifest["calendar"],
        "sampling": manifest["sampling"],
        "start": core.utc_index(result.time)[0],
    }
    market: Any
    try:
        rows = {names[0]: data} if is_one else data["instruments"]
        read = {x: read_source(row["source"], row["content_hash"]) for x, row in rows.items()}
        market = read[names[0]] if is_one else Markets(read)
    except core.BacktestError as error:
        known = dict.fromkeys(FIELDS) | fields | {"market": Unread(str(error))}
        bare = object.__new__(Backtest)
        bare.__setstate__(known)
        return bare
    return Backtest(market, **fields)
