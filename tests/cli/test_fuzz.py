"""Experiments and files that are damaged end in an answer or in one error, never in a traceback."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import backtest as bt
from backtest.strategies import Constant
from tests.commands import call
from tests.fast_cases import first_only

EXPERIMENT = """
[data]
path = "bars.csv"
instrument = "BTCUSDT"
[policy]
name = "vol-target"
settings = { target = 0.3 }
[venue]
preset = "binance-usdm:BTCUSDT"
[account]
capital = 10_000
margin = "cross"
max_leverage = 3
band = 0.1
[run]
start = 2023-01-01T12:00:00Z
compile = false
[sweep]
values = { target = [0.1, 0.2] }
[tune]
objective = "sharpe"
trials = 4
sampler = "random"
space = { target = "0.1:1" }
"""
LINES = EXPERIMENT.strip().splitlines()
VALUES = ("-1", "0", "nan", "inf", "1e308", "true", '""', '"a\\u0000b"', "[]", "{}",
          "[1, 'x']", "2024-13-45", "2030-01-01", "0.1", "2", "9" * 400, "[" * 3_000)  # fmt: skip
TYPED = st.text("[]{}=\"'#.\n 9aé\x1b", min_size=1, max_size=3)
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


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("command", first_only(["run", "sweep", "tune"]))
def test_a_mutated_experiment_is_answered_or_refused(desk, capsys, command):
    flags = ["--no-compile", *["--no-save"] * (command == "run")]
    (desk / "x.toml").write_text(EXPERIMENT)
    check(capsys, command, "x.toml", *flags, codes=(0,))

    @settings(SHORT, max_examples=40)
    @given(st.integers(0, len(LINES) - 1), st.sampled_from((*VALUES, None, "")), TYPED, st.data())
    def mutate(place, value, typed, data):
        line, at = LINES[place], data.draw(st.integers(0, len(LINES[place])))
        name = line.partition("=")[0]
        changed = {None: line[:at] + typed + line[at:], "": f"{line}\n{line}"}
        mutated = [*LINES[:place], changed.get(value, f"{name}= {value}"), *LINES[place + 1 :]]
        (desk / "x.toml").write_text("\n".join(mutated), encoding="utf-8")
        check(capsys, command, "x.toml", *flags)

    mutate()


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
