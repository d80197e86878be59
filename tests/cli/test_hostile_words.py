"""Words that no command expects: each is one clear error, with exit code 2, and at once."""

from __future__ import annotations

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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["preset.toml"], "[venue] preset must be a text, was 1"),
        (["zone.toml"], "timezone must be the name of a zone, was ''"),
        (["--data", "bars.csv", "--timezone", ""], "timezone must be the name of a zone, was ''"),
        (["huge.toml"], "must fit into 64 bits"),
        (["digits.toml"], "too many digits"),
        (["deep.toml"], "nested too deeply"),
        (["nul.toml"], "must hold no NUL"),
        (["--policy", "VolTarget(self=1)"], "VolTarget has no parameter 'self'"),
        (["--policy", f"VolTarget(target={NINES})"], "target must be 0.05 to 2"),
        (["--policy", f"VolTarget(target=0x{'f' * 3_900})"], "target must be 0.05 to 2"),
        (["--set", f"target={NINES}"], "target must be 0.05 to 2"),
        (["--capital", NINES], "capital must be finite, was inf"),
        (["--policy", f"VolTarget(target={'-' * 3_000}1)"], "must be written as calls"),
        (["--policy", "VolTarget" + "(" * 200], "must be written as calls"),
        (["--policy", "Capped(" * 400 + "VolTarget()" + ")" * 400], "must be written as calls"),
        (["--policy", "a" * 100_000], "at most 4,000 letters, was 100,000"),
        (["--policy", "VolTarget(" + "a" * 100_000], "at most 4,000 letters, was 100,010"),
    ],
    ids=range(17),
)
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
