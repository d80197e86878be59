"""The command line, the store and the reports know validations, killed ones too."""

import importlib
import os
import signal
from pathlib import Path

import pytest

import backtest as bt
from backtest import results
from backtest.cli import main
from backtest.core import UNFINISHED
from backtest.sweep import Evaluator, count_sets
from tests.kills import NEVER, die_at
from tests.kit import ask_test, check_refused, slow
from tests.validation.worlds import POLICY, TERMS, Lever, make_market, read_all

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
SEARCH = ["--trials", "6"]
COMMANDS = {
    "walk-forward": [
        *("--train", "60d", "--test", "30d", "--sampler", "sobol"),
        *("--set", "validate.robust=false"),
    ],
    "cross-validate": ["--groups", "2", "--test-groups", "1", "--embargo", "0"],
}
KINDS = {"walk-forward": "walk-forward", "cross-validate": "cross-validation"}
MARKET = make_market(90)  # two folds
SMALL = {"trials": 4, "robust": False, "sampler": "sobol", "train": "50d", "test": "20d"}
SPACE = {"space": {"size": (0.5, 2.0)}, "fix": {"window": 5}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validate")
    make_market(130).save(folder / "data")
    (folder / "held.py").write_text(POLICY)
    return folder


def call(place: Path, command: str, *more: str) -> int:
    policy = ["--policy", f"{place / 'held.py'}:Held"]
    words = ["validate", command, "--data", str(place / "data"), *policy, *COMMANDS[command]]
    return main([*words, *SEARCH, "--results", str(place / "results"), *more])


@pytest.mark.parametrize("command", ["cross-validate", *slow(["walk-forward"])])
def test_a_validation_is_run_listed_verified_shown_and_reported(place, command, capsys):
    assert call(place, command) == 0
    assert capsys.readouterr().out.startswith("Held")
    saved = results.list_results(place / "results")
    entry = next(entry for entry in saved if entry.kind == KINDS[command])
    assert not entry.trouble
    assert entry.title == "Held over size"
    assert entry.metrics

    folder = place / "results" / entry.name
    check = results.verify_folder(folder)
    assert check.faults == ()
    assert check.remarks == ()
    assert results.read_entry(folder).id == results.load_saved(folder).manifest["id"]

    page = results.load_saved(folder).report(place / f"{command}.md").read_text()
    assert results.load_saved(folder).verdict.lower() in page.lower()

    assert main(["results", "show", entry.id, "--results", str(place / "results")]) == 0
    assert "backtest validate" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "text"), [
    (["walk-forward", "--train", "6d"], "200 bars"),
    (["walk-forward", "--train", "60d", "--resume"], "no walk-forward of Held of these"),
    (["cross-validate", "--groups", "2", "--test-groups", "1", "--embargo", "nan"], "embargo"),
])  # fmt: skip
def test_bad_input_is_refused_with_code_2_and_leaves_nothing(place, tmp_path, words, text, capsys):
    base = ["--data", str(place / "data"), "--policy", f"{place / 'held.py'}:Held", *SEARCH]
    assert main(["validate", *words, *base, "--results", str(tmp_path / "r")]) == 2
    assert text in capsys.readouterr().err

    assert list(tmp_path.rglob("r/*")) == []


def walk(store: Path, **more):
    return ask_test("walk_forward", MARKET, Lever, **TERMS, **SMALL, **SPACE, store=store, **more)


def kill_this_process(done, total):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def begun(tmp_path):
    store = tmp_path / "killed"
    assert die_at(NEVER, lambda: walk(store, progress=kill_this_process)) == -signal.SIGKILL
    return store


def test_a_cross_validation_killed_after_a_batch_ends_at_the_same_bytes(tmp_path, monkeypatch):
    """Six sets, four at a time in three groups: what is stored is not run again."""
    monkeypatch.setattr(importlib.import_module("backtest.search.cross_validate"), "CHUNK", 4)
    run = Evaluator.evaluate
    sizes = []

    def count(self, sets, **terms):
        sizes.append(count_sets(sets))
        return run(self, sets, **terms)

    some = {"groups": 3, "test_groups": 1, "trials": 6, "embargo": 0, **SPACE}
    market = make_market(160)

    def validate(store, **more):
        return ask_test("cross_validate", market, Lever, **TERMS, **some, store=store, **more)

    made = validate(tmp_path / "whole")
    begun = tmp_path / "killed"
    end = die_at(NEVER, lambda: validate(begun, progress=kill_this_process))

    assert end == -signal.SIGKILL
    entry = next(each for each in results.list_results(begun) if each.kind == "cross-validation")
    assert entry.note == "3 batches of sets"
    assert entry.is_finished is False
    assert entry.trouble == ""
    assert not results.verify_folder(begun / entry.name).faults
    check_refused(lambda: validate(begun), "already started", bt.ParameterError)

    max((begun / entry.name).rglob("[0-9]*.parquet")).unlink()  # killed between two groups
    monkeypatch.setattr(Evaluator, "evaluate", count)
    assert validate(begun, resume=True).summary() == made.summary()
    assert sizes == [4, 2, 2, 2]  # the last group of the first four, and all of the other two

    assert read_all(begun) == read_all(tmp_path / "whole")

    given_back = validate(begun, resume=True, progress=kill_this_process)
    assert given_back.summary() == made.summary()


def test_an_unfinished_walk_is_listed_and_pruned_only_when_asked(begun):
    entry = next(each for each in results.list_results(begun) if each.kind == "walk-forward")
    assert entry.name[:12] == UNFINISHED
    assert entry.policy == "Lever"
    assert entry.instrument == "RANDOM"
    assert entry.note == "in fold 1 of 2"
    assert entry.is_finished is False
    assert entry.trouble == ""
    assert not results.verify_folder(begun / entry.name).faults

    with pytest.raises(bt.DataError, match=r"must be finished .* resume=True"):
        results.load_saved(begun / entry.name)
    check_refused(lambda: walk(begun), "already started", bt.ParameterError)

    assert not results.choose_deletions(begun, results.Filter())[0]
    (begun / "notes").mkdir()
    (begun / "notes" / "mine.txt").touch()
    chosen, _ = results.choose_deletions(begun, None, with_unfinished=True)
    assert results.delete_chosen(begun, chosen) == ([entry.name], [])
    assert {each.name for each in begun.iterdir() if each.is_dir()} == {"notes"}
