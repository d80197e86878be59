"""How many small errors in the rules of an account the tests notice. Prints JSON.

    python benchmarks/mutants.py [--seed 83] [--count 40] [--rooms account,margin,engine]
                                 [--tests FOLDER] [--only NUMBER,NUMBER] [--minutes 20]
                                 [--keep FILE]

Draws ``count`` operators of comparison and arithmetic in the rooms' sources, exchanges each for
another, one at a time in a copy of the package, and runs the tests of the rooms, then three seeds
of each kind of the oracle, in plain Python, until one fails. An error that no test notices is
printed with its line: a test is missing there, or the code does nothing. ``--tests`` takes tests
of another checkout on the same sources, to compare two versions of them. ``--keep`` writes each
mutant to a file as soon as it is tried; a call with that file goes on with those that it lacks.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]

EXCHANGED: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Add: ("+", "-"), ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
}  # fmt: skip
"""The text of each operator, and what stands in its place in a mutant."""

TESTS_OF_ROOMS = {
    "account": ("tests/account", "tests/accounts"),
    "margin": ("tests/venue", "tests/account"),
    "engine": ("tests/engine", "tests/account"),
}
"""The tests of a room; those of margin rules need accounts to reach all of them."""

ORACLE = ("tests/oracle/test_engine.py", "-k", "test_the_engine_equals_the_oracle")
"""Three seeds of each kind of drawn account; the others of them are slow."""


class Mutant(NamedTuple):
    """An operator in a file, at an offset of its text, and what replaces it."""

    file: str
    line: int
    offset: int
    operator: str
    replacement: str

    def apply(self, text: str) -> str:
        """Return the text of the file with the operator exchanged."""
        end = self.offset + len(self.operator)
        return f"{text[: self.offset]}{self.replacement}{text[end:]}"


def list_mutants(rooms: list[str]) -> list[Mutant]:
    """Return all operators of the rooms that can be exchanged, in the order of files."""
    mutants: list[Mutant] = []
    for room in rooms:
        for path in sorted((ROOT / "backtest" / room).rglob("*.py")):
            mutants += find_in_file(path)
    return mutants


def find_in_file(path: Path) -> Iterator[Mutant]:
    """Yield the operators of a file that stand between two operands on one line."""
    text = path.read_text(encoding="utf-8")
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    for node in ast.walk(ast.parse(text)):
        for operator, left, right in list_operands(node):
            if type(operator) not in EXCHANGED or left.end_lineno != right.lineno:
                continue
            symbol, replacement = EXCHANGED[type(operator)]
            begin = starts[right.lineno - 1] + left.end_col_offset
            end = starts[right.lineno - 1] + right.col_offset
            place = text.find(symbol, begin, end)
            if place >= 0:
                file = path.relative_to(ROOT).as_posix()
                yield Mutant(file, right.lineno, place, symbol, replacement)


def list_operands(node: ast.AST) -> Iterator[tuple[ast.AST, Any, Any]]:
    """Yield the operators of a node, each with what stands left and right of it."""
    if isinstance(node, ast.BinOp):
        yield node.op, node.left, node.right
    elif isinstance(node, ast.AugAssign):
        yield node.op, node.target, node.value
    elif isinstance(node, ast.Compare):
        lefts = [node.left, *node.comparators[:-1]]
        yield from zip(node.ops, lefts, node.comparators, strict=True)


def copy_project(folder: Path, tests: Path) -> None:
    """Copy what the tests need into a folder, with the tests of another checkout if asked."""
    ignored = shutil.ignore_patterns("__pycache__", "_built", ".git", ".venv", "build")
    for name in ("backtest", "backtest_pytest", "benchmarks", "data", "docs", "examples"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copytree(tests, folder / "tests", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)


def run_tests(folder: Path, words: tuple[str, ...], minutes: float) -> str:
    """Run tests in a folder until one fails; return that test's name, or what stopped them.

    Empty if all pass.
    """
    environment = {**os.environ, "BACKTEST_COMPILE": "auto", "PYTHONPATH": str(folder)}
    in_plain_python = "not slow and not compiled"  # to compile a mutant takes a minute and more
    flags = ("-q", "-x", "-m", in_plain_python, "-p", "no:cacheprovider", "--no-header", "--tb=no")
    command = [sys.executable, "-m", "pytest", *words, *flags]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60.0 * minutes,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {minutes:g} minutes"
    if done.returncode == 0:
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].split(" - ")[0] if failed else f"exit code {done.returncode}"


def find_killer(folder: Path, room: str, minutes: float) -> str:
    """Return the first test that fails for the sources of a folder; empty if none does."""
    killer = run_tests(folder, ORACLE, minutes)
    for tests in TESTS_OF_ROOMS[room]:
        killer = killer or run_tests(folder, (tests,), minutes)
    return killer


def try_mutant(mutant: Mutant, folder: Path, minutes: float) -> dict[str, Any]:
    """Put a mutant into the copy, run the tests, and put the text back."""
    path = folder / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(mutant.apply(text), encoding="utf-8")
    room = mutant.file.split("/")[1]
    try:
        killer = find_killer(folder, room, minutes)
    finally:
        path.write_text(text, encoding="utf-8")

    line = text.splitlines()[mutant.line - 1].strip()
    return {
        "place": f"{mutant.file}:{mutant.line}",
        "change": f"{mutant.operator} -> {mutant.replacement}",
        "code": line,
        "killed_by": killer,
    }


def read_kept(file: Path | None) -> list[dict[str, Any]]:
    """Return the mutants that an earlier call has tried, in the order of its file."""
    if file is None or not file.exists():
        return []
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def require_passing(folder: Path, rooms: list[str], minutes: float) -> None:
    """End with an error if a test fails without any mutant."""
    for room in rooms:
        failed = find_killer(folder, room, minutes)
        if failed:
            sys.exit(f"the tests of {room} must pass without a mutant, {failed} does not")


def main() -> None:
    """Try the mutants that the flags ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=83)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--rooms", default="account,margin,engine")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests")
    parser.add_argument("--only", default="")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--keep", type=Path)
    flags = parser.parse_args()

    rooms = flags.rooms.split(",")
    population = list_mutants(rooms)
    drawn = random.Random(flags.seed).sample(population, flags.count)
    wanted = [int(number) for number in flags.only.split(",") if number] or range(len(drawn))

    rows = read_kept(flags.keep)
    tried = {row["number"] for row in rows}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_project(folder, flags.tests)
        if not rows:
            require_passing(folder, rooms, flags.minutes)
        for number in wanted:
            if number in tried:
                continue
            started = time.monotonic()
            row = {"number": number, **try_mutant(drawn[number], folder, flags.minutes)}
            row["seconds"] = round(time.monotonic() - started)
            rows.append(row)
            if flags.keep is not None:
                with flags.keep.open("a", encoding="utf-8") as file:
                    file.write(f"{json.dumps(row)}\n")
            sys.stderr.write(f"{number}: {row['place']} {row['killed_by'] or 'SURVIVES'}\n")

    killed = sum(bool(row["killed_by"]) for row in rows)
    summary = {"seed": flags.seed, "operators": len(population), "tried": len(rows)}
    report = {**summary, "killed": killed, "mutants": rows}
    sys.stdout.write(f"{json.dumps(report, indent=1)}\n")


if __name__ == "__main__":
    main()
