"""Nothing is deleted that is not the store's own, and nothing in a store hangs or stops a check."""

import json
import os
import shutil
from pathlib import Path

import pytest

import backtest as bt
from backtest.core.saved_result import hash_manifest
from backtest.results import Filter, choose_deletions, delete_chosen, list_results
from backtest.strategies import Constant
from tests.kit import ask, call, read_files
from tests.store.conftest import live

DAMAGED = {"wanted": Filter(before=0), "with_damaged": True}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return live(Constant()).save(tmp_path_factory.mktemp("saved") / "results")


@pytest.fixture
def store(saved, tmp_path):
    return Path(shutil.copytree(saved.parent, tmp_path / "results"))


@pytest.fixture
def run(store, saved):
    return store / saved.name


def fill(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode()
        (folder / name).write_bytes(data)
    return folder


ID = "0011223344556677"
FOREIGN = {
    "market data": {"bars.parquet": b"PAR1" + bytes(100), "market.json": "{}"},
    "a web app": {"manifest.json": '{"name": "app", "id": "/app"}', "index.html": "<p>"},
    "a web app with an id": {
        "manifest.json": f'{{"name": "app", "id": "{ID}", "format": 1, "files": {{}}}}'
    },
    "trials of a patient": {"trials/000000.parquet": b"PAR1"},
    "a lock": {"lock": "", "diary.txt": "dear"},
    "a cut manifest": {"manifest.json": '{"kind": "run"', "bars.parquet": b"PAR1"},
    "an outcome": {"outcome.json": "{}", "metrics.json": "{}", "state.json": "{}"},
    ".saving-photos": {"photo.jpg": b"\xff\xd8"},
    ".pruned-two": {"a/bars.parquet": b"PAR1", "b/notes.txt": "x"},
    ".pruned-data": {"a/bars.parquet": b"PAR1"},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_result_is_named_and_never_deleted(store, capsys, name):
    """Before: bars.parquet, manifest.json or trials/ made a folder the store's to delete."""
    folder = fill(store / name, FOREIGN[name])
    before = read_files(folder)

    code, out, err = call(capsys, "results", "prune", "--damaged", "--yes", "--results", str(store))
    assert code == 0
    assert err == ""
    assert read_files(folder) == before
    assert "left, not known to be a result" in out

    found = ask(capsys, "results", "prune", "--damaged", "--yes", "--results", store)
    assert [folder["name"] for folder in found["not_ours"]] == [name]
    assert len(list_results(store)) == 2


LINKED = {
    "in a result": "RUN/extra",
    "as a table": "RUN/bars.parquet",
    "in what a process left": ".pruned-x/a-0123456789abcdef",
    "deeper in it": ".saving-x/a-0123456789abcdef/in",
    "as a result": "linked-0123456789abcdef",
}


@pytest.mark.parametrize("place", LINKED)
def test_links_are_named_and_nothing_behind_them_is_deleted(store, run, tmp_path, capsys, place):
    """Before: a folder of leftovers with a link stayed half deleted, and was called deleted."""
    outside = tmp_path / "outside"
    outside.mkdir()
    precious = outside / "precious"
    precious.write_text("mine")

    link = store / LINKED[place].replace("RUN", run.name)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(outside, target_is_directory=True)

    words = ("--keep", "0", "--damaged", "--unfinished", "--yes")
    code, out, err = call(capsys, "results", "prune", *words, "--results", str(store))
    assert code == 0
    assert err == ""
    assert "left, not known to be a result" in out
    assert link.is_symlink()
    assert precious.read_text() == "mine"


def test_a_result_with_a_file_of_somebody_is_left(store, run):
    (run / "notes.txt").write_text("precious")

    chosen, kept = choose_deletions(store, Filter())

    assert chosen == []
    (left,) = kept
    assert left.name == run.name
    assert "'notes.txt'" in left.why


def test_a_prune_that_is_killed_leaves_what_the_next_one_knows(store, run, monkeypatch):
    to_delete, _ = choose_deletions(store, Filter())
    unlink = os.unlink
    gone = []

    def die(path, **how):
        if len(gone) == 3:
            raise KeyboardInterrupt
        gone.append(path)
        unlink(path, **how)

    monkeypatch.setattr(os, "unlink", die)

    with pytest.raises(KeyboardInterrupt):
        delete_chosen(store, to_delete)
    monkeypatch.undo()

    left, kept = choose_deletions(store, **DAMAGED)
    assert len(left) == 1
    assert kept == []
    deleted, _ = delete_chosen(store, left)
    assert len(deleted) == 1
    assert list(store.iterdir()) == []


def test_a_result_that_is_saved_again_keeps_the_notes_beside_it(saved, run, store):
    """Before: the older folder was deleted with whatever somebody had put into it."""
    fill(run, {"notes.txt": "precious", "plots/a.png": b"png"})
    bt.Result.load(saved).save(store)
    assert (run / "notes.txt").read_text() == "precious"
    assert (run / "plots" / "a.png").read_bytes() == b"png"
    assert [path.name for path in store.iterdir()] == [run.name]


HOSTILE = {
    "nested deeply": b"[" * 200_000, "nested objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "NUL bytes": b"\0" * 1_000, "NUL inside": b'{"id": "\0"}', "no UTF-8": b'{"id": "\xff\xfe"}',
    "a huge number": b'{"format": ' + b"9" * 10_000 + b"}",
    "infinity": b'{"format": 1e999, "id": NaN, "kind": Infinity}', "a list": b"[1, 2]",
    "a number": b"7", "nothing": b"",
    "other types": b'{"kind": {}, "format": [], "files": 3, "id": 5, "data": null}',
    "a kind, and else nothing": b'{"kind": "sweep"}',
    "all words wrong": b'{"kind": "comparison", "format": 1, "id": "x", "files": {"a": "b"}}',
}  # fmt: skip


def check_all(store: Path, capsys, whole: str) -> None:
    """Require that lists, checks and prunings end, and that one result is whole."""
    entries = {entry.name: entry for entry in list_results(store)}
    assert [name for name in entries if not entries[name].trouble] == [whole]

    where = ("--results", str(store))
    found = ask(capsys, "results", "verify", *where, code=1)
    checks = {check["name"]: check for check in found["checked"]}
    assert [name for name in checks if not checks[name]["faults"]] == [whole]

    code, _, _ = call(capsys, "results", "list", *where)
    assert code == 0

    told = ask(capsys, "results", "prune", "--damaged", "--yes", *where)
    not_ours = {folder["name"] for folder in told["not_ours"]}
    assert {*told["deleted"]} | not_ours | {whole} == {*entries}
    assert (store / whole).is_dir()


def test_hostile_manifests_are_named_and_stop_nothing(store, run, capsys):
    """Before: RecursionError ended `results verify`."""
    for k, content in enumerate(HOSTILE.values()):
        fill(store / f"m{k}-{ID}", {"manifest.json": content})

    check_all(store, capsys, run.name)
    assert len(list(store.glob(f"*-{ID}"))) == len(HOSTILE)


def test_what_is_no_plain_file_is_not_waited_for(store, run, capsys):
    for file in ("manifest.json", "provenance.json", "bars.parquet"):
        for what in ("pipe", "folder", "itself", "device"):
            copy = store / f"{what}-{file}-{ID}"
            shutil.copytree(run, copy)
            (copy / file).unlink()
            make = {"pipe": os.mkfifo, "folder": Path.mkdir}.get(what)
            target = file if what == "itself" else "/dev/zero"
            if make is None:
                (copy / file).symlink_to(target)
            else:
                make(copy / file)
    check_all(store, capsys, run.name)


FORGED = {
    "an account that is gone": lambda manifest: manifest.pop("account"),
    "promises of text": lambda manifest: manifest.update(promises="<script>"),
    "a policy of numbers": lambda manifest: manifest.update(policy=-1),
    "bars of text": lambda manifest: manifest["data"].update(bars="/etc/passwd"),
    "a text that is gone": lambda manifest: manifest["policy"].pop("text"),
    "a margin table that is no number": lambda manifest: manifest.update(margin_table=float("nan")),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_manifest_with_a_fitting_hash_and_other_content_has_no_page(
    store, run, tmp_path, capsys, what
):
    """Before: the report of each was a traceback."""
    path = run / "manifest.json"
    manifest = json.loads(path.read_text())
    FORGED[what](manifest)
    manifest["sha256"] = hash_manifest(manifest)
    path.write_text(json.dumps(manifest))
    target = tmp_path / "page.html"
    code, out, err = call(capsys, "report", run.name, "--out", str(target), "--results", str(store))

    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not target.exists()
