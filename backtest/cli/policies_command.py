"""``backtest policies``: list the policies and their parameters."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Annotated, Any

import typer

from backtest.cli.find_policy import built_in_policies, load_policies
from backtest.cli.flags import AsJson
from backtest.cli.printing import print_json, print_table
from backtest.policy import Parameter, Policy

EXAMPLES = """
backtest policies
backtest policies vol-target           [dim]# its formula and its source[/dim]
backtest policies my_policy.py --json
"""


def policies(
    policy: Annotated[
        str | None, typer.Argument(help="Show one policy, or those of a file, in full.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List the policies: name, one line, and parameters with default, range and unit."""
    found = load_policies(policy) if policy else built_in_policies()
    if as_json:
        print_json([policy_to_dict(each) for each in found])
        return
    for index, each in enumerate(found):
        if index:
            typer.echo("")
        print_policy(each, is_whole=policy is not None)


def print_policy(policy: type[Policy], *, is_whole: bool) -> None:
    typer.secho(policy.title(), bold=True)
    text = inspect.getdoc(policy) if is_whole else policy.summary()
    for line in (text or "").splitlines():
        typer.echo(f"  {line}".rstrip())
    parameters = list(policy.parameters().values())
    if parameters:
        if is_whole:
            typer.echo("")
        rows = [("  " + each.name, *format_parameter(each)) for each in parameters]
        print_table(("  parameter", "default", "range", "unit"), rows, right=("default",))


def format_parameter(parameter: Parameter) -> tuple[str, str, str]:
    space = parameter.space
    default = "" if parameter.default is None else f"{parameter.default}"
    if space is None:
        return default, "True, False", ""
    return default, str(space).removesuffix(f" {space.unit}"), space.unit


def policy_to_dict(policy: type[Policy]) -> dict[str, Any]:
    return {
        "name": policy.title(),
        "class": policy.__name__,
        "summary": policy.summary(),
        "parameters": [parameter_to_dict(each) for each in policy.parameters().values()],
    }


def parameter_to_dict(parameter: Parameter) -> dict[str, Any]:
    space = {} if parameter.space is None else dataclasses.asdict(parameter.space)
    return {
        "name": parameter.name,
        "type": parameter.kind.__name__,
        "default": parameter.default,
        **space,
    }


COMMAND = policies
