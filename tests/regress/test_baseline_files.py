"""The files of a baseline: the same bytes, edits by hand, damage, and rewriting."""

import json
import re

import pytest

from backtest.base.errors import DataError, ParameterError
from backtest.regress import (
    baseline,
    load_baseline,
    rewrite_baseline,
    save_baseline,
)
from backtest.regress.baseline import find_baselines, name_baseline
from backtest.regress.trace import Band
from backtest.regress.verdict import combine_exit_codes
from tests.regress.baselines import run, take


def test_the_same_run_makes_the_same_bytes_sorted_and_indented(was, tmp_path):
    one, two = (save_baseline(each, tmp_path / name) for each, name in ((was, "a"), (take(), "b")))
    names = sorted(path.name for path in one.parent.iterdir())
    assert names == sorted(path.name for path in two.parent.iterdir())
    for name in names:
        assert (one.parent / name).read_bytes() == (two.parent / name).read_bytes()
    text = one.read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    document = json.loads(text)
    assert document["metrics"]["sharpe"]["tolerance"] == {"relative": 1e-9}


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=1, sort_keys=True))


def test_tolerances_and_mode_may_be_edited_by_hand_and_nothing_else(was, tmp_path):
    path = save_baseline(was, tmp_path)
    edit(path, lambda data: data["metrics"]["sharpe"].update(tolerance="5%"))
    edit(path, lambda data: data.update(mode="tolerance"))
    back = load_baseline(path)
    assert back.bands["sharpe"] == Band(relative=0.05)
    assert back.mode == "tolerance"
    edit(path, lambda data: data["metrics"]["sharpe"].update(value=3.0))
    with pytest.raises(DataError, match="changed by hand"):
        load_baseline(path)


DAMAGE = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:400]),
    "another format": lambda path: edit(path, lambda data: data.update(format=7)),
    "not finite": lambda path: path.write_text(path.read_text().replace("10000.0", "NaN", 1)),
    "no tolerance": lambda path: edit(path, lambda data: data["metrics"]["fees"].pop("tolerance")),
    "half the bars": lambda path: [
        bars.write_bytes(bars.read_bytes()[:9000]) for bars in path.parent.glob("*.parquet")
    ],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_baseline_is_refused(damage, was, tmp_path):
    DAMAGE[damage](save_baseline(was, tmp_path))
    (path,) = tmp_path.glob("*.json")
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}")):
        load_baseline(path)


@pytest.mark.slow
def test_a_writer_that_fails_anywhere_leaves_the_old_baseline(was, tmp_path, monkeypatch):
    path = save_baseline(was, tmp_path)
    write = baseline.write_file
    for stage in (1, 2):
        calls = []

        def full(target, content, calls=calls, stage=stage):
            calls.append(target)
            if len(calls) == stage:
                raise OSError(28, "No space left on device")
            write(target, content)

        monkeypatch.setattr(baseline, "write_file", full)
        with pytest.raises(DataError, match="No space left"):
            save_baseline(take(run(leverage=3.0)), tmp_path)
        assert not load_baseline(path).is_other_than(was)
    monkeypatch.setattr(baseline, "write_file", write)
    save_baseline(take(run(leverage=3.0)), tmp_path)
    assert load_baseline(path).is_other_than(was)
    assert not list(tmp_path.glob(".new-*"))


def test_a_rewritten_baseline_keeps_reason_old_values_tolerances_and_mode():
    held = take(mode="tolerance", tolerance={"sharpe": 0.5}, experiment="../calm.toml")
    renewed = rewrite_baseline(held, take(run(leverage=3.0)), " bolder ")
    assert renewed.bands == held.bands
    assert (renewed.mode, renewed.experiment) == ("tolerance", "../calm.toml")
    (entry,) = renewed.history
    assert entry["reason"] == "bolder"
    assert entry["metrics"]["sharpe"] == held.metrics["sharpe"]
    assert "policy.settings.leverage: 2.0 -> 3.0" in entry["changed"]
    assert len(rewrite_baseline(renewed, held, "back").history) == 2
    with pytest.raises(ParameterError, match="needs a reason"):
        rewrite_baseline(held, held, "  ")


def test_no_baseline_at_all_is_no_pass(tmp_path):
    with pytest.raises(DataError, match="no baseline to check"):
        find_baselines([tmp_path])
    with pytest.raises(DataError, match="there is no baseline"):
        find_baselines([tmp_path / "gone.json"])
    assert combine_exit_codes([]) == 2


def test_names_of_files_are_harmless():
    assert name_baseline("../../x") == "x"
    assert name_baseline("<script>") == "script"
    assert name_baseline("\u202e" + "a" * 10_000) == "a" * 100
    assert name_baseline("///") == "baseline"
