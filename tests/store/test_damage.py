"""Damage to a stored result is found and named, and never loaded."""

import json
from pathlib import Path

import pytest

import backtest as bt
from backtest.store import read_entry, verify_folder
from tests.kit import call, every_nth
from tests.store.stores import folder_of, spoil
from tests.validation.worlds import PLAIN, Lever, make_market


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison", "study"])
@pytest.mark.parametrize("change", every_nth(["cut", "emptied", "deleted", "flipped"], 4))
def test_every_damage_to_every_file_is_found_and_named_by_verify(store, kind, change):
    folder = folder_of(store, kind)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"]
    for path in files[:6]:
        is_beside = path.name == "provenance.json"
        if change == "flipped" and path.suffix == ".json":
            continue  # a flipped bit may be in a space: see the test of edited JSON
        content = path.read_bytes()
        spoil(path, change)
        check = verify_folder(folder)
        is_gone = path.name == "manifest.json" and change == "deleted"
        if is_beside and change == "deleted":  # unfinished, or saved by an earlier version
            assert path.name in {name for name, _ in check.remarks}
        else:
            named = {Path(name).name for name, _ in check.faults}
            assert named, (path, change)
            assert path.name in named or is_gone
        path.write_bytes(content)
    assert not verify_folder(folder).faults


@pytest.mark.parametrize("kind", ["run", "sweep", "comparison", "study"])
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damage_to_the_provenance_of_the_accounts_of_a_walk_is_found(tmp_path, capsys):
    """Before: verify overlooked it."""
    terms = {**PLAIN, "space": {"size": (0.5, 2.0)}, "fix": {"window": 5}, "trials": 4}
    spans = {"train": "50d", "test": "20d", "sampler": "sobol", "robust": False}
    bt.walk_forward(make_market(90), Lever, **terms, **spans, store=tmp_path)
    assert call(capsys, "results", "verify", "--results", tmp_path)[0] == 0
    names = ("*/accounts/result/provenance.json", "*/provenance.json")
    paths = [next(tmp_path.glob(name)) for name in names]
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[:-9])
        code, out, _ = call(capsys, "results", "verify", "--results", tmp_path)
        assert (code, path.name in out) == (1, True), (path, out)
        path.write_bytes(content)
