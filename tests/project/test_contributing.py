"""CONTRIBUTING.md and ARCHITECTURE.md name the files that are there, and leave none out."""

import ast
import re
from pathlib import Path

import pytest

from tests.commands import call

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
COMPLETE = ("policy", "estimator", "metric", "sampler", "chart", "venue", "data vendor",
            "path model", "weight rule", "portfolio-margin preset", "stop", "cost")  # fmt: skip
"""The lists whose example has a name of its own: nothing else of the package mentions it."""
TITLES = (*COMPLETE, "source of downloads", "command", "kind of result")


def read_section(title):
    """Return the example of a list and its rows: the text of each by its file."""
    text = re.split(rf"^### Add an? {title}$", CONTRIBUTING, flags=re.MULTILINE)[1]
    text = re.split(r"^##", text, maxsplit=1, flags=re.MULTILINE)[0]
    (example,) = re.findall(r"Example: `([^`]+)`", text)
    return example, dict(re.findall(r"^\| `([\w./-]+)` \| (.*) \|$", text, re.MULTILINE))


def find_file(name):
    """Return the path of a file of a list: names without a folder are of tests."""
    if "/" in name or (ROOT / name).exists():
        return ROOT / name
    return next(iter((ROOT / "tests").rglob(name)), ROOT / "tests" / name)


def mentions(path, name):
    return re.search(rf"\b{re.escape(name)}\b", path.read_text(encoding="utf-8")) is not None


def list_sources():
    """Return the modules and pages of the package, which lists of changes are about."""
    folders = [ROOT / name for name in ("backtest", "strategies")]
    modules = [path for folder in folders for path in folder.rglob("*.py")]
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    return {path.resolve() for path in (*modules, *pages)}


def test_every_list_is_checked():
    assert sorted(re.findall(r"^### Add an? (.*)$", CONTRIBUTING, re.MULTILINE)) == sorted(TITLES)


@pytest.mark.parametrize("title", TITLES)
def test_the_files_of_a_list_are_there_and_have_the_example(title):
    example, rows = read_section(title)
    assert rows
    for name, text in rows.items():
        path = find_file(name)
        assert path.is_file(), name
        words = [example, *re.findall(r"`([^`]+)`", text)]
        assert any(word in path.read_text(encoding="utf-8") for word in words), name


@pytest.mark.parametrize("title", COMPLETE)
def test_a_list_leaves_no_file_out(title):
    example, rows = read_section(title)
    listed = {find_file(name).resolve() for name in rows}
    found = {path for path in list_sources() if mentions(path, example)}
    assert sorted(found - listed) == []


@pytest.mark.parametrize(
    ("title", "word"),
    [("metric", "over_cap"), ("stop", "TIME_STOPPED"), ("stop", "stop_by_time"),
     ("stop", "time_stop"), ("cost", "fund_fees"), ("cost", "high_water")],
)  # fmt: skip
def test_a_list_names_all_files_that_know_a_field(title, word):
    """Nothing else is named like these fields, which the last metric, stop and cost added."""
    _, rows = read_section(title)
    found = {path for path in list_sources() if word in path.read_text(encoding="utf-8")}
    listed = {find_file(name).resolve() for name in rows}
    doors = {path for path in found if path.name == "__init__.py"}  # they pass all names on
    assert sorted(path for path in found - listed - doors if path.suffix == ".py") == []


def test_every_command_has_a_file_of_its_name(capsys):
    _, out, _ = call(capsys, "--help")
    names = re.findall(r"^│ (\w+)  ", out, re.MULTILINE)
    assert len(names) > 10
    for name in names:
        assert (ROOT / "backtest" / "cli" / f"{name}_command.py").is_file()


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_and_paths_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / link).exists(), link
    folders = "backtest|backtest_pytest|benchmarks|tests|data|docs|strategies|examples"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


def test_the_names_of_the_architecture_are_those_of_the_code():
    names = set(re.findall(r"`([A-Za-z_]+)(?:\(\))?`", ARCHITECTURE))
    text = "".join(path.read_text(encoding="utf-8") for path in list_sources())
    folders = {path.name for path in (ROOT / "backtest").rglob("*") if path.is_dir()}
    assert len(names) > 20
    assert sorted(n for n in names - folders if not re.search(rf"\b{n}\b", text)) == []


def test_the_table_of_wings_is_that_of_the_folders():
    table = ARCHITECTURE.partition("| wing |")[2].partition("\n\n")[0]
    wings = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    folders = [path.parent for path in (ROOT / "backtest").glob("*/__init__.py")]
    assert set(wings) == {folder.name for folder in folders if not folder.is_symlink()}


@pytest.mark.slow
def test_the_execs_of_the_package_are_those_that_are_explained():
    table = ARCHITECTURE.partition("## Where `exec` runs")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `([\w./]+)`, `(\w+)` \|", table, re.MULTILINE)
    found = []
    for path in sorted((ROOT / "backtest").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                calls = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
                if any(isinstance(c.func, ast.Name) and c.func.id == "exec" for c in calls):
                    found.append((path.relative_to(ROOT).as_posix(), node.name))
    assert sorted(listed) == sorted(found)
