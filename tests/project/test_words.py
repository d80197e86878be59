"""People read the field's words: no text of theirs has the patterns of ``tests/words.toml``."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backtest as bt
from tests.project.test_cures import write_text

ROOT = Path(bt.__file__).parents[1]
WORDS = tomllib.loads((ROOT / "tests" / "words.toml").read_text(encoding="utf-8"))["word"]
ROOMS = sorted(path.name for path in (ROOT / "backtest").iterdir() if path.is_dir()
               and (path / "__init__.py").exists() and path.name != "strategies")  # fmt: skip
SCOPES = ("messages", "docs", "docstrings")
ANY = {scope: re.compile("|".join(row["not"] for row in WORDS if scope in row["in"]))
       for scope in SCOPES}  # fmt: skip
TERMS = re.compile(r"``.*?``|:[a-z]+:`.*?`", re.DOTALL)
CODE = re.compile(r"^(```|~~~).*?^\1|`[^`]*`|\]\([^)]*\)", re.MULTILINE | re.DOTALL)


def list_texts(path: Path) -> Iterator[tuple[str, int, str]]:
    """Yield scope, line and text of each docstring and message of a module or template."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".html":
        yield (
            "messages",
            1,
            re.sub(r"\{[{%#].*?[}%#]\}|<(script|style).*?</\1>", "", source, flags=re.S),
        )
        return
    inner: set[int] = set()
    for node in ast.walk(ast.parse(source)):  # parents come first
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inner.add(id(node.value))
            text = node.value.value
            if isinstance(text, str):
                yield "messages" if path.parent.name == "cli" else "docstrings", node.lineno, text
        elif isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in inner:
            inner |= {*map(id, getattr(node, "values", ()))}
            if " " in write_text(node).strip():
                yield "messages", node.lineno, write_text(node)


def find_words(scope: str, text: str) -> list[str]:
    """Return the words of a text that its scope has not, each with the field's word."""
    if not ANY[scope].search(text):
        return []
    found = []
    text = TERMS.sub("``", text)
    for row in (row for row in WORDS if scope in row["in"]):
        plain = text
        for term in row.get("except", ()):
            plain = plain.replace(term, "")
        found += [f"{match[0]!r}, better: {row['but']}" for match in re.finditer(row["not"], plain)]
    return found


@pytest.mark.parametrize("room", [*ROOMS, "strategies"])
def test_texts_of_a_room_have_the_fields_words(room: str) -> None:
    folder = ROOT / room if room == "strategies" else ROOT / "backtest" / room
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in sorted([*folder.rglob("*.py"), *folder.rglob("*.html")])
        for scope, line, text in list_texts(path)
        for word in find_words(scope, text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "page", [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"],
    ids=lambda page: page.stem,
)  # fmt: skip
def test_a_page_has_the_fields_words(page: Path) -> None:
    text = page.read_text(encoding="utf-8").partition("\n## Words\n")[0]
    prose = CODE.sub(lambda code: "\n" * code[0].count("\n"), text)
    wrong = [
        f"{number}: {word}"
        for number, line in enumerate(prose.split("\n"), 1)
        for word in find_words("docs", line)
    ]
    assert not wrong, "\n".join(wrong)


def test_each_pattern_finds_a_word_and_leaves_its_terms() -> None:
    rows: list[dict[str, Any]] = WORDS
    for row in rows:
        assert {*row["in"]} <= {*SCOPES}
        assert not any(re.fullmatch(row["not"], term) for term in row.get("except", ()))
        assert row["but"]
    assert find_words("docs", "the winner lives and takes precedence") == [
        "'winner', better: best trial, best set, chosen set",
        "'lives', better: simulated, survived, history",
    ]


SPOKEN = {
    "engine": "loop.py", "sweep": "lanes", "risk": "", "results": "", "search": "", "margin": "",
    "account": "",
}  # fmt: skip
"""Rooms whose functions have sentences, and the part of a room that has not all yet."""


def list_functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    """Yield the functions and methods of a module, nested ones too."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child
        if not isinstance(child, ast.expr):
            yield from list_functions(child)


def find_root(node: ast.expr) -> str:
    """Return the name whose element or attribute an expression is."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def needs_sentence(function: ast.FunctionDef, *, has_values: bool) -> bool:
    """Return whether it returns a tuple, writes into an argument, has a value, or is a bound."""
    returned = ast.unparse(function.returns) if function.returns else ""
    if returned.startswith("tuple[") and not returned.endswith("...]"):
        return True
    names = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
    floats = {
        each.arg for each in function.args.args if ast.unparse(each.annotation or each) == "float"
    }
    stored = {
        find_root(node)
        for node in ast.walk(function)
        if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    is_of_value = has_values and bool({"u", "value"} & floats)
    return is_of_value or bool((names - {"self"}) & stored) or "bound" in function.name.split("_")


@pytest.mark.parametrize("room", SPOKEN)
def test_functions_that_need_a_sentence_have_one(room: str) -> None:
    """A sentence for what returns a tuple, writes into an argument, has a value, or is a bound."""
    silent = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for path in sorted((ROOT / "backtest" / room).rglob("*.py"))
        if SPOKEN[room] not in path.parts
        for function in list_functions(ast.parse(path.read_text(encoding="utf-8")))
        if needs_sentence(function, has_values=room == "margin") and not ast.get_docstring(function)
        and not function.name.startswith("__")
    ]  # fmt: skip
    assert not silent, silent
