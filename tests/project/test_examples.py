"""Everything in examples/ runs: each command of its page, the policy repository, the notebook."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit import call, override

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "README.md").read_text(encoding="utf-8")
REPOSITORY = EXAMPLES / "policy-repo"

WEEKS = ("--to", "2023-01-15", "--no-compile")
CUTS = {
    "sweep": ("--draws", "6", *WEEKS),
    "tune": ("--trials", "16", "--sampler", "random", *WEEKS),
    "compare": ("--to", "2023-02-15", "--no-compile"),
}
"""The flags that make a command quick: some weeks, few sets, plain Python."""
COMPILES = "check"
"""The command that compiles whatever its flags."""


def find_commands(page):
    """Return the commands of the shell blocks, as lists of arguments without the program."""
    blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [each[1:] for each in words if each[0] == "backtest"]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Return a folder with a copy of the examples, as the working directory."""
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache", "results")
    for folder in (EXAMPLES, EXAMPLES.parent / "data"):
        shutil.copytree(folder, tmp_path / folder.name, ignore=ignored)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKTEST_COMPILE", "no")  # short runs answer in plain Python
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("is_cut", [True, False])
def test_every_command_of_the_page_runs(desk, capsys, is_cut):
    for words in find_commands(PAGE):
        if is_cut and words[0] == COMPILES:
            continue
        cut = CUTS.get(words[0], ()) if is_cut else ()
        code, _, err = call(capsys, *override(words, *cut))
        assert code == 0, f"backtest {shlex.join(words)}: {err}"
    assert (desk / "btc" / "bars.parquet").is_file()
    assert list(desk.glob("sweep-cppi-*.md"))


def test_the_gate_of_the_policy_repository_passes_and_notices_a_change(desk, capsys, monkeypatch):
    monkeypatch.chdir(desk / "examples" / "policy-repo")
    code, out, _ = call(capsys, "regress", "check", "--json")
    (found,) = json.loads(out)["baselines"]
    named = [each["name"] for each in found["changes"] if each["kind"] != "engine"]
    is_other_python = any(each.startswith("python ") for each in found["platform"])
    assert code == 0
    assert named in ([], ["policy.source_hash"] if is_other_python else []), (
        "the baseline is stale: record it again, in examples/policy-repo, with "
        "backtest regress check --update"
    )
    policy = Path("policies/steady.py")
    policy.write_text(policy.read_text().replace("1.0 - 2.0 * account", "0.99 - 2.0 * account"))
    code, out, _ = call(capsys, "regress", "check")
    assert code == 1
    assert "source" in out


@pytest.mark.slow
def test_the_tests_of_the_policy_repository_pass(desk):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=desk / "examples" / "policy-repo",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


RUNNER = """
import ast, json, sys

names = {"__name__": "__main__"}
for number, cell in enumerate(json.loads(open(sys.argv[1], encoding="utf-8").read())["cells"]):
    if cell["cell_type"] != "code":
        continue
    *lines, last = ast.parse("".join(cell["source"])).body
    if not isinstance(last, ast.Expr):
        lines, last = [*lines, last], None
    exec(compile(ast.Module(lines, []), f"cell {number}", "exec"), names)
    if last is not None:
        shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        display = getattr(shown, "_repr_html_", None)
        print(number, len(display() if display else repr(shown)))
"""
"""Runs the code cells of a notebook in order, and displays the last expression of each."""


def load_cells():
    return json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]


@pytest.mark.slow
def test_the_cells_of_the_notebook_run_in_order(desk):
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, "examples/notebook.ipynb"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (desk / "steady.html").is_file()
