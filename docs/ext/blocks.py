"""Code blocks of pages: each is run on its own, in a folder with sample data."""

from __future__ import annotations

import ast
import dataclasses
import io
import os
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
WIDTH = 96
"""Columns of what commands print."""
SAMPLES = {"btc": 0, "eth": 1}
"""Folders of data that blocks may read, with the seed of their sample."""


COMPILES = ("run", "compare", "sweep", "tune", "validate")
PLAIN = ("--no-compile",)
"""The runs of pages are short, which is faster than to compile; the numbers are the same."""


class Block(NamedTuple):
    language: str
    code: str
    line: int


class Output(NamedTuple):
    text: str
    html: str
    seconds: float = 0.0
    """Of CPU, in this process and in those that it waited for."""


def find_blocks(page: str) -> list[Block]:
    found = re.finditer(r"^```(python|sh|toml)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return [Block(each[1], each[2], page[: each.start()].count("\n") + 2) for each in found]


def find_commands(code: str) -> list[list[str]]:
    lines = (shlex.split(line, comments=True) for line in code.replace("\\\n", " ").splitlines())
    return [words[1:] for words in lines if words[:1] == ["backtest"]]


def write_samples(folder: Path) -> None:
    import backtest as bt

    for name, seed in SAMPLES.items():
        sample = bt.Market.sample(bars=24 * 120, seed=seed)
        market = dataclasses.replace(sample, instrument=f"{name.upper()}USDT")
        market.save(folder / name)


@contextmanager
def standing_in(folder: Path) -> Iterator[None]:
    environment = dict(os.environ)
    modules = set(sys.modules)

    os.environ |= {"COLUMNS": str(WIDTH), "NO_COLOR": "1"}
    sys.path.insert(0, str(folder))
    try:
        with chdir(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - modules:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]

        os.environ.clear()
        os.environ.update(environment)


def run_block(block: Block, folder: Path, page: str, module: ModuleType | None = None) -> Output:
    if block.language == "python":
        return run_python(block, folder, page, module)
    if block.language == "sh":
        return run_shell(block, folder, page)
    write_file(block, folder)
    return Output("", "")


def run_python(block: Block, folder: Path, page: str, module: ModuleType | None = None) -> Output:
    file = write_file(block, folder) or folder / f"block_{block.line}.py"
    file.write_text(block.code, encoding="utf-8")
    module = module or ModuleType(file.stem)
    module.__file__ = str(file)
    names = vars(module)

    # The last expression is shown, as a notebook does.
    tree = ast.parse(block.code, file.name)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = tree.body.pop()

    printed = io.StringIO()
    with standing_in(folder), redirect_stdout(printed):
        sys.modules[module.__name__] = module
        try:
            exec(compile(tree, str(file), "exec"), names)
            shown = None
            if last is not None:
                shown = eval(compile(ast.Expression(last.value), str(file), "eval"), names)
        except Exception as error:
            error.add_note(f"{page}, the block in line {block.line}")
            raise

        html = write_html(shown)
        if shown is not None and not html:
            print(repr(shown))  # noqa: T201 - into the output of the block
    return Output(printed.getvalue(), html)


def write_html(shown: Any) -> str:
    if not hasattr(shown, "to_plotly_json"):
        display = getattr(shown, "_repr_html_", None)
        return display() if display else ""

    clear = "rgba(0,0,0,0)"  # the background of the page
    shown.update_layout(paper_bgcolor=clear, plot_bgcolor=clear, font_color="#888", autosize=True)
    text: str = shown.to_html(
        full_html=False, include_plotlyjs=False, config={"responsive": True, "displaylogo": False}
    )
    return text


def write_file(block: Block, folder: Path) -> Path | None:
    title = re.match(r"# (\w+\.(?:py|toml))\n", block.code)
    if title is None:
        return None
    path = folder / title[1]
    path.write_text(block.code, encoding="utf-8")
    return path


def run_shell(block: Block, folder: Path, page: str) -> Output:
    from backtest.cli import main

    printed = io.StringIO()
    with standing_in(folder), redirect_stdout(printed), redirect_stderr(printed):
        for words in find_commands(block.code):
            flags = PLAIN if words[0] in COMPILES else ()
            code = main([*words, *flags])
            if code:
                raise RuntimeError(
                    f"{page}, line {block.line}: backtest {shlex.join(words)} ended with {code}:\n"
                    f"{printed.getvalue()[-2000:]}"
                )
    return Output(printed.getvalue(), "")
