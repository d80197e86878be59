"""Imports go one way: from what is built to what it is built of."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import backtest as bt
from backtest import features

ROOT = Path(__file__).parent.parent

LAYERS = (
    (
        "errors",
        "early_interrupt",
        "checkout",
        "cache",
        "code",
        "compile_time",
        "compiled_twins",
        "contract_value",
        "effort",
        "interrupts",
        "plain",
        "spread",
    ),
    ("compile_cache",),
    ("units", "params", "preset_checks", "presets", "small_files"),
    ("folders",),
    ("fields", "mistakes", "provenance"),
    ("values",),
    ("brackets", "interest"),
    ("dated",),
    ("sources",),
    ("requirement", "market", "venue", "funding", "margin"),
    ("fetch", "importing", "quality", "source_text", "tiers"),
    ("account", "account_records", "position", "books", "policy", "view"),
    ("payments", "orders", "fills", "liquidation"),
    ("parts", "ledger", "ruin"),
    ("combine",),
    ("sets", "formula_reads"),
    ("set_checks", "accounting", "bar", "groups", "ends"),
    ("dimension", "measures"),
    ("space", "ranking"),
    ("simulate", "same_bits"),
    ("recipe", "outlines"),
    ("first_answer",),
    ("rule_pickles",),
    ("tables", "features", "forecast", "blame", "compiler", "manifest", "lane_rows"),
    ("lane_looks", "lane_live", "lane_trades", "lane_measures", "cuts", "futures", "rounding"),
    ("causality",),
    ("checked_signals",),
    ("lanes",),
    ("feed", "lane_compiler", "beside", "calculator", "margin_rules", "background_work"),
    ("background",),
    ("target_cuts", "target_cuts_text", "no_fill", "cautions"),
    ("machine", "result", "join"),
    ("store", "summary_text", "engine"),
    ("compare",),
    ("regress",),
    ("columns",),
    ("block_task",),
    ("block_state",),
    ("blocks",),
    ("lane_runner",),
    ("contract", "evaluate", "heatmap"),
    ("tabulate", "cluster", "signal_checks", "signals"),
    ("sweep",),
    ("sweep_store",),
    ("tune",),
    ("report",),
    ("", "strategies"),
    ("shelf",),
    ("serve",),
    ("cli",),
    ("__main__", "pytest_plugin"),
)
"""The modules of backtest from the ground up; "" is what ``import backtest`` gives."""

UPWARD = {
    ("compare", "report"): "is reported when asked to",
    ("result", "store"): "saves when asked to",
    ("result", "summary_text"): "prints when asked to",
    ("sweep", "sweep_store"): "saves when asked to",
    ("result", "report"): "is reported when asked to",
    ("report", "shelf"): "asks by which command a result was made",
    ("sweep", "report"): "is reported when asked to",
    ("tune", "report"): "is reported when asked to",
}
"""Imports inside functions that go up, each with its reason."""


def find_modules() -> dict[str, Path]:
    """Return the files of both packages by module name."""
    files = [path for name in ("backtest", "strategies") for path in (ROOT / name).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


MODULES = {name.removesuffix(".__init__"): path for name, path in find_modules().items()}


def read_imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each import of our own: the module, and ``top``, ``lazy`` or ``typing``."""
    yield from visit(ast.parse(path.read_text(encoding="utf-8")), "top")


def visit(node: ast.AST, when: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, when) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            names = [f"{child.module}.{alias.name}" for alias in child.names]
            yield from ((n if n in MODULES else str(child.module), when) for n in names)
        elif isinstance(child, ast.FunctionDef):
            yield from visit(child, "lazy")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from visit(child, "typing")
        else:
            yield from visit(child, when)


def is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("backtest", "strategies")


def part(module: str) -> str:
    """Return the entry of LAYERS that a module belongs to."""
    first, _, rest = module.partition(".")
    return "strategies" if first == "strategies" else rest.split(".")[0]


LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_lies_below_it(module):
    mine = part(module)
    assert mine in LEVEL, f"say in LAYERS where {module} stands"
    for imported, when in read_imports(MODULES[module]):
        theirs = part(imported)
        if not is_ours(imported) or when == "typing" or theirs == mine:
            continue
        if when == "lazy" and (mine, theirs) in UPWARD:
            continue
        assert LEVEL[theirs] <= LEVEL[mine], f"{module} imports {imported}, which is above it"


def test_modules_of_one_layer_do_not_need_each_other_in_a_circle():
    edges = {
        (module, imported)
        for module, path in MODULES.items()
        for imported, when in read_imports(path)
        if when == "top" and is_ours(imported) and imported != module
    }
    left = set(MODULES)
    while True:
        free = {m for m in left if not any(a == m and b in left for a, b in edges)}
        if not free:
            break
        left -= free
    assert not left, f"in a circle: {sorted(left)}"


def test_every_upward_import_is_still_there():
    found = {
        (part(module), part(imported))
        for module, path in MODULES.items()
        for imported, when in read_imports(path)
        if when == "lazy" and is_ours(imported)
    }
    assert set(UPWARD) <= found


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("strategies.")])
def test_a_strategy_imports_only_public_names(module):
    public = {"backtest": set(bt.__all__), "backtest.features": set(features.__all__)}
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(alias.name in public or not is_ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and is_ours(str(node.module)):
            assert {alias.name for alias in node.names} <= public[str(node.module)]


def test_import_backtest_loads_nothing_slow():
    slow = ("numba", "llvmlite", "scipy", "vectorbt", "plotly", "typer", "rich", "pydantic", "dask")
    slow += ("arch", "statsmodels", "httpx", "ccxt")
    code = "import sys, backtest, backtest.features, strategies; "
    code += f"print([name for name in {slow!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.strip() == "[]"
