"""Results of every kind are saved, loaded, listed and verified, and say the same everywhere."""

import copy
import functools
import json
import os
import pickle
import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from html import unescape
from typing import Any

import pandas as pd
import pytest

import backtest as bt
from backtest.core import ShownTable, capitalize, to_plain
from backtest.core.saved_result import SEAL, SavedResult, hash_manifest
from backtest.report.render import MAX_SHOWN, write_html, write_text
from backtest.report.write import (
    build_page,
    hide,
    list_hidden,
    write_blocks,
    write_saved_page,
)
from backtest.results import read_entry
from backtest.results.listing import KINDS
from backtest.strategies import Capped, Constant
from tests.accounts import desk
from tests.crowd.test_cascades import make_cascade
from tests.judgement.courts import Blind, make_market, make_test
from tests.kit import (
    ask_test,
    call,
    check_refused,
    compare_policies,
    free_venue,
    read_files,
    risk_of,
    run_python,
    slow,
)
from tests.risk.accounts import Hold, free_account
from tests.risk.accounts import free_venue as riskless_venue
from tests.store.conftest import SEARCH, SPANS
from tests.sweep.sweeps import Modes
from tests.validation import worlds

MARKET = bt.Market.sample(bars=120)
TERMS = {"venue": riskless_venue(), "account": free_account()}
PLAIN = {"venue": free_venue(), "account": bt.Account()}
SPACES = re.compile(r"[\s\u00a0]+")
TAGS = re.compile(r"</?span[^>]*>")
"""What marks a date or a measure in a text of a page, without a change of the text."""


def make_book() -> SavedResult:
    """Two accounts, the first liquidated, and a transfer on its way to it."""
    tests = {
        "a": desk.make_test(*desk.move(100, 100, 95, 91, 85)),
        "b": desk.make_test(*[100.0] * 5),
    }
    rule = desk.Script({"3": 7.0}, "b", "a")
    return desk.run(tests, {"a": desk.hold(5.0), "b": desk.hold(0.0)}, transfer=rule)


def make_risk(lever: float) -> SavedResult:
    drawn = bt.simulate_paths(MARKET, bt.paths.GBM(volatility=2.0), paths=20, horizon="6h")
    return risk_of(drawn, Hold(lever), **TERMS)


def make_run() -> SavedResult:
    return bt.run(MARKET, Constant(leverage=5.0), **PLAIN)


FALL = bt.Scenario("fall", price=-0.3, over="2h")
LADDER = {"price": (-0.3, 0.3, 3), "depth": (0.5, 1.0)}
BOOK = ("account", "market", "side", "quantity", "entry")
DEEP = PLAIN | {"venue": free_venue().override({"slippage.impact": 1.0})}
SETS = {
    "mode": ["plain", "scaled"], "is_on": [True, False], "account.stop_loss": [None, 0.1],
    "venue.liquidation.step": [0.5, "bracket"],
}  # fmt: skip
GROUPS = {"groups": 2, "test_groups": 1, "embargo": 0}
MAKES: dict[str, Callable[[], Any]] = {
    "risk": lambda: make_risk(40.0),
    "a risk without a typical path": lambda: make_risk(0.0),
    "largest leverage": lambda: bt.Backtest(MARKET, **TERMS).max_leverage(
        probability=0.6, horizon="3h", models=["gbm"], paths=34
    ),
    "leverage-frontier": lambda: bt.Backtest(MARKET, **TERMS).leverage_frontier(
        drift=0.2, horizon="3h", model="gbm", paths=8
    ),
    "bands": lambda: make_run().bands(3, goal=0.5, compile=False),
    "stress": lambda: bt.stress(make_run(), [FALL], ladder=LADDER),
    "bounds": lambda: bt.bounds(make_run()),
    "sensitivity": lambda: bt.Backtest(MARKET, **PLAIN).sensitivity(
        Constant(leverage=2.0), factors=["funding"]
    ),
    "parameter-sensitivity": lambda: bt.Backtest(MARKET, **PLAIN).sensitivity(
        Constant(leverage=2.0), parameters=True
    ),
    "capacity": lambda: bt.Backtest(MARKET, **DEEP).capacity(
        Constant(leverage=2.0), capitals=[1e3, 1e8]
    ),
    "timing test": lambda: bt.TimingTest(
        pd.DataFrame({"log_growth": [0.3, 0.1, -0.2]}, index=pd.Index([0, 1, 2], name="shift")),
        1 / 3,
        0.1,
        0.2,
        3,
        settings={"policy": "Constant()"},
        market=MARKET,
    ),
    "passing probability": lambda: bt.Backtest(MARKET, **TERMS).passing_probability(
        Hold(2.0),
        days=1,
        paths=bt.simulate_paths(MARKET, bt.paths.GBM(volatility=2.0), paths=8, horizon="1d"),
    ),
    "cascade": make_cascade,
    "contagion": lambda: bt.cascade(
        bt.BookCrowd.from_positions(
            pd.DataFrame([("a", "X", "long", 1.0, 100.0)], columns=[*BOOK]),
            {"a": 10.0},
            {"X": 100.0, "Y": 50.0},
        ),
        PLAIN["venue"],
        shock={"X": -0.2},
        impact=bt.Linear(0.1),
        volume=1e3,
    ),
    "margin comparison": lambda: bt.Backtest(MARKET, **PLAIN).compare_margin(
        {"table": None, "ewma": bt.margin_rules.Volatility(days=1.0, lambda_=0.5)},
        paths=3,
        horizon="3d",
        accounts=20,
    ),
    "margin calibration": lambda: bt.Backtest(MARKET, **PLAIN).calibrate_margin(
        bt.margin_rules.Volatility(days=1.0), shortfall=0.5, horizon="3d"
    ),
    "run": make_run,
    "sweep": lambda: bt.Backtest(MARKET, **PLAIN).sweep(Modes, SETS),
    "study": lambda: bt.Backtest(MARKET, sampling="1h", **PLAIN).tune(
        Constant, space={"leverage": (0.5, 4.0)}, trials=8, sampler="sobol", robust=False
    ),
    "frontier": lambda: bt.Backtest(MARKET, sampling="1h", **PLAIN).frontier(
        Constant, space={"leverage": (0.5, 4.0)}, trials=8, sampler="sobol"
    ),
    "comparison": lambda: compare_policies(
        MARKET, {"calm": Constant(leverage=1.0), "bold": Constant(leverage=5.0)}, **PLAIN
    ),
    "walk": lambda: ask_test(
        "walk_forward", worlds.make_market(90), worlds.Lever, **SEARCH, **SPANS
    ),
    "book": make_book,
    "judgement": lambda: make_test(make_market(0.3, seed=1)).judge(Blind()),
    "cross-validation": lambda: ask_test(
        "cross_validate", worlds.make_market(110), worlds.Lever, **SEARCH, **GROUPS
    ),
}
NAMES = [*MAKES]
SOME = [*NAMES[:6], *slow(NAMES[6:])]
"""The first kinds stand for the others, where all of them take the same door."""
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@cache
def made(name: str) -> Any:
    return MAKES[name]()


@pytest.mark.parametrize("name", MAKES)
def test_saved_and_loaded_it_is_the_same(name, tmp_path):
    one = made(name)
    folder = one.save(tmp_path)

    entry = read_entry(folder)
    assert entry.name == folder.name
    assert entry.kind == one.kind
    assert entry.trouble == ""
    assert folder.name.endswith(one.manifest["id"])

    loaded = type(one).load(folder)
    assert loaded.manifest == one.manifest
    assert loaded.summary() == one.summary()
    assert repr(loaded) == repr(one)
    assert loaded.verdict == one.verdict

    for part in getattr(one, "table_names", ()):
        table = getattr(one, part)
        again = getattr(loaded, part)
        if isinstance(table, pd.DataFrame):
            pd.testing.assert_frame_equal(
                again, table, check_freq=False, check_dtype=False, check_index_type=False,
                check_column_type=False,
            )  # fmt: skip
        else:
            assert type(again) is type(table)

    assert read_files(loaded.save(tmp_path / "again")) == read_files(folder)

    for path in folder.rglob("*.parquet"):
        path.write_bytes(b"")
    check_refused(lambda: type(one).load(folder), "was changed or truncated", bt.DataError)


@pytest.mark.parametrize("name", [name for name in MAKES if name != "timing test"])
def test_it_knows_the_seconds_that_it_took(name, tmp_path):
    """Before: only runs, searches and comparisons did; `results show` said None of a stress."""
    assert read_entry(made(name).save(tmp_path)).seconds > 0.0


def make_replay() -> Any:
    return bt.Backtest(MARKET, **PLAIN).replay(make_run().fills)


def make_combined_sweep() -> Any:
    combined = Capped.over(Constant)
    return bt.Backtest(MARKET, **PLAIN).sweep(
        combined, {"constant_leverage": [0.5, 1.0]}, compile=False
    )


WAYS = (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)))
OTHERS: dict[str, Callable[[], Any]] = {
    "surface": lambda: bt.Surface.fit(bt.Chain.sample()),
    "replay": make_replay,
    "a sweep of a combined class": make_combined_sweep,
}


@pytest.mark.parametrize("way", WAYS, ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("name", [*SOME, *OTHERS])
def test_a_result_that_is_copied_or_sent_to_a_process_says_the_same(name, way):
    one = made(name) if name in MAKES else OTHERS[name]()
    copied = way(one)

    assert type(copied) is type(one)
    assert copied.summary() == one.summary()
    assert json.dumps(to_plain(copied.to_dict())) == json.dumps(to_plain(one.to_dict()))
    assert getattr(copied, "manifest", None) == getattr(one, "manifest", None)


@pytest.mark.parametrize("way", WAYS, ids=["deepcopy", "pickle"])
def test_copies_run_again_and_their_trades_know_the_run(way):
    sweep = way(made("sweep"))
    assert sweep.replay(1).metrics == pytest.approx(made("sweep").replay(1).metrics, nan_ok=True)

    trades = made("run").trades
    copied = way(trades)
    assert copied.equals(trades)
    assert copied.measures.equals(trades.measures)
    assert copied.lots("fifo").equals(trades.lots("fifo"))

    with pytest.raises(TypeError, match="can only be read"):
        way(made("run").metrics)["sharpe"] = 9.0
    with pytest.raises(KeyError, match="did you mean 'sharpe'"):
        way(made("run").metrics)["sharp"]


ODD = (
    None, -1, 0, 1, True, 1e300, -1e300, 10**30, "", "x", "x" * 3000, [], [1], [None], {},
    {"x": None}, "2024-13-45", "1970-01-01", "9999-12-31", "nan", ["a", "b"],
)  # fmt: skip


def list_places(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if not isinstance(tree, dict | list):
        return
    for key in tree if isinstance(tree, dict) else range(min(len(tree), 5)):
        yield (*above, key)
        yield from list_places(tree[key], (*above, key))


def forge(manifest: Any, draws: random.Random) -> Any:
    """Return a manifest with one to three odd values, and the hash that fits it."""
    forged = copy.deepcopy(manifest)
    for _ in range(draws.choice([1, 1, 2, 3])):
        *above, last = draws.choice([*list_places(forged)])
        part = functools.reduce(lambda tree, key: tree[key], above, forged)
        part[last] = copy.deepcopy(draws.choice(ODD))
    return {**forged, SEAL: hash_manifest(forged)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n_draws", [2, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", SOME)
def test_the_page_of_a_forged_manifest_is_a_page_or_one_sentence(name, n_draws, tmp_path):
    folder = made(name).save(tmp_path)
    path = folder / "manifest.json"
    draws = random.Random(name)
    manifest = json.loads(path.read_text())

    for _ in range(n_draws):
        forged = forge(manifest, draws)
        path.write_text(json.dumps(forged))
        said = ""
        try:
            write_saved_page(folder, tmp_path / "page.html", "html")
        except bt.BacktestError as error:
            said = str(error)
        assert "\n" not in said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SOME)
def test_the_command_refuses_a_forged_manifest_in_one_sentence(name, tmp_path, capsys):
    """Of the first draw that makes no page."""
    folder = made(name).save(tmp_path)
    path = folder / "manifest.json"
    draws = random.Random(name)
    manifest = json.loads(path.read_text())
    page = tmp_path / "page.html"

    def is_refused() -> bool:
        path.write_text(json.dumps(forge(manifest, draws)))
        try:
            write_saved_page(folder, page, "html")
        except bt.BacktestError:
            return True
        return False

    assert any(is_refused() for _ in range(100))
    code, out, told = call(capsys, "report", folder, "--out", page)
    assert code == 2, told
    assert out == "", told
    assert told.startswith("error: ")
    assert len(told.splitlines()) == 1, told


@pytest.mark.parametrize("kind", [*MAKES, "surface"])
def test_a_number_is_the_same_text_on_the_page_in_the_terminal_and_in_json(kind):
    """Of every kind, as all are renderings of one declaration."""
    found = bt.Surface.fit(bt.Chain.sample()) if kind == "surface" else made(kind)

    page = build_page(found)
    shown = json.loads(write_text(page, "json"))
    texts = {
        "terminal": found.summary(),
        "page": unescape(TAGS.sub("", write_html(page))),
        "markdown": write_text(page, "md").replace("\\", ""),
        "notebook": unescape(found._repr_html_()),
    }
    plain = {name: SPACES.sub(" ", text) for name, text in texts.items()}

    hidden = list_hidden(found)  # growth per year of a few days stays in JSON and in Python
    numbers = [number for number in found.list_numbers() if number.name not in hidden]
    headlines = []
    for number in numbers:
        label = capitalize(number.title)
        headlines.append({"label": label, "value": str(number), "note": number.note})
    assert shown["headlines"] == headlines

    for name, text in plain.items():
        missing = [x.title for x in numbers if SPACES.sub(" ", str(x)) not in text]
        assert not missing, name

    values = shown.get("numbers") or {}
    for number in numbers:
        value = values.get(number.name)
        if isinstance(value, float):
            assert str(number._replace(value=value)) == str(number)

    for part in found.list_parts():
        if part.shows != "both":
            continue

        blocks = []
        for block in part.list_blocks():
            has_table = isinstance(block, ShownTable) and block.table is not None
            blocks.append(hide(block, hidden) if has_table else block)

        for block in write_blocks(blocks, part.key):
            cells = [cell for row in getattr(block, "rows", ())[:MAX_SHOWN] for cell in row]
            for cell in cells:
                text = SPACES.sub(" ", cell if isinstance(cell, str) else cell.text).strip()
                assert text in plain["page"], part.key
                assert text in plain["markdown"], part.key


def pick_one_of_each_module() -> list[str]:
    """Return the first kind of each module: what a process imports for a page is by module."""
    first: dict[str, str] = {}
    for name in MAKES:
        first.setdefault(type(made(name)).__module__, name)
    return [*first.values()]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="each page needs a process of its own")
def test_a_page_of_every_kind_opens_in_a_process_that_has_imported_no_kind(tmp_path):
    kinds = pick_one_of_each_module()
    names = [made(kind).save(tmp_path).name for kind in kinds]
    run_python(
        """
import os, sys
# What every page needs, which each child would load anew.
import jinja2, pandas, pyarrow.parquet, pydantic, typer
from backtest.report.chart_library import read_library
read_library()
assert "backtest.results" not in sys.modules
from backtest.cli import main
for name in {names}:
    child = os.fork()
    if child == 0:
        assert "backtest.search" not in sys.modules and "backtest.risk" not in sys.modules
        main(["report", name, "--results", {store!r}, "--out", {store!r} + "/" + name + ".html"])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
""".format(names=names, store=str(tmp_path))
    )

    for name, kind in zip(names, kinds, strict=True):
        text = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        plain = SPACES.sub(" ", unescape(text))
        hidden = list_hidden(made(kind))
        for number in made(kind).list_numbers():
            if number.name not in hidden:
                assert SPACES.sub(" ", str(number)) in plain, (kind, number.name)


def test_every_kind_is_tested():
    assert {made(name).kind for name in MAKES} == {*KINDS}


def test_the_package_names_the_module_of_every_kind():
    for name in MAKES:
        kind = made(name).kind
        cls = type(made(name))
        assert KINDS[kind] == f"{cls.__module__}:{cls.__name__}"
