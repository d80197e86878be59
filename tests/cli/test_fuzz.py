"""Experiments and files that are damaged end in an answer or in one error, never in a traceback."""

import datetime as dt
import functools
import json
import math
import random
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.strategies import Constant
from tests.kit import call

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))
VALUES = (
    -1, 0, 1, 2.5, 1e308, 2**62, math.nan, math.inf, True, "", "x", "sample", "1h", "2030-01-01",
    dt.date(2023, 1, 5), dt.datetime(2030, 1, 1, tzinfo=dt.UTC), [], {}, [1, "x"], [[]], {"a": 1},
    {"time": ["2023-01-01T00:00:00Z"], "value": [2.0]}, "log:1:2", "Capped(VolTarget(), cap=2)",
)  # fmt: skip
TYPED = ("[", "]]", "{", "'", "#", ".", "\n", "9" * 400, "é", "\x1b", "\0", "[" * 3_000)


def dump(value: Any) -> str:
    match value:
        case dict():
            return f"{{{', '.join(f'{json.dumps(key)} = {dump(value[key])}' for key in value)}}}"
        case list():
            return f"[{', '.join(map(dump, value))}]"
        case dt.date():
            return value.isoformat()
        case float() if not math.isfinite(value):
            return str(value)
    return json.dumps(value)


def list_places(holder: Any) -> list[tuple[Any, Any]]:
    if not isinstance(holder, dict | list):
        return []
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    return [each for key in keys for each in [(holder, key), *list_places(holder[key])]]


def mutate(tables: dict[str, Any], chance: random.Random) -> None:
    holder, key = chance.choice(list_places(tables))
    value = holder[key]
    match chance.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            place = chance.randrange(len(key) + 1)
            holder[key[:place] + key[place + 1 :] + "_" * (len(key) == 1)] = holder.pop(key)
        case 2:
            holder[key] = {key if isinstance(key, str) else "a": value}
        case 3:
            holder[key] = value[0] if isinstance(value, list) and value else [value]
        case 4 if isinstance(holder, dict):  # under another table
            other, place = chance.choice(list_places(tables))
            if isinstance(other[place], dict):
                other[place][key] = json.loads(json.dumps(value, default=str))
        case 5 if isinstance(value, int | float):
            holder[key] = str(value)
        case _:
            holder[key] = chance.choice(VALUES)


def stop_at(function: Any) -> Any:
    @functools.wraps(function)  # flags are made of its signature
    def stop(*_: object, **__: object) -> None:
        raise typer.Exit

    return stop


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(80))
def test_a_mutated_example_is_read_or_refused(capsys, folder, monkeypatch, seed):
    """Experiments are read as their command does, up to the run."""
    for name in ("run", "sweep", "tune", "compare"):
        monkeypatch.setattr(bt, name, stop_at(getattr(bt, name)))
    chance = random.Random(seed)
    file = EXAMPLES[seed % len(EXAMPLES)]
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    words = ["compare"] * ("compare" in tables)
    for _ in range(chance.randint(1, 2)):
        mutate(tables, chance)
    for name in ("data", "examples"):
        (folder / name).mkdir()
    for name in ("data/sample-1h", "examples/data", "examples/policy-repo"):
        (folder / name).symlink_to(ROOT / name)
    text = "\n".join(f"{json.dumps(key)} = {dump(tables[key])}" for key in tables)
    if seed % 10 == 0:  # the text itself is damaged
        at = chance.randrange(len(text) + 1)
        text = text[:at] + chance.choice(TYPED) + text[at:]
    (folder / "examples" / file.name).write_text(text, encoding="utf-8")
    words = words or [chance.choice(["run", "sweep", "tune"])]
    check(capsys, *words, f"examples/{file.name}", codes=(0, 2))


DAMAGE = ("cut", "flip", "double", "void", "zero")
SHORT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """Return a folder with bars in four formats and a saved run, as the working directory."""
    bars = bt.Market.sample(bars=48).bars().rename_axis("time").reset_index()
    bars.to_csv(tmp_path / "bars.csv", index=False)
    bars.to_csv(tmp_path / "bars.zip", index=False)
    bars.to_parquet(tmp_path / "bars.parquet")
    bars.to_feather(tmp_path / "bars.feather")
    terms = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account()}
    run = bt.run(bt.Market.sample(bars=48), Constant(), **terms, compile=False)
    run.save(tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(capsys, *words, codes=(0, 1, 2)):
    """Run a command: 1 says that no set has won, or that a saved file was changed."""
    code, _, err = call(capsys, *words)
    assert code in codes, err
    assert "Traceback" not in err
    assert (code == 2) == ("error: " in err)


def damage(content, kind, place):
    at = int(place * (len(content) - 1))
    flipped = content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :]
    kinds = {"cut": content[:at], "flip": flipped, "double": content * 2, "void": b""}
    return kinds.get(kind, content[:at] + b"\0" * 40 + content[at:])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["bars.csv", "bars.zip", "bars.parquet", "bars.feather", "run"])
def test_a_damaged_file_is_read_or_refused(desk, capsys, name):
    folder = next((desk / "results").glob("*-*"))
    paths = sorted(folder.iterdir()) if name == "run" else [desk / name]
    sound = {path: path.read_bytes() for path in paths}

    @settings(SHORT, max_examples=20)
    @given(st.sampled_from(paths), st.sampled_from(DAMAGE), st.floats(0, 1))
    def read(path, kind, place):
        path.write_bytes(damage(sound[path], kind, place))
        if name == "run":
            check(capsys, "results", "verify")
            check(capsys, "results", "list")
            check(capsys, "report", folder, "--out", desk / "page.html")
        else:
            check(capsys, "run", "--data", name, "--no-save", "--no-compile")
        path.write_bytes(sound[path])

    read()
