"""Read the arguments of an account on simulated paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from backtest.account import Account
from backtest.base.errors import DataError, ParameterError
from backtest.base.ranges import Number, Range
from backtest.base.units import format_time
from backtest.engine import Result
from backtest.engine.portfolio.book_desk import assign_policies
from backtest.engine.portfolio.portfolio_checks import read_venues
from backtest.paths.path_set import Paths, check_paths
from backtest.paths.paths_runner import PathsRunner
from backtest.policy import Policy
from backtest.venue import Venue

AnyPolicy: TypeAlias = Policy | Mapping[str, Policy]
AnyVenue: TypeAlias = Venue | Mapping[str, Venue]
AnyAccount: TypeAlias = Account | Result


def make_runner(
    paths: Paths,
    policy: AnyPolicy,
    *,
    venue: AnyVenue,
    account: AnyAccount,
    signal: Any = None,
    overlay: Policy | None = None,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    where: str,
) -> PathsRunner:
    """Return what takes an account through paths, with its arguments checked.

    Policies, venues and signals may be given by instrument.
    """
    check_paths(paths, where=f"{where}, paths")
    check_start(account, paths, where=where)
    if len(paths.names) == 1:
        policy, venue, signal = (unwrap_single(each) for each in (policy, venue, signal))
    assign_policies(policy, paths.markets, overlay)
    read_venues(venue, paths.markets)
    runner = PathsRunner(
        paths=paths,
        policy=policy,
        venue=venue,
        account=account,
        signal=read_constant_signal(signal, paths, where=f"{where}, signal"),
        overlay=overlay,
        compile=compile,
    )
    runner.loop.check()
    return runner


def unwrap_single(given: Any) -> Any:
    """Return what a mapping of one instrument holds; anything else as it is."""
    is_one = isinstance(given, Mapping) and len(given) == 1
    return next(iter(given.values())) if is_one else given


def check_start(account: object, paths: Paths, *, where: str) -> None:
    """Require a new account, or a result of the same instruments that ended where paths begin."""
    if isinstance(account, Account):
        return
    if not isinstance(account, Result):
        raise ParameterError(
            f"account must be an Account or a result, got {str(account)[:60]!r}",
            where=f"{where}, account",
            cure="pass bt.Account(...), or what bt.run returned for the same market",
        )
    is_one = len(account.names) == len(paths.names) == 1  # whatever its name
    if account.names != paths.names and not is_one:
        raise ParameterError(
            f"paths must be of the instruments of the result, {', '.join(account.names)}, "
            f"got {', '.join(paths.names)}",
            where="account=result",
            cure="simulate paths of the markets that the result ran on",
        )
    begins = int(paths.calendar.time[0])
    if account.last_time != begins:
        raise DataError(
            f"paths must begin where the result ended, {format_time(account.last_time)}, "
            f"their first bar is {format_time(begins)}",
            where="account=result",
            cure="simulate paths of the market that the result ran on, with start='now'",
        )


def read_constant_signal(
    signal: Any, paths: Paths, *, where: str
) -> float | dict[str, float] | None:
    """Return what holds at all times: one direction, or direction times weight by instrument.

    None is 1 for one instrument, and the default of several. A number is that of each instrument.
    """
    if len(paths.names) == 1:
        given = 1.0 if signal is None else signal
        return float(Range(-1.0, 1.0).check("signal", given, where=where))
    if signal is None:
        return None
    given = signal if isinstance(signal, Mapping) else dict.fromkeys(paths.names, signal)
    if set(given) != set(paths.names):
        raise ParameterError(
            f"weights must name each instrument, were for {', '.join(map(str, given))}",
            where=where,
            cure=f"give a number for each of {', '.join(paths.names)}",
        )
    bound = Number()
    return {
        name: float(bound.check("signal", given[name], where=f"{where}, {name}"))
        for name in paths.names
    }
