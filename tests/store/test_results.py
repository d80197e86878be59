"""The store: listed, filtered, ordered, found, verified, pruned and exported."""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import backtest as bt
from backtest import core, results
from backtest.account.money import Wallet
from backtest.account.records import MarginCall, PositionState
from backtest.core import DAY
from backtest.results import Result
from backtest.search import Study
from backtest.strategies import Constant
from tests.kit import ask_test, call, check_refused, slow
from tests.store.conftest import SEARCH, SPANS, folder_of, live, spoil
from tests.tuning import seek, stand_in
from tests.validation.worlds import Lever, make_market


@pytest.mark.slow
def test_measures_are_those_of_the_run_and_of_the_best_set_and_policy(store):
    run = folder_of(store, "run")
    assert results.read_entry(run).metrics["sharpe"] == bt.Result.load(run).metrics["sharpe"]

    sweep = folder_of(store, "sweep")
    assert results.read_entry(sweep).metrics["sharpe"] == bt.Sweep.load(sweep).table["sharpe"].max()

    study = folder_of(store, "study")
    assert results.read_entry(study).metrics["sharpe"] == Study.load(study).best["sharpe"]

    found = bt.Comparison.load(folder_of(store, "comparison"))
    best = found.table.loc[found.order[0], "sharpe"]
    assert results.read_entry(folder_of(store, "comparison")).metrics["sharpe"] == best


def test_a_ruined_account_is_never_among_the_best():
    """Its Sharpe ratio is of the returns before: one that doubled and was lost stood on top."""
    measures = ("sharpe", "max_drawdown", "mean_leverage", "ruined")
    values = {"lost": (9.0, 0.1, 1, 1), "poor": (-1.0, 0.9, 2), "good": (2.0, 0.2, 3, 0)}
    entries = []
    for name, row in values.items():
        metrics = dict(zip(measures, row, strict=False))
        entries.append(results.StoreEntry(name, kind="run", metrics=metrics))

    def names(by, **order):
        return [entry.name for entry in results.sort_entries(entries, by, **order)]

    assert names("sharpe") == ["good", "poor", "lost"]
    assert names("max_drawdown") == ["good", "poor", "lost"]
    assert names("sharpe", is_reversed=True) == ["lost", "poor", "good"]
    assert names("max_drawdown", is_reversed=True) == ["lost", "poor", "good"]
    assert names("mean_leverage") == ["good", "poor", "lost"]


@pytest.mark.parametrize(("title", "policy"), [
    ("Dear(target=0.4)", "Dear"),
    ("Max(Dear(target=0.4), Constant(leverage=1.0)), calmar", "Max"),
    ("{BTC: Max(Dear(low=1), Dear()), ETH: Dear(low=2)}", "BTC: Max, ETH: Dear"),
    ("BTC: Dear(low=1), ETH: Dear()", "BTC: Dear, ETH: Dear"),
])  # fmt: skip
def test_a_list_names_the_policies_of_all_markets_without_settings(title, policy):
    assert core.name_policy(title) == policy


def test_a_result_is_found_by_name_id_and_beginning_and_a_damaged_one_too(store):
    folder = folder_of(store, "sweep")
    identity = folder.name.rpartition("-")[2]
    for name in (folder.name, identity, identity[:6], "sweep", str(folder)):
        assert results.find_folder(name, store) == folder

    (folder / "manifest.json").unlink()
    assert results.find_folder(identity[:6], store) == folder


@pytest.mark.parametrize(("call", "words"), [
    (lambda _: results.read_time_or_age("soon", 0, where="since"), "since must be a time"),
    (lambda store: results.find_folder("nothing", store), "no saved result is called 'nothing'"),
    (lambda store: results.find_folder("../made", store), "made"),
    (lambda _: bt.compare(
        {"a": live(Constant(leverage=1.0)), "b": live(Constant(leverage=1.0), capital=500.0)}),
     "'b' differs from a in account.capital"),
    (lambda _: bt.compare({"a": live(Constant(leverage=1.0))}), "results must be two or more"),
])  # fmt: skip
def test_bad_input_is_refused(call, words, store):
    check_refused(lambda: call(store), words)


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison", "study"])
@pytest.mark.parametrize("change", ["cut", *slow(["emptied", "deleted", "flipped"])])
def test_every_damage_to_every_file_is_found_and_named_by_verify(store, kind, change):
    folder = folder_of(store, kind)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]
    for path in files[:6]:
        is_beside = path.name == "provenance.json"
        if change == "flipped" and path.suffix == ".json":
            continue  # a flipped bit may be in a space: see the test of edited JSON
        content = path.read_bytes()
        spoil(path, change)

        check = results.verify_folder(folder)
        is_gone = path.name == "manifest.json" and change == "deleted"
        if is_beside and change == "deleted":  # unfinished, or saved by an earlier version
            assert path.name in {name for name, _ in check.remarks}
        else:
            named = {Path(name).name for name, _ in check.faults}
            assert named, (path, change)
            assert path.name in named or is_gone
        path.write_bytes(content)
    assert not results.verify_folder(folder).faults


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison", "study"])
def test_a_manifest_edited_by_hand_is_not_believed(store, kind):
    folder = folder_of(store, kind)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["account"]["capital"] = 9.0
    path.write_text(json.dumps(manifest))

    assert "sha256" in results.read_entry(folder).trouble
    found = results.verify_folder(folder).faults
    assert ("manifest.json", "was changed: its sha256 does not match its content") in found


def edit(path, name, value):
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({**whole, name: value}))
    return whole


def test_every_key_of_a_manifest_is_covered(store):
    """Before: "checked at 1,000,000 places" passed, and so did any margin table."""
    folder = folder_of(store, "run")
    path = folder / "manifest.json"
    content = path.read_text()
    for name, value in json.loads(content).items():
        edit(path, name, f"{value} and 1,000,000 more")
        faults = {file for file, _ in results.verify_folder(folder).faults}
        assert "manifest.json" in faults, name
        with pytest.raises(bt.DataError):
            results.load_saved(folder)
        path.write_text(content)
    assert not results.verify_folder(folder).faults


LAYOUT = (9, "23703cbcc89e")
"""The format of a saved run, and a digest of the fields that its files have."""


def test_other_fields_of_a_saved_run_are_another_format(tmp_path):
    """A state before that lacks a number, or has one more, would be read as another account. Where
    this fails, a field was added: increase ``FORMAT`` of results/result.py, and write both here."""
    market = bt.Market.sample(bars=48)
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    result = bt.run(market, Constant(2.0), venue=venue, account=bt.Account(), compile=False)
    folder = result.save(tmp_path)

    state = json.loads((folder / "state.json").read_text())
    fields = [*state, *state["book"], *state["tally"]]
    for rows in (Wallet, PositionState, MarginCall):
        fields += rows.names()
    for table in ("bars", "positions", "events"):
        fields += pq.read_schema(folder / f"{table}.parquet").names
    digest = core.hash_texts(*fields)[:12]
    assert (Result.layout, digest) == LAYOUT


@pytest.mark.parametrize("value", [None, 1, "x", [], [1], {}, {"x": None}], ids=repr)
def test_the_report_of_a_damaged_manifest_is_a_sentence(store, capsys, value):
    folder = folder_of(store, "run")
    path = folder / "manifest.json"
    content = path.read_text()
    for name in ("data", "files", "id", "kind", "policy", "account", "versions", "format"):
        edit(path, name, value)
        code, _, err = call(capsys, "report", folder.name, "--results", store)
        assert code == 2, (name, err)
        assert err.count("\n") == 1, (name, err)
        assert err.startswith("error: "), (name, err)
        path.write_text(content)

    path.write_text(json.dumps(value))
    code, _, _ = call(capsys, "report", folder.name, "--results", store)
    assert code == 2
    path.write_text(content)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_to_the_provenance_of_the_accounts_of_a_walk_is_found(tmp_path, capsys):
    """Before: verify overlooked it."""
    ask_test("walk_forward", make_market(90), Lever, **SEARCH, **SPANS, store=tmp_path)
    code, _, _ = call(capsys, "results", "verify", "--results", tmp_path)
    assert code == 0

    of_account = next(tmp_path.glob("*/accounts/result/provenance.json"))
    of_walk = next(tmp_path.glob("*/provenance.json"))

    for path in (of_account, of_walk):
        content = path.read_bytes()
        path.write_bytes(content[:-9])
        code, out, _ = call(capsys, "results", "verify", "--results", tmp_path)
        assert code == 1, (path, out)
        assert path.name in out, (path, out)
        path.write_bytes(content)


def test_prune_keeps_the_newest_and_what_it_cannot_read(store):
    for k, folder in enumerate(sorted(store.iterdir())):
        path = folder / "manifest.json"
        if path.exists():
            os.utime(path, ns=(k * DAY, k * DAY))
    run = folder_of(store, "run")
    (run / "bars.parquet").unlink()
    whole = [entry for entry in results.list_results(store) if not entry.trouble]
    newest = results.sort_entries(whole)[0]

    to_delete, _ = results.choose_deletions(store, results.Filter(), keep=1)
    assert len(to_delete) == 3

    deleted, left = results.delete_chosen(store, to_delete)
    assert len(deleted) == 3
    assert left == []
    assert {entry.name for entry in results.list_results(store)} == {newest.name, run.name}
    assert (store / "looks.jsonl").is_file()

    damaged, kept = results.choose_deletions(store, results.Filter(before=0), with_damaged=True)
    assert [entry.name for entry in damaged] == [run.name]
    assert kept == []
    assert results.delete_chosen(store, damaged) == ([run.name], [])


def test_what_is_unfinished_takes_no_place_among_the_newest_that_stay(tmp_path, monkeypatch):
    """Two of three finished results stay, though an unfinished one is the newest."""
    entries = []
    for k, is_finished in enumerate([True, True, True, False]):
        entry = results.StoreEntry(f"run-{k}", kind="run", saved=k * DAY, is_finished=is_finished)
        entries.append(entry)
    monkeypatch.setattr("backtest.results.upkeep.list_results", lambda _: entries)
    monkeypatch.setattr("backtest.results.upkeep.find_reason_to_keep", lambda _: "")

    chosen, _ = results.choose_deletions(tmp_path, results.Filter(), keep=2)
    assert [entry.name for entry in chosen] == ["run-0"]

    chosen, _ = results.choose_deletions(tmp_path, results.Filter(), keep=2, with_unfinished=True)
    assert [entry.name for entry in chosen] == ["run-1", "run-0"]


def test_prune_leaves_unfinished_studies_unless_told(tmp_path, monkeypatch):
    stand_in(put=monkeypatch.setattr)

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="unfinished"):
        folder = seek(store=tmp_path, progress=interrupt).folder

    (entry,) = results.list_results(tmp_path)
    assert entry.name == folder.name
    assert entry.kind == "study"
    assert not entry.is_finished
    assert entry.note == "16 sets"

    wanted = results.Filter(kinds=("study",))
    assert results.choose_deletions(tmp_path, wanted) == ([], [])
    chosen, _ = results.choose_deletions(tmp_path, wanted, with_unfinished=True)
    deleted, _ = results.delete_chosen(tmp_path, chosen)
    assert deleted == [folder.name]
