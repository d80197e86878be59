"""Results are deleted by rules, and nothing else is."""

import os

import pytest

from backtest.base.units import DAY
from backtest.store import (
    Filter,
    choose_deletions,
    delete_chosen,
    list_results,
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
