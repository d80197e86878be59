"""The store: listed from its folders, checked, compared, pruned, handed on; damage is named."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shlex
import shutil
import signal
import stat
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base import atomic_files
from backtest.base.atomic_files import LOCK
from backtest.base.command_again import describe_origin
from backtest.base.errors import DataError, ParameterError
from backtest.base.file_lock import hold_lock_file
from backtest.base.provenance import read_provenance, recording_command
from backtest.base.units import DAY
from backtest.store import (
    Filter,
    choose_deletions,
    compare_saved,
    delete_chosen,
    export_result,
    find_folder,
    list_results,
    read_bound,
    read_entry,
    read_time_or_age,
    sort_entries,
    verify_folder,
)
from backtest.store.entry import StoreEntry
from backtest.store.find import load_saved
from backtest.store.kinds import hash_manifest
from backtest.store.listing import INDEX, QUIET
from backtest.strategies import Constant, VolTarget
from backtest.tune import Study
from tests.fast_cases import every_nth
from tests.markets import free_venue
from tests.tuning import seek, stand_in

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
DAYS = 40


def live(policy, venue=VENUE, **settings):
    market = bt.Market.sample(bars=24 * DAYS)
    return bt.run(market, policy, venue=venue, account=bt.Account(**settings), compile=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a store with one result of each kind, made once."""
    store = tmp_path_factory.mktemp("made")
    short = bt.Market.sample(bars=24 * 5)
    terms = {"venue": VENUE, "account": bt.Account(), "compile": False}
    live(VolTarget()).save(store)
    live(Constant(leverage=1.0)).save(store)
    bt.sweep(short, VolTarget, {"target": [0.2, 0.4]}, **terms).save(store)
    market = bt.Market.sample(bars=24 * DAYS)
    bt.compare(market, [VolTarget(), Constant()], draws=99, **terms).save(store)
    with pytest.MonkeyPatch.context() as patch:
        stand_in(put=patch.setattr)
        seek(store=store, trials=40)
    return store


@pytest.fixture
def store(made, tmp_path):
    """Return a copy of the store that may be damaged; long untouched, so that it may be noted."""
    return Path(shutil.copytree(made, tmp_path / "results"))


def folder_of(store: Path, kind: str) -> Path:
    return next(store / each.name for each in list_results(store) if each.kind == kind)


def settle(monkeypatch) -> None:
    """Make the clock of lists run ahead, so that fresh folders count as long untouched."""
    ahead = time.time_ns() + 10 * QUIET
    monkeypatch.setattr("backtest.store.listing.time.time_ns", lambda: ahead)


def spoil(path: Path, change: str) -> None:
    """Damage a file in one of several ways."""
    content = path.read_bytes()
    match change:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "deleted":
            path.unlink()
        case "flipped":
            middle = len(content) // 2
            path.write_bytes(
                content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            )


# --------------------------------------------------------------------------------------------- list


@pytest.mark.slow
def test_a_list_has_every_result_of_all_four_kinds_and_the_record_of_looks_is_none(store):
    entries = list_results(store)
    assert sorted(each.kind for each in entries) == ["comparison", "run", "run", "study", "sweep"]
    assert not any(each.trouble for each in entries)
    assert (store / "holdout-looks").is_dir()
    for each in entries:
        assert each.name.endswith(each.id)
        assert each.metrics["sharpe"] == each.metrics["sharpe"]


@pytest.mark.slow
def test_measures_are_those_of_the_run_and_of_the_best_set_and_policy(store):
    run, sweep = folder_of(store, "run"), folder_of(store, "sweep")
    assert read_entry(run).metrics["sharpe"] == bt.Result.load(run).metrics["sharpe"]
    assert read_entry(sweep).metrics["sharpe"] == bt.Sweep.load(sweep).table["sharpe"].max()
    study = folder_of(store, "study")
    assert read_entry(study).metrics["sharpe"] == Study.load(study).best["sharpe"]
    found = bt.Comparison.load(folder_of(store, "comparison"))
    best = found.table.loc[found.order[0], "sharpe"]
    assert read_entry(folder_of(store, "comparison")).metrics["sharpe"] == best


def test_a_store_that_is_not_there_is_empty_and_nothing_is_made(tmp_path):
    assert list_results(tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_notes_change_nothing_whatever_happens_to_the_folders(store, monkeypatch):
    """Random damage and repair, with and without notes: 40 steps, each list is the same."""
    settle(monkeypatch)
    whole = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    rng = random.Random(0)
    for _ in range(40):
        path = rng.choice(sorted(whole))
        if rng.random() < 0.5 and path.exists():
            spoil(path, rng.choice(["cut", "emptied", "deleted", "flipped"]))
        else:
            path.write_bytes(whole[path])
        with_notes, without = list_results(store), list_results(store, use_index=False)
        assert repr(with_notes) == repr(without)
    assert (store / INDEX).is_file()


def test_notes_are_used_where_nothing_changed_and_not_where_they_were_edited(store, monkeypatch):
    settle(monkeypatch)
    first = list_results(store)
    monkeypatch.setattr("backtest.store.listing.read_entry", lambda *_, **__: 1 / 0)
    assert repr(list_results(store)) == repr(first)
    text = (store / INDEX).read_text()
    (store / INDEX).write_text(text.replace("VolTarget", "Handmade"))
    with pytest.raises(ZeroDivisionError, match="by zero"):
        list_results(store)


def test_a_folder_touched_just_now_is_not_noted(store):
    list_results(store)
    assert "voltarget" not in (store / INDEX).read_text() if (store / INDEX).exists() else True


def test_a_store_that_cannot_be_written_is_listed_all_the_same(store, monkeypatch):
    settle(monkeypatch)

    def refuse(*_, **__):
        raise PermissionError(13, "denied")

    monkeypatch.setattr("os.fsync", refuse)
    assert len(list_results(store)) == 5
    assert not (store / INDEX).exists()


# ----- damage is named -----


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison", "study"])
@pytest.mark.parametrize("change", every_nth(["cut", "emptied", "deleted", "flipped"], 4))
def test_every_damage_to_every_file_is_found_and_named_by_verify(store, kind, change):
    folder = folder_of(store, kind)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]
    for path in files[:6]:
        is_sealed = path.name in ("outcome.json", "provenance.json")
        if change == "flipped" and path.suffix == ".json" and not is_sealed:
            continue  # a flipped bit may be in a space: see the test of edited JSON
        content = path.read_bytes()
        spoil(path, change)
        check = verify_folder(folder)
        is_gone = path.name in ("manifest.json", "study.json") and change == "deleted"
        if is_sealed and change == "deleted":  # unfinished, or saved by an earlier version
            assert path.name in {name for name, _ in check.remarks}
        else:
            named = {Path(name).name for name, _ in check.faults}
            assert named, (path, change)
            assert path.name in named or is_gone
        path.write_bytes(content)
    assert not verify_folder(folder).faults


def test_a_fault_names_its_file_once_and_takes_one_line(store):
    """A damaged study said three lines of Thrift, an emptied manifest its name twice."""
    run, study = folder_of(store, "run"), folder_of(store, "study")
    (run / "manifest.json").write_text("")
    assert [name for name, _ in verify_folder(run).faults] == ["manifest.json"]
    assert verify_folder(run).faults[0][1].startswith("must be JSON")
    batch = next(iter(sorted((study / "trials").iterdir())))
    content = bytearray(batch.read_bytes())
    content[4:24] = b"\xff" * 20  # the head of the first page
    batch.write_bytes(content)
    (study / "outcome.json").unlink()
    ((_, what),) = verify_folder(study).faults
    assert "is not a readable Parquet file" in what
    assert "\n" not in what


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison"])
@pytest.mark.parametrize("change", ["cut", "emptied", "deleted"])
def test_a_list_names_what_is_missing_or_cut(store, kind, change):
    folder = folder_of(store, kind)
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        spoil(path, change)
        entry = read_entry(folder)
        if path.name == "provenance.json" and change == "deleted":
            assert entry.metrics
            assert entry.is_dirty is None
        else:
            assert path.name in entry.trouble
            assert not entry.metrics
        path.write_bytes(content)


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison"])
def test_a_manifest_edited_by_hand_is_not_believed(store, kind):
    folder = folder_of(store, kind)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["account"]["capital"] = 9.0
    path.write_text(json.dumps(manifest))
    assert "id" in read_entry(folder).trouble
    assert ("manifest.json", "was changed: its id does not match its content") in verify_folder(
        folder
    ).faults


def test_a_measure_edited_by_hand_is_not_listed(store):
    folder = folder_of(store, "run")
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"sharpe": 9.9}))
    assert read_entry(folder).trouble == "metrics.json was changed"


def test_a_study_edited_by_hand_is_neither_loaded_nor_listed(store):
    folder = folder_of(store, "study")
    outcome = folder / "outcome.json"
    text = outcome.read_text()
    outcome.write_text(text.replace('"best": ', '"best": 1'))
    with pytest.raises(DataError, match="of a finished study was changed"):
        Study.load(folder)
    assert "outcome.json" in read_entry(folder).trouble
    outcome.write_text(text)
    study = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(study | {"seed": 5}))
    assert dict(verify_folder(folder).faults)["study.json"]


def test_a_study_of_before_there_were_seals_is_read_and_verify_says_so(store):
    folder = folder_of(store, "study")
    outcome = json.loads((folder / "outcome.json").read_text())
    old = {name: outcome[name] for name in outcome if name not in ("seal", "files")}
    (folder / "outcome.json").write_text(json.dumps(old))
    assert read_entry(folder).is_finished
    check = verify_folder(folder)
    assert not check.faults
    assert "no seal" in check.remarks[0][1]


def test_a_file_that_does_not_belong_is_named(store):
    folder = folder_of(store, "run")
    (folder / "notes.txt").write_text("x")
    assert verify_folder(folder).faults == (("notes.txt", "is not part of the result"),)


def test_hostile_json_is_named_and_raises_nothing(store):
    folder = folder_of(store, "run")
    for text in ("[]", "null", '{"kind": ["x"]}', '{"format": 2}', "{", '{"kind": "../x"}'):
        (folder / "manifest.json").write_text(text)
        assert read_entry(folder).trouble
        assert verify_folder(folder).faults


# -------------------------------------------------------------------------------- filters and order


def entry(name="a", **facts) -> StoreEntry:
    return StoreEntry(name, **{"kind": "run", **facts})


def test_filters():
    one = entry(policy="VolTarget(target=0.4)", metrics={"sharpe": 1.5}, saved=5 * DAY)
    for wanted in (
        Filter(),
        Filter(kinds=("run",)),
        Filter(policy="vol-target"),
        Filter(text="TARGET=0.4"),
        Filter(bounds=(read_bound("sharpe>1"), read_bound("sharpe <= 1.5"))),
        Filter(since=5 * DAY, before=6 * DAY),
    ):
        assert wanted.matches(one), wanted
    for wanted in (
        Filter(kinds=("sweep",)),
        Filter(policy="cppi"),
        Filter(text="btc"),
        Filter(bounds=(read_bound("sharpe>1.5"),)),
        Filter(bounds=(read_bound("calmar>0"),)),
        Filter(since=6 * DAY),
        Filter(before=5 * DAY),
    ):
        assert not wanted.matches(one), wanted
    assert not Filter().matches(entry(trouble="cut"))


def test_order_is_from_the_best_and_what_has_no_measure_is_last():
    values = {"a": 1.0, "b": 3.0, "c": float("nan"), "d": 2.0}
    entries = [entry(k, metrics={"sharpe": v, "max_drawdown": v}) for k, v in values.items()]
    assert [e.name for e in sort_entries(entries, "sharpe")] == ["b", "d", "a", "c"]
    assert [e.name for e in sort_entries(entries, "max_drawdown")] == ["a", "d", "b", "c"]
    assert [e.name for e in sort_entries(entries, "sharpe", is_reversed=True)][-1] == "c"
    dated = [entry("x", saved=1), entry("y", saved=3), entry("z", saved=2)]
    assert [e.name for e in sort_entries(dated)] == ["y", "z", "x"]


def test_a_ruined_account_is_never_among_the_best():
    """Its Sharpe ratio is of the returns before: one that doubled and was lost stood on top."""
    entries = [
        entry(
            "lost", metrics={"sharpe": 9.0, "max_drawdown": 0.1, "mean_leverage": 1, "ruined": 1}
        ),
        entry("poor", metrics={"sharpe": -1.0, "max_drawdown": 0.9, "mean_leverage": 2}),
        entry(
            "good", metrics={"sharpe": 2.0, "max_drawdown": 0.2, "mean_leverage": 3, "ruined": 0}
        ),
    ]

    def names(by, **order):
        return [each.name for each in sort_entries(entries, by, **order)]

    assert names("sharpe") == ["good", "poor", "lost"]
    assert names("max_drawdown") == ["good", "poor", "lost"]
    assert names("sharpe", is_reversed=True) == ["lost", "poor", "good"]
    assert names("max_drawdown", is_reversed=True) == ["lost", "poor", "good"]
    assert names("mean_leverage") == ["good", "poor", "lost"]


@pytest.mark.parametrize("text", ["sharpe", "sharpe=>1", "sharpe>nan", "shrpe>1", "sharpe>x"])
def test_bounds_that_cannot_be_read_are_refused(text):
    with pytest.raises(ParameterError, match=r"sharpe|shrpe"):
        read_bound(text)


def test_moments():
    assert read_time_or_age("2d", 10 * DAY, where="test") == 8 * DAY
    assert read_time_or_age("1970-01-03", 0, where="test") == 2 * DAY
    with pytest.raises(ParameterError, match="soon"):
        read_time_or_age("soon", 0, where="test")


def test_a_result_is_found_by_name_id_and_beginning_and_a_damaged_one_too(store):
    folder = folder_of(store, "sweep")
    identity = folder.name.rpartition("-")[2]
    for name in (folder.name, identity, identity[:6], "sweep", str(folder)):
        assert find_folder(name, store) == folder
    (folder / "manifest.json").unlink()
    assert find_folder(identity[:6], store) == folder
    with pytest.raises(DataError, match="no saved result is called"):
        find_folder("nothing", store)
    with pytest.raises(DataError, match="made"):
        find_folder("../made", store)


# ------------------------------------------------------------------------------------------ compare


def test_saved_runs_compare_as_their_policies_do_to_the_bit(store):
    runs = [each.name for each in list_results(store) if each.kind == "run"]
    loaded = {name.partition("-")[0]: bt.Result.load(store / name) for name in runs}
    named = {"vol-target": loaded["voltarget"], "constant": loaded["constant"]}
    mine = compare_saved(named, draws=99)
    theirs = bt.Comparison.load(folder_of(store, "comparison"))
    assert mine.manifest["id"] == theirs.manifest["id"]
    for name in ("table", "pairs", "returns"):
        pd.testing.assert_frame_equal(
            getattr(mine, name), getattr(theirs, name), check_names=False, check_freq=False
        )


@pytest.mark.slow
def test_saved_runs_with_a_risk_free_rate_compare_as_their_policies_do():
    days = pd.to_datetime(["2022-12-31", "2023-01-20"], utc=True)
    venue = free_venue(interest_on="balance", cash_rate=pd.Series([0.05, 0.02], index=days))
    policies = {"calm": Constant(leverage=0.5), "bold": Constant(leverage=2.0)}
    market = bt.Market.sample(bars=24 * DAYS)
    terms = {"venue": venue, "account": bt.Account(), "compile": False, "sampling": "12h"}
    whole = bt.compare(market, policies, draws=99, **terms)
    runs = {name: bt.run(market, each, **terms) for name, each in policies.items()}
    mine = compare_saved(runs, draws=99)
    np.testing.assert_array_equal(mine.risk_free.to_numpy(), whole.risk_free.to_numpy())
    assert mine.manifest["id"] == whole.manifest["id"]
    pd.testing.assert_frame_equal(mine.pairs, whole.pairs)


def test_runs_that_cannot_be_compared_are_refused_naming_what_differs():
    runs = {"a": live(Constant(leverage=1.0)), "b": live(Constant(leverage=1.0), capital=500.0)}
    with pytest.raises(ParameterError, match=r"'b' differs from a in account\.capital"):
        compare_saved(runs)
    with pytest.raises(ParameterError, match="two runs or more"):
        compare_saved({"a": runs["a"]})


# -------------------------------------------------------------------------------------------- prune


def test_prune_keeps_the_newest_and_what_it_cannot_read(store):
    for k, each in enumerate(sorted(store.iterdir())):
        path = each / ("study.json" if (each / "study.json").exists() else "manifest.json")
        if path.exists():
            os.utime(path, ns=(k * DAY, k * DAY))
    run = folder_of(store, "run")
    (run / "bars.parquet").unlink()
    newest = sort_entries(each for each in list_results(store) if not each.trouble)[0]
    to_delete = choose_deletions(store, Filter(), keep=1).to_delete
    assert len(to_delete) == 3
    deleted, left = delete_chosen(store, to_delete)
    assert (len(deleted), left) == (3, [])
    assert {each.name for each in list_results(store)} == {newest.name, run.name}
    assert (store / "holdout-looks").is_dir()
    assert [
        e.entry.name for e in choose_deletions(store, Filter(before=0), with_damaged=True).to_delete
    ] == [run.name]


def test_prune_leaves_what_changed_after_it_was_chosen(store):
    to_delete = choose_deletions(store, Filter(kinds=("run",))).to_delete
    touched = store / to_delete[0].entry.name
    (touched / "notes.txt").write_text("precious")
    deleted, left = delete_chosen(store, to_delete)
    assert left == [touched.name]
    assert len(deleted) == 1
    assert touched.is_dir()


def test_prune_leaves_unfinished_studies_unless_told(store):
    folder = folder_of(store, "study")
    (folder / "outcome.json").unlink()
    wanted = Filter(kinds=("study",))
    assert choose_deletions(store, wanted).to_delete == []
    assert len(choose_deletions(store, wanted, with_unfinished=True).to_delete) == 1


def test_a_killed_prune_leaves_no_half_result_and_the_next_one_clears_it(store):
    grave = store / ".pruned-x"
    grave.mkdir()
    folder_of(store, "run").rename(grave / "voltarget-0")
    left = [each for each in list_results(store) if each.trouble]
    assert [(each.kind, each.is_busy) for each in left] == [("leftover", False)]
    delete_chosen(store, choose_deletions(store, Filter(before=0), with_damaged=True).to_delete)
    assert not grave.exists()
    assert len(list_results(store)) == 4


def test_a_folder_that_somebody_put_there_is_named_and_never_deleted(store):
    (store / "reports").mkdir()
    (store / "reports" / "thesis.txt").write_text("precious")
    assert "no manifest" in next(e for e in list_results(store) if e.name == "reports").trouble
    check = verify_folder(store / "reports")
    assert not check.faults
    assert "not a result" in check.remarks[0][1]
    delete_chosen(store, choose_deletions(store, Filter(), with_damaged=True).to_delete)
    assert [each.name for each in list_results(store)] == ["reports"]


def test_a_link_is_deleted_and_not_what_it_leads_to(store, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    folder = folder_of(store, "sweep")
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    delete_chosen(store, choose_deletions(store, Filter(kinds=("sweep",))).to_delete)
    assert not folder.exists()
    assert (elsewhere / "manifest.json").is_file()


# ------------------------------------------------------------------------------------------- export


def test_an_archive_is_the_same_bytes_each_time_and_loads_again(store, tmp_path):
    folder = folder_of(store, "run")
    one = export_result(folder, tmp_path / "one.zip", with_csv=True)
    later = shutil.copytree(folder, tmp_path / "later" / folder.name)
    os.utime(later / "manifest.json", ns=(0, 0))
    two = export_result(later, tmp_path / "two.zip", with_csv=True)
    assert one.read_bytes() == two.read_bytes()
    with zipfile.ZipFile(one) as archive:
        archive.extractall(tmp_path / "out")
    assert not verify_folder(tmp_path / "out" / folder.name).faults
    loaded = bt.Result.load(tmp_path / "out" / folder.name)
    bars = pd.read_csv(tmp_path / "out" / f"{folder.name}-csv" / "bars.csv")
    np.testing.assert_array_equal(bars["equity"], loaded.bars["equity"])


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison", "study"])
def test_an_exported_folder_verifies_and_has_the_files_of_the_result_only(store, tmp_path, kind):
    folder = folder_of(store, kind)
    out = export_result(folder, tmp_path / "shared")
    assert not verify_folder(out).faults
    assert repr(read_entry(out).metrics) == repr(read_entry(folder).metrics)
    with pytest.raises(ParameterError, match="must not exist yet"):
        export_result(folder, tmp_path / "shared")


def test_names_in_an_archive_are_safe_and_a_damaged_result_is_not_handed_on(store, tmp_path):
    folder = folder_of(store, "run")
    hostile = folder.rename(store / "..\u202e<script> \\evil")
    archive = export_result(hostile, tmp_path / "x.zip")
    with zipfile.ZipFile(archive) as found:
        for name in found.namelist():
            assert set(name) <= {*"abcdefghijklmnopqrstuvwxyz", *"./-"}
            assert not name.startswith((".", "/"))
            assert ".." not in name
    spoil(hostile / "bars.parquet", "flipped")
    with pytest.raises(DataError, match=r"bars\.parquet was changed"):
        export_result(hostile, tmp_path / "y.zip")


@pytest.mark.slow
def test_no_name_in_an_archive_leads_out_of_its_folder(store, tmp_path):
    """A hostile file of a study is refused; what is packed are plain files below one folder."""
    folder = folder_of(store, "study")
    (folder / "outcome.json").unlink()
    hostile = folder / "trials" / "0..\\..\\..\\evil.parquet"
    shutil.copy(folder / "trials" / "000000.parquet", hostile)
    with pytest.raises(DataError, match="evil"):
        export_result(folder, tmp_path / "x.zip")
    hostile.unlink()
    for each in ("run", "sweep", "comparison", "study"):
        place = folder_of(store, each)
        archive = export_result(place, tmp_path / f"{each}.zip", with_csv=True)
        with zipfile.ZipFile(archive) as found:
            for info in found.infolist():
                parts = info.filename.split("/")
                assert parts[0] in (place.name, f"{place.name}-csv")
                assert not {"", ".", ".."} & {*parts}
                assert "\\" not in info.filename
                assert stat.S_ISREG(info.external_attr >> 16)


# ------------------------------------------------------------------------------------- made again


def test_a_result_made_in_python_says_so_in_place_of_a_command(store):
    said = {}
    for kind in ("run", "sweep", "study", "comparison"):
        folder = folder_of(store, kind)
        name = "study.json" if kind == "study" else "manifest.json"
        manifest = json.loads((folder / name).read_text())
        origin = describe_origin(manifest, read_provenance(folder, manifest["id"]))
        assert origin.command == ""
        (said[kind],) = origin.remarks
    assert said["run"].startswith("made in Python, or by an earlier version: bt.run, ")
    assert "bt.sweep, VolTarget of backtest.strategies.vol_target, Market.sample(" in said["sweep"]
    assert "bt.tune, Hills of tests.tuning, " in said["study"]
    assert "bt.compare, VolTarget(" in said["comparison"]


@pytest.mark.slow
def test_a_command_is_kept_with_the_first_making_that_had_none(tmp_path):
    in_python = live(Constant(leverage=1.0))
    folder = in_python.save(tmp_path)
    identity = folder.name[-16:]
    assert "argv" not in (folder / "provenance.json").read_text()
    with recording_command(["backtest", "run", "--policy", "it's mine.py:A"]):
        live(Constant(leverage=1.0)).save(tmp_path)
    making = read_provenance(folder, identity)
    assert shlex.split(describe_origin({}, making).command) == list(making.argv)
    assert "it's mine.py:A" in describe_origin({}, making).remarks[0]
    in_python.save(tmp_path)
    assert read_provenance(folder, identity).argv == making.argv
    assert read_provenance(bt.Result.load(folder).save(tmp_path / "b"), identity) == making


# -------------------------------------------------------------------------------- several writers


def save_again(source: Path, store: Path, times: int, log: Path) -> None:
    """Save a result of another capital each time, and note what is finished."""
    found = load_saved(source)
    for k in range(times):
        found.manifest["account"]["capital"] = 1e6 * os.getpid() + k
        found.manifest["id"] = hash_manifest(found.manifest, read_entry(source).kind)
        name = found.save(store).name
        with log.open("a") as file:
            file.write(f"{name}\n")


def save_the_same(source: Path, store: Path, times: int) -> None:
    """Save one result over and over under its own name."""
    found = load_saved(source)
    for _ in range(times):
        found.save(store)


@pytest.fixture(scope="module")
def processes():
    """Return a way to start processes that have loaded everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["backtest", "pyarrow.parquet", "backtest.store"])
    return context


def test_the_same_experiment_is_the_same_folder_with_the_same_bytes(tmp_path):
    first = live(Constant(leverage=1.0)).save(tmp_path)
    before = {path.name: path.read_bytes() for path in first.iterdir()}
    again = live(Constant(leverage=1.0)).save(tmp_path)
    assert first == again
    assert {path.name: path.read_bytes() for path in again.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == [first.name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "can_exchange"), [("run", True), ("run", False), ("sweep", True), ("comparison", True)]
)
def test_two_writers_of_one_result_and_a_reader_never_meet_half_of_it(
    made, processes, tmp_path, monkeypatch, kind, can_exchange
):
    """Without an exchange of folders there is a moment without any: the reader then sees none."""
    source = next(made / e.name for e in list_results(made) if e.kind == kind)
    shutil.copytree(source, tmp_path / source.name)
    target = save_the_same if can_exchange else save_slowly
    writers = [processes.Process(target=target, args=(source, tmp_path, 15)) for _ in range(2)]
    for each in writers:
        each.start()
    seen = []
    while any(each.is_alive() for each in writers):
        entry = next((e for e in list_results(tmp_path) if e.name == source.name), None)
        seen.append(entry is not None and not entry.trouble)
    for each in writers:
        each.join()
        assert each.exitcode == 0
    assert all(seen) or not can_exchange
    assert not verify_folder(tmp_path / source.name).faults
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [source.name]


def save_slowly(source: Path, store: Path, times: int) -> None:
    """Save as on a system that cannot exchange two folders at once."""
    atomic_files.exchange_folders = lambda one, other: False
    save_the_same(source, store, times)


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("run", 8), ("sweep", 4), pytest.param("run", 200, marks=pytest.mark.slow)],
)
def test_killed_writers_lose_nothing_finished_and_leave_nothing_that_could_be_taken_for_it(
    made, processes, tmp_path, monkeypatch, kind, kills
):
    """Writers, killed at random moments: what was finished verifies, drafts are told."""
    source = next(made / e.name for e in list_results(made) if e.kind == kind)
    store, log = tmp_path / "store", tmp_path / "log"
    store.mkdir()
    log.touch()
    moments = random.Random(1)
    done = 0
    while done < kills or (done < 50 * kills and not any(store.glob(".saving-*"))):
        done += 1  # go on until one was killed within a save
        child = processes.Process(target=save_again, args=(source, store, 1000, log))
        before = log.stat().st_size
        child.start()
        for _ in range(2000):
            if log.stat().st_size > before:
                break
            time.sleep(0.005)
        time.sleep(0.1 * moments.random())
        child.kill()
        child.join()
    finished = set(log.read_text().split())
    checks = [verify_folder(folder) for folder in store.iterdir() if folder.is_dir()]
    assert len(finished) >= kills
    assert finished <= {each.name for each in checks if each.kind == kind}
    assert not any(each.faults for each in checks)
    assert {each.kind for each in checks} == {kind, "leftover"}
    entries = list_results(store, use_index=False)
    assert not any(each.is_busy for each in entries)
    assert finished <= {each.name for each in entries if not each.trouble}
    settle(monkeypatch)
    delete_chosen(store, choose_deletions(store, Filter(before=0), with_damaged=True).to_delete)
    assert {each.kind for each in list_results(store)} == {kind}


def test_a_draft_that_is_being_written_is_told_from_one_that_was_left(tmp_path):
    draft = tmp_path / ".saving-x"
    draft.mkdir()
    assert "was left" in read_entry(draft).trouble
    with hold_lock_file(draft / LOCK):
        assert read_entry(draft).is_busy
        assert choose_deletions(tmp_path, Filter(), with_damaged=True).to_delete == []
    to_delete = choose_deletions(tmp_path, Filter(), with_damaged=True).to_delete
    assert len(to_delete) == 1
    assert delete_chosen(tmp_path, to_delete) == (
        [],
        [".saving-x"],
    )  # empty: it may have begun just now
    os.utime(draft, ns=(0, 0))
    assert delete_chosen(tmp_path, to_delete) == ([".saving-x"], [])


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison"])
@pytest.mark.parametrize(
    "broken", ["pyarrow.parquet.write_table", "pathlib.Path.write_text", "os.fsync"]
)
@pytest.mark.parametrize("is_there", every_nth([True, False], 4))
def test_a_full_disk_leaves_the_store_as_it_was(
    made, tmp_path, monkeypatch, kind, broken, is_there
):
    """Whichever write finds no space: no folder that was not there, and the old one whole."""
    source = next(made / e.name for e in list_results(made) if e.kind == kind)
    found, store = load_saved(source), tmp_path / "store"
    if is_there:
        found.save(store)
    before = repr(list_results(store, use_index=False))

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(broken, refuse)
        with pytest.raises(DataError, match="No space left") as caught:
            found.save(store)
    assert source.name in caught.value.where
    assert repr(list_results(store, use_index=False)) == before
    assert found.save(store).is_dir()


def save_with_little_space(source: Path, store: Path, most: int) -> None:
    """Save where the system itself refuses files of more than so many bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    with pytest.raises(DataError, match="cannot write the "):
        load_saved(source).save(store)


@pytest.mark.parametrize("most", [0, 100, 1_000, 3_000, 20_000])
def test_wherever_the_space_ends_the_writer_is_told_and_nothing_is_left(
    made, processes, tmp_path, most
):
    source = next(made / e.name for e in list_results(made) if e.kind == "run")
    child = processes.Process(target=save_with_little_space, args=(source, tmp_path, most))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert list(tmp_path.iterdir()) == []
