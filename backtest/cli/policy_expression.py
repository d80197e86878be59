"""Parse a policy written as a Python expression: ``Capped(VolTarget(target=0.6), cap=3)``.

The text is parsed, never executed: it can only build policies.
"""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from backtest.base import ParameterError, did_you_mean, to_float
from backtest.policy import Policy, check_settings

EXAMPLE = "Capped(VolTarget(target=0.6), cap=3)"
LONGEST = 4_000
"""Most characters of a policy expression."""
LARGEST = 2**63
"""Larger whole numbers become floats."""

Find = Callable[[str], type[Policy]]
"""Function that returns the policy class of ``path/to/file.py:ClassName``."""


def is_expression(text: str) -> bool:
    """Return whether a policy is written as a call."""
    return "(" in text


def parse_policy(text: str, known: Mapping[str, type[Policy]], find: Find) -> Policy:
    """Build the policy that a text spells out.

    The text calls policies with other policies, numbers and words. A policy of a file is written
    ``file.py:ClassName(...)`` and found by ``find``; ``known`` holds the others by class name. A
    name alone is the policy with its defaults.
    """
    check_length(text)
    classes = dict(known)

    def replace_file(found: re.Match[str]) -> str:
        classes[f"_{len(classes)}"] = find(found[0])
        return f"_{len(classes) - 1}"

    plain = re.sub(r"[^\s(),=]+\.py:\w+", replace_file, text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python warns of is an error below
            node = ast.parse(plain.strip(), mode="eval").body
        policy = build_node(node, classes, text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise expression_error(text) from error
    if not isinstance(policy, Policy):
        raise expression_error(text)
    return policy


def check_length(text: str, where: str = "") -> None:
    """Check that a policy is not longer than ``LONGEST``."""
    if len(text) > LONGEST:
        raise ParameterError(
            f"a policy must have at most {LONGEST:,} letters, got {len(text):,}",
            where=where or f"{text[:40]}...",
            cure="write the policy as a class in a file, and give FILE.py:ClassName",
        )


def build_node(node: ast.expr, classes: Mapping[str, type[Policy]], text: str) -> Any:
    """Evaluate one node of the expression: a policy, a number or a text."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        given = [build_node(each, classes, text) for each in node.args]
        words = [word.arg for word in node.keywords]
        if None in words or len(set(words)) < len(words):
            raise expression_error(text)
        named = {str(w.arg): build_node(w.value, classes, text) for w in node.keywords}
        if node.func.id == "float" and given == ["inf"]:
            return math.inf
        cls = find_class(node.func.id, classes, text)
        check_settings(cls, named)
        return cls(*given, **named)
    if isinstance(node, ast.Name):
        return math.inf if node.id == "inf" else find_class(node.id, classes, text)()
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = build_node(node.operand, classes, text)
        if isinstance(number, (int, float)):
            return -number
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        is_huge = isinstance(node.value, int) and abs(node.value) > LARGEST
        return to_float(node.value) if is_huge else node.value
    raise expression_error(text)


def find_class(name: str, classes: Mapping[str, type[Policy]], text: str) -> type[Policy]:
    """Find a policy class by its name."""
    if name in classes:
        return classes[name]
    named = [each for each in classes if not each.startswith("_")]
    raise ParameterError(
        f"a policy must be known by its class, {name!r} is not{did_you_mean(name, named)}",
        where=text,
        cure=f"use {', '.join(named)}, or path/to/file.py:ClassName",
    )


def expression_error(text: str) -> ParameterError:
    """Make the error for a text that is not a policy."""
    return ParameterError(
        "a policy must be written as calls of policies with numbers, each name once, "
        f"got {text!r:.200}",
        where=f"{text:.200}",
        cure=f"write for example {EXAMPLE}",
    )
