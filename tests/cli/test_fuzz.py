"""Experiments that are damaged end in an answer or in one error, never in a traceback."""

import functools
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer

import backtest as bt
from backtest.cli.experiment import MODELS, TABLES, read_keys
from tests.kit import call

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
VALUES = (
    "-1", "0", "1", "2.5", "1e308", "4611686018427387904", "nan", "inf", "true", '""', '"x"',
    '"sample"', '"1h"', '"2030-01-01"', "2023-01-05", "2030-01-01T00:00:00Z", "[]", "{}",
    '[1, "x"]', "[[]]", "{a = 1}", '{time = ["2023-01-01T00:00:00Z"], value = [2.0]}',
    '"log:1:2"', '"Capped(VolTarget(), cap=2)"',
)  # fmt: skip
TYPED = ("[", "]]", "{", "'", "#", ".", "\n", "9" * 400, "é", "\x1b", "\0", "[" * 3_000)


def mutate(lines: list[str], chance: random.Random) -> None:
    """Delete, double or move a line, or spoil its key or its value."""
    k = chance.randrange(len(lines))
    line = lines.pop(k)
    key, _, value = line.partition(" = ")
    cut = chance.randrange(len(key) + 1)
    spoilt = [
        "", f"{line}\n{line}", f"{key[:cut]}{key[cut + 1 :]}_ = {value}", f"{key} = [{value}]",
        f"{key} = {{a = {value}}}", line[:cut] + chance.choice(TYPED) + line[cut:],
        *(f"{key} = {each}" for each in chance.sample(VALUES, 6)),
    ]  # fmt: skip
    place = chance.choice([k, k, k, chance.randrange(len(lines) + 1)])
    lines.insert(place, chance.choice(spoilt) if place == k else line)


def stop_at(function: Any) -> Any:
    @functools.wraps(function)  # flags are made of its signature
    def stop(*_: object, **__: object) -> None:
        raise typer.Exit

    return stop


def stop_all(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    for name in names:
        for owner in (bt, bt.Backtest) if hasattr(bt.Backtest, name) else (bt,):
            monkeypatch.setattr(owner, name, stop_at(getattr(owner, name)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(80))
def test_a_mutated_example_is_read_or_refused(capsys, folder, monkeypatch, seed):
    """Experiments are read as their command does, up to the run."""
    stop_all(monkeypatch, ("run", "sweep", "tune", "compare"))
    chance = random.Random(seed)
    file = EXAMPLES[seed % len(EXAMPLES)]
    lines = [each for each in file.read_text(encoding="utf-8").splitlines() if each.strip()]
    words = ["compare"] if "[compare" in "\n".join(lines) else ["run", "sweep", "tune"]
    for _ in range(chance.randint(1, 2)):
        mutate(lines, chance)
    for name in ("data", "examples"):
        (folder / name).mkdir()
    for name in ("data/sample-1h", "examples/data", "examples/policy-repo"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "examples" / file.name).write_text("\n".join(lines), encoding="utf-8")
    code, _, err = call(capsys, chance.choice(words), f"examples/{file.name}")
    assert code in (0, 2), err
    assert "Traceback" not in err
    assert (code == 2) == ("error: " in err)


# What each table is read by, and what it needs beside the key that is spoilt.
COMMANDS = {
    **dict.fromkeys(("sweep", "tune", "compare", "stress", "sensitivity", "capacity", "cascade",
                     "timing", "decide", "replay")),
    "validate": "validate walk", "paths": "risk", "risk": "risk",
}  # fmt: skip
BESIDE = {
    "data": {"path": '"sample"', "to": "2023-01-03"},
    "sweep": {"values": "{target = [0.3]}"},
    "tune": {"space": '{target = "0.1:0.4"}'},
    "validate": {"space": '{target = "0.1:0.4"}', "train": '"20h"', "test": '"10h"'},
    "compare": {"policies": '{a = {name = "constant"}, b = {name = "vol-target"}}'},
    "decide": {"snapshot": f"'{ROOT / 'examples' / 'account.json'}'"},
    "replay": {"fills": f"'{ROOT / 'examples' / 'fills.csv'}'"},
}
FUNCTIONS = ("run", "sweep", "tune", "walk_forward", "compare", "liquidation_risk",
             "passing_probability", "stress",
             "sensitivity", "capacity", "timing_test", "cascade", "decide", "replay")  # fmt: skip
WRONG = ("1", "2.5", "nan", "true", '"x"', "[]", "[1]", '["x"]', "[[]]", "{}", "{x = 1}",
         "{x = {y = []}}", "2023-01-02")  # fmt: skip
PLACES = [(table, key) for table in (*TABLES, *MODELS) for key in read_keys(table)]
CASES = [
    *((*place, WRONG[k % len(WRONG) :][:1]) for k, place in enumerate(PLACES) if k % 9 == 0),
    *(pytest.param(*place, WRONG, marks=pytest.mark.slow) for place in PLACES),
]
PLACES += [("venue", name) for name in ("A", "A.preset", "A.fees", "BTCUSDT.contract")]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("table", "key", "values"), CASES)
def test_a_value_of_a_wrong_type_is_read_or_refused(
    capsys, tmp_path, monkeypatch, table, key, values
):
    """Every table and key of an experiment, up to the call of its function."""
    stop_all(monkeypatch, FUNCTIONS)
    file, words = tmp_path / "e.toml", (COMMANDS.get(table, "run") or table).split()
    for value in values:
        lines = {f"{name}.{each}": text for name in {"data", table}
                 for each, text in BESIDE.get(name, {}).items()}  # fmt: skip
        lines[f"{table}.{key}"] = value
        file.write_text("\n".join(f"{name} = {text}" for name, text in lines.items()))
        code, _, err = call(capsys, *words, file)
        assert code in (0, 2), (value, err)
        assert "Traceback" not in err, (value, err)
