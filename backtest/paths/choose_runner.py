"""Choose the runner of an account on paths of one or several instruments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from backtest.account import Account
from backtest.account.account import check_account
from backtest.base.errors import ParameterError
from backtest.base.ranges import Number, Range
from backtest.engine import Result
from backtest.engine.portfolio.portfolio_checks import check_portfolio, read_venues
from backtest.paths.panel_paths import PanelPaths
from backtest.paths.panel_runner import PanelRunner
from backtest.paths.path_set import Paths, check_paths
from backtest.paths.paths_runner import PathsRunner
from backtest.policy import Policy
from backtest.venue import Venue

Runner: TypeAlias = PathsRunner | PanelRunner
AnyPaths: TypeAlias = Paths | PanelPaths
AnyPolicy: TypeAlias = Policy | Mapping[str, Policy]
AnyVenue: TypeAlias = Venue | Mapping[str, Venue]
AnyAccount: TypeAlias = Account | Result


def choose_runner(
    paths: AnyPaths,
    policy: AnyPolicy,
    *,
    venue: AnyVenue,
    account: AnyAccount,
    signal: Any = None,
    overlay: Policy | None = None,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    where: str,
) -> Runner:
    """Return the runner for paths of one or of several instruments, with its arguments checked."""
    if isinstance(paths, PanelPaths):
        return make_panel_runner(
            paths, policy, venue=venue, account=account, signal=signal, overlay=overlay,
            compile=compile, where=where,
        )  # fmt: skip
    if overlay is not None:
        raise ParameterError(
            "an overlay needs several instruments, the paths have one",
            where=f"{where}, overlay",
            cure="leave overlay out, or simulate paths of bt.Markets({name: market, ...})",
        )
    # make_runner checks their classes
    checked: Any = (unwrap_single(policy), unwrap_single(venue), account)
    return make_runner(
        paths, checked[0], venue=checked[1], account=checked[2],
        signal=1.0 if signal is None else unwrap_single(signal), compile=compile, where=where,
    )  # fmt: skip


def is_of_several(account: object) -> bool:
    """Return whether an account is the result of a run of several positions."""
    return isinstance(account, Result) and not account.has_one_position


def unwrap_single(given: Any) -> Any:
    """Return what a mapping of one instrument holds; anything else as it is."""
    is_one = isinstance(given, Mapping) and len(given) == 1
    return next(iter(given.values())) if is_one else given


def make_runner(
    paths: Paths,
    policy: Policy,
    *,
    venue: Venue,
    account: Account | Result,
    signal: float = 1.0,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    where: str,
) -> PathsRunner:
    """Return a runner for paths of one instrument, with its arguments checked."""
    check_paths(paths, where=f"{where}, paths")
    wanted: tuple[tuple[str, object, tuple[type, ...], str], ...] = (
        ("policy", policy, (Policy,), "pass an instance of a class derived from bt.Policy"),
        ("venue", venue, (Venue,), "pass bt.Venue(...), or bt.Venue.preset(...)"),
        ("account", account, (Account, Result), "pass bt.Account(...), or a result of bt.run"),
    )
    for name, value, kinds, cure in wanted:
        if not isinstance(value, kinds) or is_of_several(value):
            raise ParameterError(
                f"{name} must be a {kinds[0].__name__}, was {str(value)[:60]!r}",
                where=f"{where}, {name}",
                cure=f"{cure}: add ()" if isinstance(value, type) else cure,
            )
    direction = float(Range(-1.0, 1.0).check("signal", signal, where=f"{where}, signal"))
    runner = PathsRunner(
        paths=paths,
        policy=policy,
        venue=venue,
        account=account,
        signal=direction,
        compile=compile,
    )
    check_account(runner.terms, venue)
    return runner


def make_panel_runner(
    paths: PanelPaths,
    policy: AnyPolicy,
    *,
    venue: AnyVenue,
    account: AnyAccount,
    signal: Any,
    overlay: Policy | None,
    compile: bool,  # noqa: A002 - the word of bt.run
    where: str,
) -> PanelRunner:
    """Return a runner for paths of several instruments, with its arguments checked."""
    if not isinstance(account, Account) and not is_of_several(account):
        raise ParameterError(
            f"account must be an Account or a result of several instruments, was {account!r:.60}",
            where=f"{where}, account",
            cure="pass bt.Account(...), or what bt.run returned for the same Markets",
        )
    weights = read_constant_weights(signal, paths, where=f"{where}, signal")
    runner = PanelRunner(
        paths=paths,
        policy=policy,
        venue=venue,
        account=account,
        signal=weights,
        overlay=overlay,
        compile=compile,
    )
    check_portfolio(paths.history, read_venues(venue, paths.history), runner.terms)
    return runner


def read_constant_weights(signal: Any, paths: PanelPaths, *, where: str) -> dict[str, float] | None:
    """Return direction times weight by instrument, the same at all times; None for the default.

    A number is that of each instrument.
    """
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
