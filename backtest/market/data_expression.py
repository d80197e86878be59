"""The source expression of a market: parsed into calls, and loaded again."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from backtest.base import DataError, ParameterError
from backtest.market.market import Market

MAKERS = ("load", "sample")
STEPS = ("between", "prefix", "resample")
_BY_HAND = "load them and call bt.quality(market)"

Call = tuple[str, list[Any], dict[str, Any]]


def take_apart(text: str) -> list[Call]:
    try:
        return list(_take_apart(ast.parse(text, mode="eval").body))
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(text) from error


def _take_apart(node: ast.expr) -> Iterator[Call]:
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        raise ValueError(ast.dump(node))  # noqa: TRY004 - the error of every such text
    given = [ast.literal_eval(each) for each in node.args]
    named = {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}
    inner = node.func.value
    if isinstance(inner, ast.Name):
        yield f"{inner.id}.{node.func.attr}", given, named
        return
    yield from _take_apart(inner)
    yield node.func.attr, given, named


def load_again(source: str, content_hash: str) -> Market:
    try:
        (name, given, named), *steps = take_apart(source)
    except ValueError:
        name, steps = "", []
    head, _, maker = name.partition(".")
    if head == "Markets":
        raise DataError(f"the data are of several markets, {source[:200]}")
    if head != "Market" or maker not in MAKERS or {step for step, *_ in steps} - {*STEPS}:
        raise DataError(f"the data were made in Python, {source[:200]}; {_BY_HAND}")
    try:
        market: Market = getattr(Market, maker)(*given, **named)
        for step, values, keywords in steps:
            market = getattr(market, step)(*values, **keywords)
    except (ParameterError, TypeError, AttributeError, ValueError, MemoryError) as error:
        raise DataError(
            f"the data were loaded in another way, {source[:200]}; {_BY_HAND}"
        ) from error
    if market.content_hash != content_hash:
        raise DataError(f"the data have changed since, {source[:200]}; {_BY_HAND}")
    return market
