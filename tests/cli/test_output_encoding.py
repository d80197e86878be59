"""Output to streams that cannot write a letter degrades, and never raises."""

import io
import json
import sys

import pytest

import backtest as bt
from backtest.cli import main, printing
from tests.kit import slow


def write(monkeypatch, encoding: str, *arguments: str) -> tuple[int, str, str]:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    for name, stream in zip(("stdout", "stderr"), streams, strict=True):
        monkeypatch.setattr(sys, name, stream)

    code = main(list(arguments))
    for stream in streams:
        stream.flush()
        assert stream.errors == "strict"  # as it was

    written = [stream.buffer.getvalue().decode(encoding) for stream in streams]
    return code, *written


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8", "iso8859-15"])
def test_letters_that_a_stream_lacks_are_written_plainly(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    with printing.degrading_output():
        stream.write("\u00e9 \u2264 \u2192 \u00d7 \u2026 \u2500 \u20bf \udc80")
        stream.flush()

    text = stream.buffer.getvalue().decode(encoding)
    if encoding == "ascii":
        assert text.strip() == "e <= -> x ... - ? ?"


@pytest.mark.parametrize(("encoding", "command"), [
    ("latin-1", "policies"), *slow([("cp1252", "policies"), ("cp1252", "venues")]),
])  # fmt: skip
def test_commands_print_on_streams_of_one_byte(monkeypatch, encoding, command):
    code, out, err = write(monkeypatch, encoding, command)
    assert code == 0
    assert err == ""
    assert out


def test_an_error_is_written_on_a_stream_of_one_byte(monkeypatch):
    code, _, err = write(monkeypatch, "latin-1", "run", "--policy", "na\u00efve\u2192")
    assert code == 2
    assert "error" in err


def test_json_keeps_every_letter_as_an_escape(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    printing.print_json({"name": "\u03c3\u2192"})
    stream.flush()

    assert json.loads(stream.buffer.getvalue().decode("latin-1")) == {"name": "\u03c3\u2192"}


def test_a_summary_is_written_on_a_stream_of_one_byte(monkeypatch):
    test = bt.Backtest(
        bt.Market.sample(bars=200), venue="binance-usdm:BTCUSDT", account=bt.Account()
    )
    summary = test.run(bt.strategies.Constant(), compile=False).summary(verbose=True)

    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", stream)
    with printing.degrading_output():
        printing.typer.echo(summary)
    stream.flush()

    assert "Constant" in stream.buffer.getvalue().decode("cp1252")
