"""What the pages show is true: code of the README runs, commands and files are there."""

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from backtest import Account
from backtest.cli import main
from backtest.cli.experiment_keys import TABLES, list_keys
from tests.commands import override

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / name / "README.md" for name in ("", "data", "examples", "results")),
    *sorted((ROOT / "docs").glob("*.md")),
]


GROUPS = ("data", "options", "regress", "results", "validate")
"""The commands that have commands of their own."""


def find_blocks(language, text=README):
    return re.findall(rf"```(?:{language})\n(.*?)```", text, re.DOTALL)


def find_commands(text=README):
    """Return the lines of the shell blocks without their comments."""
    lines = [line for block in find_blocks("sh|console", text) for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_the_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = find_blocks("python")
    assert len(blocks) == 3
    names = {}
    for number, block in enumerate(blocks):
        file = tmp_path / f"block_{number}.py"
        file.write_text(block, encoding="utf-8")
        exec(compile(block, str(file), "exec"), names)
    assert "SYNTHETIC" in capsys.readouterr().out
    assert names["folder"].is_dir()


def test_the_policy_of_the_readme_runs_from_its_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_policy.py").write_text(find_blocks("python")[0], encoding="utf-8")
    flags = ("--no-compile", "--no-save", "--to", "2023-02-01")
    assert main(["run", "--policy", "my_policy.py:Brake", "--set", "most=5", *flags]) == 0
    assert "Brake(most=5.0, limit=0.3)" in capsys.readouterr().out


def test_the_pictures_are_those_that_the_command_draws():
    """It names them, they are there, and they are pictures of the sample's reports."""
    script = (ROOT / "benchmarks" / "pictures.py").read_text(encoding="utf-8")
    drawn = set(re.findall(r'folder / "([\w.]+)"', script))
    shown = set(re.findall(r"\]\(docs/pictures/([\w.]+)\)", README))
    assert shown == drawn == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    assert "python benchmarks/pictures.py" in README
    for name in drawn:
        head = (ROOT / "docs" / "pictures" / name).read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert int.from_bytes(head[16:20]) == 1280


def test_two_commands_set_up_and_both_are_in_the_makefile():
    commands = find_commands()
    assert [command[:2] for command in commands[:2]] == [["make", "run"], ["make", "test"]]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for command in commands:
        if command[0] == "make":
            assert re.search(rf"^{command[1]}:", makefile, re.MULTILINE)


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


SHORT = ("--to", "2023-01-15", "--no-compile", "--results", "here")
"""Two weeks in plain Python: nothing is compiled."""
LESS = {"sweep": ("--draws", "6"), "tune": ("--trials", "16", "--sampler", "random")}


SETS = [
    pytest.param(c, marks=pytest.mark.slow if "--cluster" in c else (), id=" ".join(c))
    for c in find_commands()
    if c[:2][-1] in LESS
]


@pytest.mark.slow
@pytest.mark.parametrize("command", SETS)
def test_the_sweeps_and_searches_of_the_readme_run(command, tmp_path, monkeypatch, capsys):
    if "--cluster" in command:
        pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    words = [str(ROOT / word) if word.startswith("examples/") else word for word in command[1:]]
    less = () if "--vary" in words else LESS[command[1]]
    assert main(override(words, *SHORT, *less)) == 0
    assert "\nbacktest run " in capsys.readouterr().out


def test_links_and_paths_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
        for path in re.findall(r"`((?:backtest|tests|data|docs|strategies)/[\w./-]*)`", text):
            assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_every_table_and_key_of_an_experiment_is_in_the_readme():
    rows = dict(re.findall(r"^\| `\[(\w+)\]` \| (.*) \|$", README, re.MULTILINE))
    assert set(rows) == set(list_keys(""))
    for table in TABLES:
        for key in list_keys(table):
            assert key in rows[table]
    for field in fields(Account):
        assert f"`{field.name}`" in rows["account"]
