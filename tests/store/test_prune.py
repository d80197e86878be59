"""Results are deleted by rules, and nothing else is."""

import os

import pytest

from backtest.base import held_folder
from backtest.base.units import DAY
from backtest.store import (
    Filter,
    choose_deletions,
    delete_chosen,
    list_results,
    prune,
    sort_entries,
)
from tests.store.stores import folder_of
from tests.tuning import seek, stand_in


def test_prune_keeps_the_newest_and_what_it_cannot_read(store):
    for k, each in enumerate(sorted(store.iterdir())):
        path = each / "manifest.json"
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
    assert (store / "looks.jsonl").is_file()
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


def test_what_another_process_deletes_in_the_last_moment_is_left_to_it(
    store, monkeypatch, tmp_path
):
    to_delete = choose_deletions(store, Filter(kinds=("run",))).to_delete[:1]
    target = store / to_delete[0].entry.name

    def held_by_the_slower(*words):
        target.rename(tmp_path / "taken")
        return held_folder(*words)

    monkeypatch.setattr(prune, "held_folder", held_by_the_slower)
    assert delete_chosen(store, to_delete) == ([], [target.name])
    assert not [each for each in store.iterdir() if each.name.startswith(".")]


def test_prune_leaves_unfinished_studies_unless_told(tmp_path, monkeypatch):
    stand_in(put=monkeypatch.setattr)

    def interrupt(progress):
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="unfinished"):
        folder = seek(store=tmp_path, progress=interrupt).folder
    wanted = Filter(kinds=("study",))
    (entry,) = list_results(tmp_path)
    assert (entry.name, entry.kind, entry.is_finished) == (folder.name, "study", False)
    assert entry.note == "16 sets"
    assert choose_deletions(tmp_path, wanted).to_delete == []
    chosen = choose_deletions(tmp_path, wanted, with_unfinished=True).to_delete
    assert delete_chosen(tmp_path, chosen)[0] == [folder.name]


def test_a_killed_prune_leaves_no_half_result_and_the_next_one_clears_it(store):
    grave = store / ".pruned-x"
    grave.mkdir()
    folder_of(store, "run").rename(grave / f"voltarget-{16 * '0'}")
    left = [each for each in list_results(store) if each.trouble]
    assert [(each.kind, each.is_busy) for each in left] == [("leftover", False)]
    delete_chosen(store, choose_deletions(store, Filter(before=0), with_damaged=True).to_delete)
    assert not grave.exists()
    assert len(list_results(store)) == 4


def test_a_link_is_left(store, tmp_path):
    folder = folder_of(store, "sweep")
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    chosen = choose_deletions(store, Filter(kinds=("sweep",)))
    assert [each.why for each in chosen.kept] == ["it is a link"]
    assert chosen.to_delete == []
