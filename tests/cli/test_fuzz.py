"""Values of a wrong type end in an answer or in one error, never in a traceback."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import typer

import backtest as bt
from backtest.cli.experiment import TABLES, read_keys
from backtest.experiments.tables import MODELS
from tests.kit import call

ROOT = Path(__file__).parents[2]


def stop_at(function: Any) -> Any:
    @functools.wraps(function)  # flags are made of its signature
    def stop(*_: object, **__: object) -> None:
        raise typer.Exit

    return stop


def stop_all(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> None:
    for name in names:
        if name in bt.__all__:
            monkeypatch.setattr(bt, name, stop_at(getattr(bt, name)))
        if hasattr(bt.Backtest, name):
            monkeypatch.setattr(bt.Backtest, name, stop_at(getattr(bt.Backtest, name)))


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
ONE_OF_EACH = dict(reversed(PLACES)).items()
CASES = [
    *((*place, WRONG[k % len(WRONG) :][:1]) for k, place in enumerate(ONE_OF_EACH)),
    *(
        pytest.param(*place, (2 * WRONG)[k % len(WRONG) :][:6], marks=pytest.mark.slow)
        for k, place in enumerate(PLACES)
    ),
]
PLACES += [("venue", name) for name in ("A", "A.preset", "A.fees", "BTCUSDT.contract")]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("table", "key", "values"), CASES)
def test_a_value_of_a_wrong_type_is_read_or_refused(
    capsys, tmp_path, monkeypatch, table, key, values
):
    """Every table and key of an experiment, up to the call of its function."""
    stop_all(monkeypatch, FUNCTIONS)
    file = tmp_path / "e.toml"
    words = (COMMANDS.get(table, "run") or table).split()

    beside = {}
    for name in ("data", table):
        for other, text in BESIDE.get(name, {}).items():
            beside[f"{name}.{other}"] = text

    for value in values:
        lines = {**beside, f"{table}.{key}": value}
        file.write_text("\n".join(f"{name} = {text}" for name, text in lines.items()))

        code, _, err = call(capsys, *words, file)
        assert code in (0, 2), (value, err)
        assert "Traceback" not in err, (value, err)
