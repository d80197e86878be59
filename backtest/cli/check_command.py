"""``backtest check``: check a policy against the contract."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest.base import ParameterError, pick_value
from backtest.cli.experiment import build_experiment, draft_experiment
from backtest.cli.experiment_command import list_flags
from backtest.cli.experiment_data import load_data
from backtest.cli.experiment_draft import GivenFlag
from backtest.cli.experiment_keys import EXPERIMENT_KEYS
from backtest.cli.find_policy import load_policies
from backtest.cli.flags import AsJson
from backtest.cli.printing import print_json
from backtest.cli.progress import show_activity
from backtest.engine import Finding, check_policy, resolve_signal
from backtest.market import Market, Markets, as_markets, label_names
from backtest.policy import Policy

WIDTH = 80
EXAMPLES = """
backtest check vol-target
backtest check my_policy.py
backtest check my_policy.py:MyPolicy --data btc/ --json
backtest check vol-target --data user_data/data/binance/futures --instrument BTCUSDT --interval 1h
backtest check examples/btc-vol-target.toml
"""


def take_data(command: Callable[..., None]) -> Callable[..., None]:
    policy, _, *rest = inspect.signature(command, eval_str=True).parameters.values()
    keys = [each for each in EXPERIMENT_KEYS if each.table == "data"]

    def read_and_call(policy: str, **given: Any) -> None:
        values = {each: given.pop(each.parameter) for each in keys}
        flags = [flag for each in keys for flag in each.list_entries(values[each])]
        command(policy, flags, **given)

    parameters = [policy, *list_flags(keys), *rest]
    read_and_call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    read_and_call.__annotations__ = {each.name: each.annotation for each in parameters}
    read_and_call.__doc__ = command.__doc__
    return read_and_call


@take_data
def check(
    policy: Annotated[
        str,
        typer.Argument(
            help="A built-in policy, FILE.py (all its policies), FILE.py:Class, or FILE.toml (the "
            "policies of an experiment, on its data)."
        ),
    ],
    flags: Sequence[GivenFlag],
    *,
    as_json: AsJson = False,
) -> None:
    """Check that a policy keeps the contract: above all, that it does not look ahead.

    Without data it is checked on a synthetic market. The exit code is 1 if a check fails.
    """
    if policy.endswith(".toml"):
        trials = list_of_experiment(Path(policy), flags)
    else:
        markets = load_checked(flags)
        classes = load_policies(policy)
        trials = [(each, name, market) for each in classes for name, market in markets.items()]
    found = {}
    for each, name, market in trials:
        title = f"{each.__name__} on {name}" if name else each.__name__
        with show_activity(f"checking {title}"):
            found[title] = check_policy(each, market)
    if as_json:
        print_json({name: [each._asdict() for each in found[name]] for name in found})
    else:
        for name, findings in found.items():
            print_findings(name, findings)
    if not all(each.passed for findings in found.values() for each in findings):
        raise typer.Exit(1)


def list_of_experiment(
    file: Path, flags: Sequence[GivenFlag]
) -> list[tuple[type[Policy], str, Market | None]]:
    """Return the policies of an experiment with the market of each, by name if there are several.

    The market of an overlay is the portfolio index.
    """
    if flags:
        given = ", ".join(f"{each.table}.{each.key}" for each in flags)
        raise ParameterError(
            f"the policies of an experiment are checked on its own data, got {given}"
        )
    market, policy, terms = build_experiment(draft_experiment(file, []))
    found: list[tuple[type[Policy], str, Market | None]] = [
        (type(pick_value(policy, name)), name, each) for name, each in label_markets(market).items()
    ]
    overlay = terms.get("overlay")
    if overlay is not None:
        found.append(
            (
                type(overlay),
                "the portfolio index",
                market.index(resolve_signal(terms["signal"], market)),
            )
        )
    return found


def load_checked(flags: Sequence[GivenFlag]) -> dict[str, Market | None]:
    """Return the markets to check on by name: one without a name, or each of several."""
    if not flags:
        return {"": None}
    found = load_data(draft_experiment(None, flags))
    return {**label_markets(found)}


def label_markets(market: Market | Markets) -> dict[str, Market]:
    markets = as_markets(market)
    return {label: markets[name] for name, label in label_names(markets).items()}


def print_findings(name: str, findings: list[Finding]) -> None:
    typer.secho(name, bold=True)
    width = max(len(each.name) for each in findings)
    for each in findings:
        lead = f"  {'ok   ' if each.passed else 'FAILS'}  {each.name:{width}}  "
        lines = each.detail.splitlines() or [""]
        shown = textwrap.wrap(
            lines[0], WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead)
        ) or [lead.rstrip()]
        shown += [" " * len(lead) + line for line in lines[1:]]
        typer.secho("\n".join(shown), fg=None if each.passed else "red")
    failed = sum(not each.passed for each in findings)
    verdict = f"{failed} of {len(findings)} checks failed" if failed else "keeps the contract"
    typer.secho(f"{name}: {verdict}", bold=True)


COMMAND = check
