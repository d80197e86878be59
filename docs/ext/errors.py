"""Every error and its cure, from the places in the code that raise one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docs.ext.markdown import write_table

PACKAGE = Path(__file__).parents[2] / "backtest"
KINDS = {
    "DataError": "Invalid market data, or a file that cannot be read",
    "ParameterError": "An argument, flag or key outside its range, or of the wrong type",
    "PolicyError": "A policy that raises, looks ahead, or returns an impossible leverage",
    "VenueError": "Contradictory venue rules, or an unknown venue",
    "AccountingError": "The account does not balance: a bug in this package; please report it",
}


class Raised(NamedTuple):
    """One message of the code: its class, rule and cure."""

    kind: str
    problem: str
    cure: str


def list_pages() -> dict[str, str]:
    """Return the tables of the page of errors."""
    found = {raised for path in PACKAGE.rglob("*.py") for raised in read_errors(path)}
    parts = []
    for kind, about in KINDS.items():
        rows = sorted({(each.problem, each.cure) for each in found if each.kind == kind})
        parts.append(f"## {kind}\n\n{about}.\n\n" + write_table(["message", "cure"], rows))
    return {"parts/errors": "\n".join(parts)}


def read_errors(path: Path) -> Iterator[Raised]:
    """Yield the errors that a module builds."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        cures = [each.value for each in node.keywords if each.arg == "cure"]
        if node.func.id in KINDS and node.args and cures:
            problem, cure = read_text(node.args[0]), read_text(cures[0])
            if re.search(r"\w{3}", problem.replace("{...}", "")):
                yield Raised(node.func.id, problem, cure)


def read_text(node: ast.expr) -> str:
    """Return the text of an expression, with ``{...}`` for what is computed."""
    match node:
        case ast.Constant(value=str(text)):
            return escape(text)
        case ast.JoinedStr(values=values):
            return "".join(map(read_text, values))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return read_text(left) + read_text(right)
        case ast.Call(func=ast.Name(id="Phrase"), args=[first, *_]):
            return read_text(first)
        case ast.IfExp(body=body, orelse=other):
            return f"{read_text(body)} / {read_text(other)}"
        case _:
            return "{...}"


def escape(text: str) -> str:
    """Return a text without the signs that Markdown would read."""
    return re.sub(r"([\\*_`<>\[\]$])", r"\\\1", text)
