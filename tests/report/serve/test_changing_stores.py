"""A store with damaged, hostile, new and vanishing folders takes no page with it."""

import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from backtest.base.json_values import read_small
from backtest.store import entry, list_results, listing
from backtest.store.kinds import hash_manifest
from backtest.store.listing import ServedList
from tests.report.serve.served import HOSTILE, SECRET, rows_of


def spoil(store, name, file, content):
    (store / name / file).write_bytes(content)


@pytest.mark.parametrize(("file", "content", "reason"), [
    ("manifest.json", b'{"kind', "manifest.json must be JSON"),
    ("manifest.json", b"[]", "manifest.json must hold a JSON object, got a list"),
    ("manifest.json", b"{}", "manifest.json is of format None, not 2"),
    ("manifest.json", b'{"files": {}, "kind": "x"}', "manifest.json must have a known kind"),
    ("manifest.json", b'{"files": {}, "policy": 3}', "manifest.json is of format None, not 2"),
    ("manifest.json", b"[" * 100_000, "manifest.json must be JSON"),
    ("manifest.json", b"\xff\xfe\x00", "manifest.json must be JSON"),
    ("metrics.json", b"", "metrics.json is empty"),
    ("metrics.json", b'{"sharpe": 9.0}', "metrics.json was changed"),
    ("bars.parquet", None, "bars.parquet is missing"),
    ("manifest.json", None, "it holds no manifest.json and no study.json"),
])  # fmt: skip
def test_a_damaged_folder_is_listed_with_the_reason(ask, store, names, file, content, reason):
    if content is None:
        (store / names[0] / file).unlink()
    else:
        spoil(store, names[0], file, content)
    rows = [row for row in rows_of(ask("/")[1]) if row["kind"] == "damaged"]
    assert [row["cells"][0] for row in rows] == [names[0]]
    assert rows[0]["under"].startswith(reason)
    assert rows[0]["link"] == rows[0]["key"] == ""
    for path in (f"/result/{names[0]}", f"/compare?run={names[0]}&run={names[1]}"):
        answer, text = ask(path)
        assert answer.status == 422
        assert "the folder is damaged" in text


def test_links_are_not_followed(ask, store, names, tmp_path):
    outside = tmp_path / "outside-00112233445566aa"
    shutil.move(store / names[0], outside)
    (store / "link-00112233445566aa").symlink_to(outside)
    (store / "other").symlink_to(tmp_path)
    for file in ("manifest.json", "metrics.json"):
        (store / names[1] / file).unlink()
        (store / names[1] / file).symlink_to(tmp_path / "secret.txt")
    rows = {row["cells"][0]: row for row in rows_of(ask("/")[1]) if row["kind"] == "damaged"}
    assert set(rows) == {"link-00112233445566aa", "other", names[1]}
    assert all("is a link, which is not followed" in row["under"] for row in rows.values())
    for name in rows:
        answer, text = ask(f"/result/{name}")
        assert answer.status in (404, 422)
        assert SECRET not in text


def test_a_pipe_in_a_folder_does_not_hold_the_list_up(ask, store, names):
    (store / names[0] / "manifest.json").unlink()
    os.mkfifo(store / names[0] / "manifest.json")
    row = next(row for row in rows_of(ask("/")[1]) if row["kind"] == "damaged")
    assert row["under"] == "manifest.json must be a plain file, got a folder, a pipe or a device"


@pytest.mark.slow
def test_hostile_names_are_text(ask, store, names):
    manifest = json.loads((store / names[0] / "manifest.json").read_text())
    manifest["policy"]["text"] = HOSTILE + "x" * 10_000 + "\ud800"
    manifest["data"]["instrument"] = HOSTILE
    manifest["id"] = hash_manifest(manifest, "run")
    spoil(store, names[0], "manifest.json", json.dumps(manifest).encode())
    (store / names[0] / "provenance.json").unlink()
    (store / names[0]).rename(store / HOSTILE)
    odd = os.fsdecode(b"odd\xff-00112233445566bb")
    shutil.copytree(store / names[1], store / odd)
    _, text = ask("/")
    assert "<script>alert" not in text
    assert "\u202e" not in text
    assert "{{ 7" in text
    assert max(map(len, re.findall(r"x+", text))) <= 300
    for name, status in ((HOSTILE, 200), (odd, 422)):
        answer, page = ask("/result/" + quote(os.fsencode(name), safe=""))
        assert answer.status == status
        assert "<script>alert" not in page
    assert "the name of the folder is not UTF-8" in page
    assert "the name of the folder is not UTF-8" in [row["under"] for row in rows_of(text)]
    keys = [row["key"] for row in rows_of(text) if row["key"]]
    assert quote(HOSTILE, safe="") in keys
    query = "&".join(f"run={quote(key, safe='')}" for key in (names[1], quote(HOSTILE, safe="")))
    answer, page = ask(f"/compare?{query}")
    assert answer.status == 200
    assert "<script>alert" not in page
    assert "\u202e" not in page


def test_drafts_files_and_the_record_of_looks_are_not_listed(ask, store):
    for name in ("holdout-looks", ".saving-abc"):
        (store / name).mkdir()
    (store / ".saving-abc" / "manifest.json").write_text("{}")
    (store / "file-00112233445566aa").write_text("x")
    assert len(rows_of(ask("/")[1])) == 5
    assert ask("/result/.saving-abc")[0].status == 404


def test_the_list_follows_the_folders(ask, store, names):
    before = rows_of(ask("/")[1])
    shutil.rmtree(store / names[0])
    after = rows_of(ask("/")[1])
    assert len(after) == len(before) - 1
    assert ask(f"/result/{names[0]}")[0].status == 404
    shutil.rmtree(store)
    answer, text = ask("/")
    assert answer.status == 422
    assert "the folder of results does not exist" in text


def test_a_folder_is_read_again_only_when_it_has_changed(store, names, monkeypatch):
    listed = ServedList(store)
    first = listed.read()
    monkeypatch.setattr(listing, "read_entry", lambda *_, **__: pytest.fail("read again"))
    assert listed.read() == first


def test_the_list_is_that_of_the_terminal(store, names):
    (store / names[0] / "bars.parquet").write_bytes(b"cut")
    (store / "notes").mkdir()
    served = {name: note.entry for name, note in ServedList(store).read().items()}
    assert repr([served[name] for name in sorted(served)]) == repr(list_results(store))


def test_each_result_is_read_once_for_any_number_of_lists(store, names, tmp_path, monkeypatch):
    many = tmp_path / "many"
    many.mkdir()
    for k in range(200):
        folder = many / f"constant-{k:016x}"
        folder.mkdir()
        for file in (store / names[0]).iterdir():
            os.link(file, folder / file.name)
    read = []
    monkeypatch.setattr(entry, "read_small", lambda path: read.append(path) or read_small(path))
    listed = ServedList(many)
    assert len(listed.read()) == 200
    first = len(read)
    assert 200 <= first <= 800
    assert len(listed.read()) == 200
    assert len(read) == first


@pytest.mark.parametrize("lost", ["has_ends", "read_small"])
def test_a_result_that_is_being_deleted_takes_no_other_page_with_it(
    ask, store, names, monkeypatch, lost
):
    """Before: 500 for the list and for every other result until the last file was gone."""
    gone = store / names[0]

    def vanish(path, *rest, **how):
        if gone in Path(path).parents:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return real(path, *rest, **how)

    real = getattr(entry, lost)
    monkeypatch.setattr(entry, lost, vanish)
    monkeypatch.setattr(entry, "is_untouched", lambda _: False)
    answer, text = ask("/")
    assert answer.status == 200
    assert {row["kind"] for row in rows_of(text)} >= {"run", "damaged"}
    assert ask(f"/result/{names[1]}")[0].status == 200
    assert ask(f"/result/{names[0]}")[0].status == 422


def test_a_result_that_goes_while_its_report_is_made_is_not_found(ask, store, names, monkeypatch):
    def load(folder):
        shutil.rmtree(folder)
        raise FileNotFoundError(2, "No such file or directory", str(folder))

    monkeypatch.setattr("backtest.report.serve.site.load_saved", load)
    assert ask(f"/result/{names[0]}")[0].status == 404
    assert ask("/")[0].status == 200
