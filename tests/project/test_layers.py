"""Imports go one way: from what is built to what it is built of."""

import ast
import inspect
import pickle
import re
import tomllib
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import cloudpickle
import pytest

import backtest as bt
from backtest import indicators
from tests.kit import run_python

ROOT = Path(__file__).parents[2]
PUBLIC_NAMES = ROOT / "backtest" / "__init__.py"
"""Names the modules of all public names, and those of higher rooms that lower ones call."""

ROOMS = (
    *("core", "_compile", "market", "venue", "margin", "account", "policies", "indicators"),
    *("options", "signals", "results", "engine", "accounts", "experiments", "live", "sweep"),
    *("search", "risk", "judgement", "baselines", "report", "cli"),
)
"""The folders of the package. Each imports only those before it."""


OUTSIDE = ("allocate", "measures", "paths", "backtest", "", "strategies", "__main__")
"""What is no room: public names, ``bt.Backtest``, the policies, and ``python -m backtest``."""

ORDER = (*(name for name in ROOMS if name != "cli"), *OUTSIDE[:-1], "cli", "__main__")
"""The command line stands on the public names; all others stand below them."""
WRITE = "backtest.report.write"
DOORS = {
    ("backtest", "backtest.strategies"): "policies stand on the public names, and are one of them",
    ("backtest.experiments.policy_names", "backtest.strategies"): "policies by name, as in files",
    ("backtest.core.saved_result", WRITE): "result.report(), summary(), plot(), cells",
    ("backtest.market.markets", "backtest.options.option_listing"): "bt.Markets lists options",
    ("backtest.options.fitted_surface", "backtest.report.surface_parts"): "the page of a surface",
    ("backtest.results.result", "backtest.report.run_parts"): "the page of a run",
    ("backtest.results.result", "backtest.report.run_sentences"): "the sentences of a run",
    ("backtest.results.result", "backtest.report.run_figures"): "the figures of a run",
    ("backtest.results.result", "backtest.report.overview"): "result.plot()",
    ("backtest.results.result", "backtest.risk.bands"): "result.bands()",
    (
        "backtest.results.result",
        "backtest.search.equal_risk",
    ): "the line of equal risk on a page",
    ("backtest.search.study", "backtest.report.study_parts"): "the page of a study",
    ("backtest.sweep.sweep_table", "backtest.report.sweep_parts"): "the page of a sweep",
}
"""Imports of higher rooms, in the body of a method that a user calls, each with its reason."""
NAMESPACES = (
    *(bt, bt.allocate, bt.funding, bt.indicators, bt.margin, bt.margin_rules, bt.math, bt.measures),
    *(bt.options, bt.paths, bt.signals, bt.strategies),
)
PUBLIC = (bt, bt.indicators, bt.paths, bt.options, bt.allocate, bt.measures, bt.strategies, bt.math)


def find_modules() -> dict[str, Path]:
    files = [*(ROOT / "backtest").rglob("*.py"), *(ROOT / "backtest" / "strategies").glob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


MODULES = {name.removesuffix(".__init__"): path for name, path in find_modules().items()}


@cache
def read_imports(path: Path) -> list[str]:
    """Return the modules that a file imports, and those whose names are texts in it."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if name in MODULES else str(node.module) for name in names]
        elif isinstance(node, ast.Constant) and path != PUBLIC_NAMES:
            found += [node.value] if node.value in MODULES and node.value != "backtest" else []
    return found


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "backtest"


def find_room(module: str) -> str:
    return [*module.split("."), ""][1]


def test_the_package_is_its_rooms():
    folders = {path.parent.name for path in (ROOT / "backtest").glob("*/__init__.py")}
    assert folders - {"strategies"} == {*ROOMS}
    assert {find_room(module) for module in MODULES} == {*ROOMS, *OUTSIDE}


def list_imports() -> Iterator[tuple[str, str]]:
    for module, path in MODULES.items():
        yield from ((module, imported) for imported in read_imports(path) if is_ours(imported))


def test_a_wing_imports_only_rooms_before_it():
    order = {name: level for level, name in enumerate(ORDER)}
    upward = {
        (module, imported)
        for module, imported in list_imports()
        if order[find_room(imported)] > order[find_room(module)]
    }
    assert upward == {*DOORS}


def test_modules_do_not_import_each_other_in_a_circle():
    """The package itself is left out: it is a list of names, and strategies import the names."""
    needs: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, imported in list_imports():
        if imported != "backtest" and (module, imported) not in DOORS:
            needs[module] |= {imported} - {module}

    # Leave out what needs nothing that is left, until no more goes.
    while free := [module for module in needs if not needs[module] & needs.keys()]:
        for module in free:
            del needs[module]
    assert not needs, f"in a circle: {sorted(needs)}"


def test_one_room_alone_knows_numba_llvm_and_bytecode_and_it_knows_no_rule():
    private = {"numba", "llvmlite", "dis", "opcode"}
    using = set()
    for name, path in MODULES.items():
        if any(module.partition(".")[0] in private for module in read_imports(path)):
            using.add(find_room(name))
    assert using == {"_compile"}

    below = {find_room(to) for name, to in list_imports() if find_room(name) == "_compile"}
    assert below == {"core", "_compile"}


@pytest.mark.parametrize(
    "module", [name for name in MODULES if name.startswith("backtest.strategies.")]
)
def test_a_strategy_imports_only_public_names(module):
    public = {"backtest": set(bt.__all__), "backtest.indicators": set(indicators.__all__)}
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(alias.name in public or not is_ours(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and is_ours(str(node.module)):
            assert {alias.name for alias in node.names} <= public.get(str(node.module), set())


def test_each_dependency_has_a_row_that_names_its_use():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [re.split("[>=]", requirement)[0] for requirement in project["dependencies"]]

    section = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Dependencies\n")[2]
    table = section.partition("\n## ")[0]
    rows = re.findall(r"^\| ([a-z0-9-]+) \| .+ \| [\d.]+ \|$", table, re.M)
    assert sorted(rows) == needed


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_what_a_page_of_maintainers_names_is_there(page):
    text = (ROOT / page).read_text("utf-8")
    code = " ".join(path.read_text("utf-8") for path in MODULES.values())

    assert {*re.findall(r"`([a-z]*_\w+)`", text)} <= {"_built", *re.findall(r"\w+", code)}

    for name in re.findall(r"`((?:backtest|tests)/[\w/]+\.\w+)`", text):
        assert (ROOT / name).exists(), name


@pytest.mark.slow
def test_what_is_slow_waits_for_its_first_use_and_hides_no_function():
    slow = ["numba", "llvmlite", "scipy", "vectorbt", "plotly", "dask", "arch", "statsmodels"]
    slow += ["httpx", "ccxt", "skopt", "sklearn", "cmaes", "jinja2"]
    above = ("risk", "sweep", "search", "judgement", "baselines", "cli")
    early = [*slow, "pandas", "pyarrow", "typer", "rich", *(f"backtest.{room}" for room in above)]
    code = "import sys, backtest as bt, backtest.indicators, backtest.strategies; "
    code += f"print([name for name in {early} if name in sys.modules]); "
    code += "from backtest.cli import main; main(['policies']); main(['run', '--help']); "
    code += f"print([name for name in {slow} if name in sys.modules])"
    first, *_, last = run_python(code).splitlines()
    assert first == "[]"
    assert last == "[]"


@pytest.mark.slow
def test_a_run_loads_what_it_uses(tmp_path):
    unused = ["pandas", "pyarrow", "numba", "scipy", "plotly", "dask", "arch", "statsmodels"]
    unused += ["vectorbt", "skopt", "sklearn", "cmaes", "jinja2"]
    unused += ["backtest.strategies.kelly", "backtest.search.study", "backtest.risk.cascade"]
    run = "main(['run', '--policy', 'constant', '--no-save', '--to', '2023-01-09']); "

    run_python(f"from backtest.cli import main; {run}")  # what it compiles is kept
    code = f"import gc, sys; from backtest.cli import main; {run}"
    code += f"print([name for name in {unused} if name in sys.modules], gc.isenabled()); "
    code += f"main(['run', '--results', {str(tmp_path)!r}, '--to', '2023-01-09']); "
    code += "print('pandas' in sys.modules)"
    printed = run_python(code).splitlines()

    assert "[] True" in printed
    assert printed[-1] == "False"


def test_the_package_is_pickled_by_name():
    """A policy of a script that names the package is sent to other processes."""
    assert pickle.loads(cloudpickle.dumps(bt)) is bt


@pytest.mark.parametrize("module", NAMESPACES, ids=lambda module: module.__name__)
def test_a_module_exports_what_it_lists(module):
    assert all(hasattr(module, name) for name in module.__all__)
    assert {*module.__all__} <= {*dir(module)}

    with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'oops'"):
        _ = module.oops


@pytest.mark.parametrize("module", NAMESPACES, ids=lambda x: x.__name__)
def test_a_namespace_shows_what_is_its_own(module):
    assert sorted(dir(module)) == sorted(module.__all__)


def read_checked(path: Path) -> dict[str, str]:
    """Return the names that a file imports for type checkers, with their places."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ifs = [node for node in tree.body if isinstance(node, ast.If)]
    (block,) = (node for node in ifs if ast.unparse(node.test) == "TYPE_CHECKING")
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_public_names_are_imported_where_type_checkers_read_them():
    """Two lists in one file: the imports that checkers read, and the table of the first use."""
    used = {name: f"backtest.{module}.{name}" for name, module in vars(bt)["_PLACES"].items()}
    used |= {name: f"backtest.{module}" for name, module in vars(bt)["_MODULES"].items()}
    assert read_checked(PUBLIC_NAMES) == used
    assert sorted(used) == sorted(bt.__all__)


LAZY = [name for name, path in MODULES.items() if "find_lazily(__name__" in path.read_text("utf-8")]


@pytest.mark.parametrize("name", LAZY)
def test_the_names_of_a_room_are_imported_where_type_checkers_read_them(name):
    """No module of a room may have the name of a function: it would hide it once imported."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    (call,) = (node for node in calls if ast.unparse(node.func) == "find_lazily")

    used = {}
    for place, names in ast.literal_eval(call.args[1]).items():
        used |= {exported: f"backtest.{place}.{exported}" for exported in names.split()}
    assert read_checked(MODULES[name]) == used

    functions = [exported for exported, place in used.items() if place != f"{name}.{exported}"]
    assert not {f"{name}.{function}" for function in functions} & MODULES.keys()


def test_importing_the_package_loads_no_library():
    code = "import sys, backtest; print([x for x in sys.modules if x.startswith('backtest.')], "
    code += "[x for x in ('numpy', 'pandas', 'pydantic', 'typer') if x in sys.modules])"
    assert run_python(code) == "[] []"


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_what_users_import_has_a_docstring_and_so_have_its_methods(module):
    values = {name: getattr(module, name) for name in module.__all__}
    for name, value in [*values.items()]:
        if not inspect.isclass(value):
            continue
        for attribute, part in vars(value).items():
            if not attribute.startswith("_") and is_method(part):
                values[f"{name}.{attribute}"] = part

    assert [name for name, value in values.items() if not is_documented(value)] == []


def is_documented(value: object) -> bool:
    if inspect.isclass(value):
        return not (value.__doc__ or f"{value.__name__}(").startswith(f"{value.__name__}(")
    return bool(inspect.getdoc(value))


def is_method(value: object) -> bool:
    return inspect.isroutine(value) or isinstance(value, (property, cached_property))
