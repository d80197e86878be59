"""What the pages show is true: code of the README runs, commands and files are there."""

import re
import shlex
from pathlib import Path

import pytest

from backtest.cli import main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / name / "README.md" for name in ("", "data", "examples", "results")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CONTRIBUTING", "SECURITY")),
]

GROUPS = ("data", "options", "regress", "results", "validate")
"""The commands that have commands of their own."""


def find_blocks(language, text=README):
    return re.findall(rf"```(?:{language})\n(.*?)```", text, re.DOTALL)


def find_commands(text=README):
    """Return the lines of the shell blocks, those that go on as one, without their comments."""
    blocks = [block.replace("\\\n", "") for block in find_blocks("sh|console", text)]
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_the_policy_of_the_readme_is_that_of_the_tutorial_and_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (policy,) = find_blocks("python")
    assert policy in find_blocks("python", (ROOT / "docs" / "tutorial.md").read_text("utf-8"))
    (tmp_path / "steady.py").write_text(policy, encoding="utf-8")
    flags = ("--no-compile", "--no-save", "--to", "2023-02-01")
    assert main(["run", "--policy", "steady.py:Steady", "--set", "target=0.4", *flags]) == 0
    assert "Steady(target=0.4)" in capsys.readouterr().out


def test_what_it_prints_is_what_the_command_prints(capsys):
    (shown,) = find_blocks("text")
    assert main(["run", "--no-save", "--no-compile"]) == 0
    printed = capsys.readouterr().out
    for line in shown.splitlines():
        assert line.strip() == "..." or line in printed, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_exist_with_all_their_flags(page, capsys):
    helps = {}
    for command in find_commands(page.read_text(encoding="utf-8")):
        if command[0] != "backtest":
            continue
        names = tuple(command[1 : 2 + (command[1] in GROUPS)])
        if names not in helps:
            assert main([*names, "--help"]) == 0
            helps[names] = capsys.readouterr().out
        for word in command[2:]:
            if word.startswith("--"):
                assert word in helps[names], " ".join(command)
            if word.startswith("examples/"):
                assert (ROOT / word).is_file()
