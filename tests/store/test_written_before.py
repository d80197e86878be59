"""A store that the code of November 2026 wrote: later code reads all of it, to the same numbers.

``tests/data/store_2026_11`` also has the script that wrote it. Its files are never written again.
"""

import json
import shutil

import numpy as np
import pytest

from backtest.engine.result_files import describe_metrics
from backtest.regress import compare_baselines, find_baselines, load_baseline, take_baseline
from backtest.regress.baseline import describe_host, list_host_changes
from backtest.report.page.formats import write_text
from backtest.report.page.page import Table
from backtest.report.write import build_page
from backtest.store import list_results, load_saved, verify_folder
from backtest.store.verify import verify_records
from tests.data.store_2026_11 import written_2026_11 as written

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CONTENTS = json.loads(written.CONTENTS.read_text(encoding="utf-8"))
IS_SAME_HOST = not list_host_changes(
    load_baseline(written.BASELINES / "run.json").host, describe_host()
)
"""Whether this platform computes the same bytes as that which wrote the store."""
SLOW_BASELINES = ("walk", "walk-of-two")
ROUNDED = ("ulcer_index", "alpha", "alpha_error", "beta", "beta_error", "effective_bets")
"""Measures whose last digit a sum by BLAS decides, which differs by processor."""
RESUMMED = ("collateral_pnl", "conversion", "price_pnl", "slippage")
"""Measures whose sums over collateral were taken in another order when the store was written."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Return a copy of the store, which a list writes an index into."""
    return shutil.copytree(written.STORE, tmp_path_factory.mktemp("before") / "store")


def assert_same(found, stored):
    """Compare measures by name: bit for bit on the platform that wrote them."""
    assert found.keys() == stored.keys()
    for name, value in stored.items():
        is_moved = name in (*ROUNDED, *RESUMMED)
        is_number = isinstance(value, float) and (not IS_SAME_HOST or is_moved)
        assert found[name] == (pytest.approx(value, rel=1e-12) if is_number else value), name


def test_the_store_is_small():
    sizes = [each.stat().st_size for each in written.HERE.rglob("*") if each.is_file()]
    assert sum(sizes) < 2_000_000


def test_a_list_shows_every_result_with_its_measures(store):
    listed = {each.name: each for each in list_results(store)}
    assert {*listed} == {each["folder"] for each in CONTENTS.values()}
    for each in CONTENTS.values():
        entry = listed[each["folder"]]
        assert not entry.trouble
        finite = {name: x for name, x in entry.metrics.items() if np.isfinite(x)}
        assert_same(finite, each["measures"])


def test_every_file_is_verified(store):
    for each in CONTENTS.values():
        assert not verify_folder(store / each["folder"]).faults
    assert not any(each.faults for each in verify_records(store))


@pytest.mark.parametrize("label", CONTENTS)
def test_a_result_is_loaded_with_its_measures_and_rendered(label, store):
    folder = store / CONTENTS[label]["folder"]
    loaded = load_saved(folder)
    accounts = [(loaded, folder)] if (folder / "metrics.json").is_file() else []
    if (folder / "accounts").is_dir():
        accounts = [(load_saved(each), each) for each in (folder / "accounts").iterdir()]
    for account, place in accounts:
        stored = json.loads((place / "metrics.json").read_text(encoding="utf-8"))
        assert_same(describe_metrics(account.metrics), stored)
    assert repr(loaded)
    page = build_page(loaded)
    for ending in ("html", "md", "json"):
        text = write_text(page, ending)
        assert folder.name.rpartition("-")[2] in text
    assert json.loads(text)
    assert page.summary
    assert {"data", "assumptions"} <= {each.key for each in page.sections}
    tables = [each for part in page.sections for each in part.blocks if isinstance(each, Table)]
    assert not [head for each in tables for head in each.columns if "_" in head.title]


@pytest.mark.parametrize("label", written.RESUMED)
def test_a_run_goes_on_from_a_stored_one(label, store):
    earlier = load_saved(store / CONTENTS[label]["folder"])
    resumed = written.RESUMED[label](earlier)
    folder = store / CONTENTS[label.replace("cut", "resumed")]["folder"]
    assert_same(
        describe_metrics(resumed.metrics),
        json.loads((folder / "metrics.json").read_text(encoding="utf-8")),
    )


def test_every_baseline_is_there():
    found = {each.stem for each in find_baselines([written.BASELINES])}
    assert found == {*written.make_baselines()}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW_BASELINES else name
        for name in written.make_baselines()
    ],
)
def test_a_stored_baseline_still_holds(name):
    was = load_baseline(written.BASELINES / f"{name}.json")
    verdict = compare_baselines(was, take_baseline(written.make_baselines()[name](), name))
    assert (verdict.status, verdict.moved) == ("same", ())
