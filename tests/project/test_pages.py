"""What the pages show is true: code of the README runs, commands and files are there."""

import ast
import json
import math
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import plotly.graph_objects as go
import pytest

from backtest.cli import main
from benchmarks import ports
from docs.ext import blocks, links, pages, pictures, thumbnails
from tests.kit import call

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    *(ROOT / name / "README.md" for name in ("", "data", "examples", "results")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "gallery").glob("*.md")),
    *(ROOT / f"{name}.md" for name in ("ARCHITECTURE", "CONTRIBUTING", "SECURITY")),
]

GROUPS = ("data", "options", "regress", "results", "validate")
"""The commands that have commands of their own."""
EXAMPLES = ROOT / "examples"
PAGE = (EXAMPLES / "README.md").read_text(encoding="utf-8")
GIT = "leverage-backtest @ git+https://github.com/leverage-backtest/leverage-backtest@"
BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = {path.relative_to(BENCHMARKS).as_posix() for path in BENCHMARKS.rglob("*.py")}
HELPERS = {"timing.py", "replications/comparison.py", "replications/paths.py"}
"""What the others import: no commands."""


PORTS = json.loads((BENCHMARKS / "ports.json").read_text("utf-8"))
SITE = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]
FAST = ("tutorial",)
SLOW = ("concepts", "moving", "howto", "searches", "validation", "risk", "sweeps", "margin-systems")
"""`make test` runs every block of FAST, none of SLOW and the gallery, else the first of a page."""


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
    assert main(["run", "--no-save"]) == 0
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


def start(*words, folder):
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture
def desk(tmp_path, monkeypatch):
    ignored = shutil.ignore_patterns("__pycache__", ".pytest_cache", "results")
    for folder in (EXAMPLES, EXAMPLES.parent / "data"):
        shutil.copytree(folder, tmp_path / folder.name, ignore=ignored)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BACKTEST_COMPILE", "auto")  # short runs answer in plain Python
    return tmp_path


@pytest.mark.slow
def test_every_command_of_the_page_runs(desk, capsys):
    commands = [words for _, *words in find_commands(PAGE)]
    commands.remove(["compile"])  # `make core` and a test of the command line have run it
    for words in commands:
        code, _, err = call(capsys, *words)
        assert code == 0, f"backtest {shlex.join(words)}: {err}"
    assert (desk / "btc" / "bars.parquet").is_file()
    assert list(desk.glob("sweep-cppi-*.md"))


STALE = (
    "the baseline is stale: record it again, in examples/policy-repo, with "
    "backtest regress check --update --reason '...'"
)


def test_the_gate_of_the_policy_repository_passes_and_notices_a_change(desk, capsys, monkeypatch):
    monkeypatch.chdir(desk / "examples" / "policy-repo")
    ended, out, err = call(capsys, "regress", "check", "--json")
    assert ended == 0, f"{out}{err}\n{STALE}"
    (found,) = json.loads(out)["baselines"]
    named = [change["name"] for change in found["changes"] if change["kind"] != "engine"]
    is_other_python = any(line.startswith("python ") for line in found["platform"])
    assert named in ([], ["policy.source_hash"] if is_other_python else []), STALE

    policy = Path("policies/steady.py")
    policy.write_text(policy.read_text().replace("1.0 - 2.0 * account", "0.99 - 2.0 * account"))

    code, out, _ = call(capsys, "regress", "check")
    assert code == 1
    assert "source" in out


@pytest.mark.slow
def test_the_tests_of_the_policy_repository_pass(desk):
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    done = start(*words, folder=desk / "examples" / "policy-repo")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


@pytest.mark.slow
def test_the_workflow_of_the_policy_repository_runs_as_it_is_written(tmp_path):
    """In an empty home, and an environment that has its other requirements but not the package."""
    yaml = pytest.importorskip("yaml")
    folder = tmp_path / "repository"
    tree = tmp_path / "tree"
    shutil.copytree(EXAMPLES / "policy-repo", folder)
    for name in ("backtest", "backtest_pytest"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)

    needed = (folder / "requirements.txt").read_text().splitlines()
    (place,) = (k for k, line in enumerate(needed) if line.startswith(GIT))
    needed[place] = f"leverage-backtest @ {tree.as_uri()}"
    (folder / "requirements.txt").write_text("\n".join(needed))

    made = start("-m", "venv", "--without-pip", str(tmp_path / "venv"), folder=tmp_path)
    assert made.returncode == 0
    (own,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    others = [place for place in sys.path if "site-packages" in place]
    (own / "others.pth").write_text("\n".join(others))

    scripts = tmp_path / "venv" / "bin"
    for name in ("pip", "pytest"):
        (scripts / name).write_text(f'#!/bin/sh\nexec python -m {name} "$@"\n')
        (scripts / name).chmod(0o755)

    workflow = yaml.safe_load((folder / ".github/workflows/policies.yml").read_text())
    steps = workflow["jobs"]["policies"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert len(commands) == 5

    environment = {
        "HOME": str(tmp_path / "home"), "PATH": f"{scripts}:/usr/bin:/bin",
        "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0",
    }  # fmt: skip
    for command in commands:
        words = ["bash", "-eo", "pipefail", "-c", command]
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"

    for name in ("tests.xml", "verdict.md", "steady.html"):
        assert (folder / "reports" / name).is_file()


@pytest.mark.slow
def test_the_cells_of_the_notebook_run_in_order(desk):
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]

    done = start("-c", "\n".join(code), folder=desk)

    assert done.returncode == 0, done.stderr[-3000:]
    assert (desk / "steady.html").is_file()


def list_blocks():
    for page in SITE:
        found = [b for b in blocks.find_blocks(page.read_text("utf-8")) if b.language == "python"]
        for number, block in enumerate(found):
            is_whole = page.stem in SLOW or page.parent.name == "gallery"
            is_slow = is_whole or (number > 0 and page.stem not in FAST)
            marks = pytest.mark.slow if is_slow else ()
            yield pytest.param(page, block, marks=marks, id=f"{page.stem}-{number}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blocks")
    blocks.write_samples(folder)
    return folder


@pytest.fixture(autouse=True)
def _answer_in_plain_python(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "auto")


@pytest.mark.parametrize(("page", "block"), [*list_blocks()])
def test_a_block_runs_on_its_own(page, block, folder):
    blocks.run_python(block, folder, page.name)


def test_five_bars_by_hand_are_what_the_account_does(folder):
    """The block of the page, its table, and the same arithmetic here."""
    text = (ROOT / "docs" / "accounting.md").read_text("utf-8")
    module = ModuleType("five_bars")
    blocks.run_python(blocks.find_blocks(text)[0], folder, "accounting", module)
    bars = module.result.bars

    rows = re.findall(r"^\| ([0-4]) \|.*\| ([\d,.]+) \|$", text, re.MULTILINE)
    assert [f"{equity:,.2f}" for equity in bars["equity"]] == [shown for _, shown in rows]

    first = 1_000.0 + 30 * 2 - 30 * 100 * 0.001
    held = math.floor(5 * (first - 30 * 102 * 0.0005) / 102 * 1_000) / 1_000
    second = first - 30 * 102 * 0.0005 - (held - 30) * 102 * 0.001 - held
    third = second - 4 * held
    price = (97 * held - third) / (0.98 * held)
    last = third + held * (price - 97) - 0.005 * held * price
    assert bars["equity"].to_list() == pytest.approx([1_000, first, second, third, last], rel=1e-12)
    assert bars["liquidation_price"].iloc[3] == pytest.approx(price, rel=1e-12)

    for shown in ("51.738", "83.31", "1.53", "2.22", "51.74", "206.95", "708.36", "21.55"):
        assert shown in text


def test_the_drawings_are_what_the_code_draws():
    """Else ``python -m docs.ext.pictures`` draws them again."""
    for name, drawing in pictures.draw_all().items():
        assert (ROOT / "docs" / "pictures" / name).read_text("utf-8") == drawing


def test_each_study_of_the_gallery_has_a_small_thumbnail():
    for page in (ROOT / "docs" / "gallery").glob("*.md"):
        drawing = (ROOT / "docs" / "pictures" / f"study-{page.stem}.svg").read_bytes()
        assert drawing.startswith(b"<svg")
        assert len(drawing) <= 15_000


def test_a_thumbnail_has_the_heights_of_the_figure_that_was_shown():
    """Values 0, 1 and 2 lie at the foot, half way up and at the top: 88, 48 and 8 from above."""
    line = go.Figure(go.Scatter(x=[1, 2, 3], y=np.array([0.0, 2.0, 1.0])))
    drawn = thumbnails.draw_study("a", [blocks.Output("", blocks.write_html(line))])
    assert 'd="M8 88.0 L120 8.0 L232 48.0"' in drawn

    bars = go.Figure(go.Bar(x=["a", "b"], y=[1.0, -1.0]))
    drawn = thumbnails.draw_study("a", [blocks.Output("", blocks.write_html(bars))])
    assert 'x="19.2" y="8.0" width="89.6" height="40.0"' in drawn
    assert 'x="131.2" y="48.0" width="89.6" height="40.0"' in drawn

    assert ">a &lt; b</text>" in thumbnails.draw_study("a", [blocks.Output("a < b\n", "")])


def test_a_dead_link_and_a_dead_anchor_are_found(tmp_path):
    (tmp_path / "a.html").write_text('<a id="x" href="b.html#y">b</a><a href="c.html">c</a>')
    (tmp_path / "b.html").write_text('<a href="a.html#x">a</a><a href="https://a.b/c#d">d</a>')
    gone = f"{links.REPOSITORY}gone.py"
    (tmp_path / "d.html").write_text(
        f'<a href="{links.REPOSITORY}README.md#use">r</a><a href="{gone}">g'
    )

    found = ["a.html: b.html#y", "a.html: c.html", f"d.html: {gone}"]
    assert links.find_dead(tmp_path) == found
    assert "docs.ext.links build/docs" in (ROOT / "Makefile").read_text("utf-8")


@pytest.mark.slow
def test_pages_of_the_reference_are_made_and_lead_to_each_other():
    made = pages.list_reference()
    assert {"api", "commands", "keys", "policies", "venues"} <= made.keys()
    for name, text in made.items():
        for link in re.findall(r"\]\(([\w./-]+)\.md\)", text):
            target = os.path.normpath(Path(name).parent / link)
            assert target in made, f"{name}: {link}"


def list_anchors(page):
    """Return the anchors of the headings of a page, as forges and the site make them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    heads = [re.sub(r"[`*]", "", head) for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_of_a_page_read_in_a_clone_leads_somewhere(page):
    """To a file or folder of the repository, and to a heading of it; no page includes another."""
    text = page.read_text("utf-8")
    assert "{include}" not in text
    plain = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", plain):
        if re.match(r"https?:|mailto:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in list_anchors(target), link


def test_the_readme_leads_to_pages_of_the_site_and_else_to_the_repository():
    text = (
        "[a](docs/risk.md#paths) ![b](docs/pictures/run.png) [c](LICENSE) [d](https://e.f) [g](#h)"
    )
    assert pages.write_readme(text) == (
        "[a](../risk.md#paths) ![b](../pictures/run.png) "
        f"[c]({links.REPOSITORY}LICENSE) [d](https://e.f) [g](#h)"
    )


@pytest.mark.slow
def test_a_folder_of_the_users_called_strategies_changes_nothing(tmp_path):
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "__init__.py").write_text("raise ImportError('not ours')\n")
    assert "vol-target" in start("-m", "backtest", "policies", "--json", folder=tmp_path).stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PORTS))
def test_a_ported_example_has_the_numbers_of_the_other_tool(name, folder):
    """And the page shows both, with the version."""
    section = ports.read_sections()[name]
    known = PORTS[name]
    (block,) = blocks.find_blocks(section)

    printed = blocks.run_python(block, folder, "moving").text
    ours = ast.literal_eval(printed.splitlines()[-1])
    assert ours == pytest.approx(known["numbers"], rel=1e-9)

    assert f" {known['version']} | here |" in section
    for key, theirs in known["numbers"].items():
        words = [f"{v:,}" if isinstance(v, int) else f"{v:,.6f}" for v in (theirs, ours[key])]
        assert f"| {key} | {' | '.join(words)} |" in section


@pytest.mark.parametrize("name", sorted(SCRIPTS - HELPERS))
def test_a_benchmark_loads(name, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), f"{BENCHMARKS}/replications", *sys.path])
    assert callable(runpy.run_path(str(BENCHMARKS / name), run_name="loaded")["main"])
