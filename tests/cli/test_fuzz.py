"""Experiments and files that are damaged end in an answer or in one error, never in a traceback."""

import functools
import random
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


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(80))
def test_a_mutated_example_is_read_or_refused(capsys, folder, monkeypatch, seed):
    """Experiments are read as their command does, up to the run."""
    for name in ("run", "sweep", "tune", "compare"):
        monkeypatch.setattr(bt, name, stop_at(getattr(bt, name)))
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
    check(capsys, chance.choice(words), f"examples/{file.name}", codes=(0, 2))


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
