"""Words that no command expects: each is one clear error, with exit code 2, and at once."""

import pytest

from tests.commands import call

NINES = "9" * 400
BARS = "time,open,high,low,close,volume\n" + "".join(
    f"2024-01-01 {hour:02d}:00,1,2,1,1.5,3\n" for hour in range(24)
)
FILES = {
    "preset.toml": "[venue]\npreset = 1\n",
    "zone.toml": '[data]\npath = "bars.csv"\ntimezone = ""\n',
    "huge.toml": "[account]\ncapital = 0x" + "f" * 5_000 + "\n",
    "digits.toml": "[account]\ncapital = " + "9" * 5_000 + "\n",
    "deep.toml": "a = " + "[" * 5_000 + "\n",
    "nul.toml": '[data]\npath = "a\\u0000b"\n',
    "bars.csv": BARS,
}


@pytest.mark.parametrize(("words", "told"), [
    (["preset.toml"], "[venue] preset must be text, got 1"),
    (["zone.toml"], "timezone must be the name of a zone, got ''"),
    (["--data", "bars.csv", "--timezone", ""], "timezone must be the name of a zone, got ''"),
    (["huge.toml"], "must fit into 64 bits"),
    (["digits.toml"], "too many digits"),
    (["deep.toml"], "nested too deeply"),
    (["nul.toml"], "must hold no NUL"),
    (["--policy", "VolTarget(self=1)"], "VolTarget has no parameter 'self'"),
    (["--policy", f"VolTarget(target={NINES})"], "target must be 0.05 to 2"),
    (["--policy", f"VolTarget(target=0x{'f' * 3_900})"], "target must be 0.05 to 2"),
    (["--set", f"target={NINES}"], "target must be 0.05 to 2"),
    (["--capital", NINES], "capital must be finite, got inf"),
    (["--policy", f"VolTarget(target={'-' * 3_000}1)"], "must be written as calls"),
    (["--policy", "VolTarget" + "(" * 200], "must be written as calls"),
    (["--policy", "Capped(" * 400 + "VolTarget()" + ")" * 400], "must be written as calls"),
    (["--policy", "a" * 100_000], "at most 4,000 letters, got 100,000"),
    (["--policy", "VolTarget(" + "a" * 100_000], "at most 4,000 letters, got 100,010"),
], ids=range(17))  # fmt: skip
def test_a_word_that_cannot_be_is_one_error(tmp_path, monkeypatch, capsys, words, told):
    """Before: tracebacks; and a policy of 100,000 letters was compared for twenty seconds."""
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    code, out, err = call(capsys, "run", "--no-save", *words)
    assert (code, out) == (2, "")
    assert told in err
    assert err.startswith("error: ")
    assert err.count("error:") == err.count("where:") == err.count("cure:") == 1


OVERLAY = ["--overlay", "vol-target", "--timezone", "UTC", "--instrument", "BTCUSDT"]
CASCADE = ["cascade", "--open-interest", "1e6", "--shock", "-0.1"]
CROWD = ["crowd", "--open-interest", "1e6"]


@pytest.mark.parametrize(("command", "words"), [
    *((each, ["--currency", "USDT"]) for each in (["bounds"], CASCADE)),
    *((each, OVERLAY) for each in (CASCADE, CROWD)),
])  # fmt: skip
def test_what_only_several_instruments_have_is_refused(
    tmp_path, monkeypatch, capsys, command, words
):
    """Before: a TypeError for --currency, and --overlay was ignored."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bars.csv").write_text(BARS)
    code, out, err = call(capsys, *command, "--data", "bars.csv", *words)
    assert (code, out) == (2, "")
    assert "is for several instruments" in err or "is about one position, got an overlay" in err
    assert err.count("error:") == err.count("where:") == err.count("cure:") == 1


BTC = ["--instrument", "BTCUSDT"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # no marks, short spans
@pytest.mark.parametrize("command", ["walk-forward", "cross-validate", "schedules"])
def test_a_store_with_a_long_name_is_one_error(tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    rows = "".join(
        f"2024-01-{1 + k // 24:02d} {k % 24:02d}:00,1,2,1,1.5,3\n" for k in range(24 * 25)
    )
    (tmp_path / "bars.csv").write_text(BARS.split("\n")[0] + "\n" + rows)
    spans = {
        "walk-forward": ["--train", "9d", "--test", "9d"],
        "cross-validate": ["--groups", "2", "--test-groups", "1"],
        "schedules": ["--train", "9d", "--test", "9d"],
    }[command]
    words = [
        "--data",
        "bars.csv",
        "--timezone",
        "UTC",
        "--no-compile",
        *spans,
        "--results",
        "a" * 5_000,
    ]
    code, out, err = call(capsys, "validate", command, *words)
    assert (code, out) == (2, "")
    assert "File name too long" in err
    assert err.count("error:") == err.count("where:") == err.count("cure:") == 1
