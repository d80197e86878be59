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
from backtest.risk.paths.path_set import Paths
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
) -> PathsRunner:
    check_start(account, paths)
    names = paths.names
    refuse_options(policy, overlay, account)
    assign_policies(policy, paths.markets, overlay)
    read_venues(venue, paths.markets)
    runner = PathsRunner(
        paths=paths,
        policy=unwrap_only(policy, names),
        venue=unwrap_only(venue, names),
        account=account,
        signal=read_constant_signal(signal, paths),
        overlay=overlay,
        compile=compile,
    )
    runner.loop.check()
    return runner


def refuse_options(policy: AnyPolicy, overlay: Policy | None, account: AnyAccount) -> None:
    rules = [each for each in (policy, overlay) if trades_options(each)]
    held = [] if isinstance(account, Account) else list_held(account)
    if rules or held:
        found = f"a result that holds {held[0]}" if held else f"{rules[0]!r}"
        raise ParameterError(
            "no risk is simulated of accounts that hold or trade options, got "
            f"{found}; bt.stress answers for them"
        )


def list_held(result: Result) -> list[str]:
    if result.options is None:
        return []
    last = result.options.record.quantity[-1].tolist()
    return [name for name, q in zip(result.options.terms.names, last, strict=True) if q != 0.0]


def unwrap_only(given: Any, names: tuple[str, ...]) -> Any:
    is_only = isinstance(given, Mapping) and names == tuple(given) and len(names) == 1
    return given[names[0]] if is_only else given


def check_start(account: object, paths: Paths) -> None:
    if isinstance(account, Account):
        return
    if not isinstance(account, Result):
        raise ParameterError(f"account must be an Account or a Result, got {repr_plain(account)}")
    if not is_same_account(account.names, paths.names):
        raise ParameterError(
            f"paths must be of the instruments of the result, {', '.join(account.names)}, "
            f"got {', '.join(paths.names)}"
        )
    begins = int(paths.calendar.time[0])
    if account.last_time != begins:
        raise DataError(
            f"paths must begin where the result ended, {format_time(account.last_time)}, "
            f"got {format_time(begins)}; start='now' begins at the end of the market"
        )


def read_constant_signal(signal: Any, paths: Paths) -> float | dict[str, float] | None:
    is_one = len(paths.names) == 1
    if signal is None:
        return 1.0 if is_one else None
    given = name_values(signal, paths.names)
    if set(given) != set(paths.names):
        raise ParameterError(
            f"signal must name each of {', '.join(paths.names)}, got {', '.join(map(str, given))}"
        )
    bound = Range(-1.0, 1.0) if is_one else Number()
    found = {
        name: float(bound.check("signal" if is_one else f"signal of {name}", given[name]))
        for name in paths.names
    }
    return found[paths.names[0]] if is_one else found
