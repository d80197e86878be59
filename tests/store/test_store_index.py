"""The index of a large store: a list with it is the list without it, whatever happens meanwhile."""

import json
import os
import shutil
import time

import pytest

import backtest as bt
from backtest.results import listing, store_index
from backtest.strategies import Constant, VolTarget
from tests.kit import AT_BINANCE

MARKET = bt.Market.sample(bars=24 * 3)
OLD = store_index.UNSETTLED + 1_000_000_000


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A store that counts as large, of six results; and what is read beside its index."""
    store = tmp_path / "store"
    for policy in (Constant(), VolTarget()):
        saved = bt.run(MARKET, policy, **AT_BINANCE).save(store)
        shutil.copytree(saved, store / f"{saved.name[:-1]}x")
        shutil.copytree(saved, store / f"{saved.name[:-1]}y")

    read = []
    plain = listing.read_entry

    def note(folder):
        read.append(folder.name)
        return plain(folder)

    monkeypatch.setattr(listing, "SMALLEST", 2)
    monkeypatch.setattr(listing, "read_entry", note)

    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + OLD)  # all changes are long ago
    return store, read


def list_plainly(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(listing, "SMALLEST", 10_000)
        return listing.list_results(store)


def list_both(store, read, monkeypatch):
    """Return the folders that were read beside the index, after holding it to a list without it."""
    read.clear()
    entries = listing.list_results(store)
    changed = [*read]

    plain = list_plainly(store, monkeypatch)
    assert list(map(repr, entries)) == list(map(repr, plain))  # NaN is NaN
    for entry, same in zip(entries, plain, strict=True):
        assert entry.to_dict().keys() == same.to_dict().keys()
    return changed


def test_a_large_store_is_read_once(large, monkeypatch):
    store, read = large
    assert len(list_both(store, read, monkeypatch)) == 6
    assert list_both(store, read, monkeypatch) == []
    assert (store / store_index.INDEX).is_file()


def test_what_changes_in_a_store_is_read_again(large, monkeypatch):
    store, read = large
    list_both(store, read, monkeypatch)
    names = listing.list_folders(store)
    first, second, third, *_ = names

    # replaced by the same files, as by another process
    shutil.copytree(store / first, store / "draft")
    shutil.rmtree(store / first)
    (store / "draft").rename(store / first)
    assert list_both(store, read, monkeypatch) == [first]

    # added, deleted
    shutil.copytree(store / first, store / "another")
    shutil.rmtree(store / second)
    assert list_both(store, read, monkeypatch) == ["another"]
    assert list_both(store, read, monkeypatch) == []

    # broken in place, to the same size and the same time
    file = store / third / "metrics.json"
    status = file.stat()
    content = file.read_text()
    file.write_text(content.replace("1", "2"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert list_both(store, read, monkeypatch) == [third]
    (broken,) = [entry for entry in listing.list_results(store) if entry.trouble]

    assert broken.name == third

    # mended, and a file beside the results
    file.write_text(content)
    (store / names[3] / "note.txt").write_text("mine")
    assert list_both(store, read, monkeypatch) == [third, names[3]]
    assert list_both(store, read, monkeypatch) == []


@pytest.mark.parametrize("change", ["cut", "text", "list", "other code", "names", "gone"])
def test_an_index_that_is_damaged_or_of_other_code_is_made_again(large, monkeypatch, change):
    store, read = large
    list_both(store, read, monkeypatch)
    file = store / store_index.INDEX
    content = file.read_bytes()
    head, _, numbers = content.partition(b"\n")
    index = json.loads(head)

    if change == "cut":
        file.write_bytes(content[:-8])
    elif change == "gone":
        file.unlink()
    elif change == "other code":
        monkeypatch.setattr(store_index, "find_reader", lambda: "later")
    else:
        other = {"text": "{", "list": "[]", "names": json.dumps(index | {"measures": []})}
        file.write_bytes(other[change].encode() + b"\n" + numbers)

    assert len(list_both(store, read, monkeypatch)) == 6
    assert list_both(store, read, monkeypatch) == []


def test_a_file_that_changed_just_now_or_a_link_is_not_kept(large, monkeypatch, tmp_path):
    """Within a tick of the clock a file can change twice, with one time."""
    store, read = large
    first, second, *_ = listing.list_folders(store)
    (store / first / "bars.parquet").replace(tmp_path / "bars.parquet")
    (store / first / "bars.parquet").symlink_to(tmp_path / "bars.parquet")
    later = time.time_ns() + 60_000_000_000
    os.utime(store / second / "state.json", ns=(later, later))

    list_both(store, read, monkeypatch)
    assert list_both(store, read, monkeypatch) == [first, second]


def test_a_store_that_cannot_be_written_is_listed_without_an_index(large, monkeypatch):
    store, read = large

    def refuse(path, content):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(store_index.core, "write_file", refuse)

    assert len(list_both(store, read, monkeypatch)) == 6
    assert not (store / store_index.INDEX).exists()


def test_the_index_keeps_each_field_of_an_entry():
    entry = listing.StoreEntry("name", "run", metrics={"sharpe": 1.5})
    assert {*listing.INDEXED, "metrics"} == {*vars(entry)}
