"""Read the arguments of an account on simulated paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from backtest.account import Account
from backtest.base import (
    DataError,
    Number,
    ParameterError,
    Range,
    format_time,
    name_values,
    repr_plain,
)
from backtest.engine import Result, assign_policies, is_same_account, read_venues
from backtest.policy import Policy, trades_options
from backtest.risk.liquidation.paths_runner import PathsRunner
from backtest.risk.paths.path_set import Paths, check_paths
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
    check_paths(paths, where=f"{where}, paths")
    check_start(account, paths, where=where)
    names = paths.names
    refuse_options(policy, overlay, account, where=where)
    assign_policies(policy, paths.markets, overlay)
    read_venues(venue, paths.markets)
    runner = PathsRunner(
        paths=paths,
        policy=unwrap_only(policy, names),
        venue=unwrap_only(venue, names),
        account=account,
        signal=read_constant_signal(signal, paths, where=f"{where}, signal"),
        overlay=overlay,
        compile=compile,
    )
    runner.loop.check()
    return runner


def refuse_options(
    policy: AnyPolicy, overlay: Policy | None, account: AnyAccount, *, where: str
) -> None:
    rules = [each for each in (policy, overlay) if trades_options(each)]
    held = [] if isinstance(account, Account) else list_held(account)
    if rules or held:
        found = f"a result that holds {held[0]}" if held else f"{rules[0]!r}"
        raise ParameterError(
            f"no risk is simulated of accounts that hold or trade options, got {found}",
            where=where,
            cure="bt.stress answers for them: it moves price and implied volatility together",
        )


def list_held(result: Result) -> list[str]:
    if result.options is None:
        return []
    last = result.options.record.quantity[-1].tolist()
    return [name for name, q in zip(result.options.terms.names, last, strict=True) if q != 0.0]


def unwrap_only(given: Any, names: tuple[str, ...]) -> Any:
    is_only = isinstance(given, Mapping) and names == tuple(given) and len(names) == 1
    return given[names[0]] if is_only else given


def check_start(account: object, paths: Paths, *, where: str) -> None:
    if isinstance(account, Account):
        return
    if not isinstance(account, Result):
        raise ParameterError(
            f"account must be an Account or a result, got {repr_plain(account)}",
            where=f"{where}, account",
            cure="pass bt.Account(...), or what bt.run returned for the same market",
        )
    if not is_same_account(account.names, paths.names):
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
    is_one = len(paths.names) == 1
    if signal is None:
        return 1.0 if is_one else None
    given = name_values(signal, paths.names)
    if set(given) != set(paths.names):
        raise ParameterError(
            f"weights must name each instrument, were for {', '.join(map(str, given))}",
            where=where,
            cure=f"give a number for each of {', '.join(paths.names)}",
        )
    bound = Range(-1.0, 1.0) if is_one else Number()
    of = {name: "" if is_one else f", {name}" for name in paths.names}
    found = {
        name: float(bound.check("signal", given[name], where=f"{where}{of[name]}"))
        for name in paths.names
    }
    return found[paths.names[0]] if is_one else found
