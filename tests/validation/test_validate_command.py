"""The command line, the store and the reports know validations."""

from pathlib import Path

import pytest

from backtest.cli import main
from backtest.store import export_result, list_results, load_saved, read_entry, verify_folder
from tests.validation.worlds import POLICY, make_market

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SEARCH = ["--trials", "6", "--no-compile"]
COMMANDS = {
    "walk-forward": [
        *("--train", "60d", "--test", "30d", "--sampler", "sobol"),
        *("--set", "validate.robust=false"),
    ],
    "cross-validate": ["--groups", "2", "--test-groups", "1", "--embargo", "0"],
}
KINDS = {"walk-forward": "walk-forward", "cross-validate": "cross-validation"}


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


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(each, marks=() if each == "cross-validate" else pytest.mark.slow)
        for each in COMMANDS
    ],
)
def test_a_validation_is_run_listed_verified_shown_exported_and_reported(place, command, capsys):
    assert call(place, command) == 0
    assert capsys.readouterr().out.startswith("Held")
    entry = next(each for each in list_results(place / "results") if each.kind == KINDS[command])
    assert not entry.trouble
    assert entry.title == "Held over size"
    assert entry.metrics
    folder = place / "results" / entry.name
    check = verify_folder(folder)
    assert (check.faults, check.remarks) == ((), ())
    assert read_entry(folder).id == load_saved(folder).manifest["id"]
    out = export_result(folder, place / f"{command}.zip")
    assert out.is_file()
    page = load_saved(folder).report(place / f"{command}.md").read_text()
    assert load_saved(folder).verdict.lower() in page.lower()
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
    assert not (tmp_path / "r").exists() or not list((tmp_path / "r").iterdir())
