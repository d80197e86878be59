"""Experiments of several instruments that are refused, each with one cure."""

import pytest

from tests.cli.test_cli_panel import (  # noqa: F401 - fixtures among them
    DATA,
    FOLDERS,
    build,
    folder,
    stored,
    write,
)  # fmt: skip
from tests.refusals import check_refused

ROW = "2023-01-01T00:00:00Z"


BAD = {
    "no such folder": (lambda: build(data=["data/BTCUSDT", "data/X"]), "must exist"),
    "folder and file": (lambda: build(data=["data/BTCUSDT", "data/ETHUSDT/mark.parquet"]),
        "overlap|one currency|bars|mark"),
    "unknown instrument": (lambda: build(data=["data"], instrument=["BTCUSDT", "ETHUSD"]),
        "must be among the data, got 'ETHUSD'; did you mean 'ETHUSDT'"),
    "instrument twice": (lambda: build(data=["data"], instrument=["BTCUSDT", "BTCUSDT"]),
        "each instrument is given once"),
    "instruments of a sample": (lambda: build(instrument=["A", "B"]), "sample takes no instrument"),
    "sample twice": (lambda: build(data=["sample", "sample:0"]), "the seed, got sample, sample:0"),
    "sample and folder": (lambda: build(data=["sample:1", "data/X"]), "got sample:1, data/X"),
    "seed as text": (lambda: build(data=["sample:x"]), "whole number as the seed, got sample:x"),
    "signal": (lambda: build(data=FOLDERS, signal="-1"), "the signal of several instruments must"),
    "weights of one": (lambda: build(data=FOLDERS[:1], weights="w.csv"), "weights is for several"),
    "currency of one": (lambda: build(data=FOLDERS[:1], currency="USD"), "[data] currency is for"),
    "carry alone": (lambda: build(data=FOLDERS, carry_weights=True), "of a file, got none"),
    "no weights": (lambda: build(data=FOLDERS, weights="w.csv"), "a file of weights must exist"),
    "unknown column": (lambda: build(data=FOLDERS, weights=write("w.csv", f"time,BTC\n{ROW},1\n")),
        "of an instrument of the panel, got one of 'BTC'"),
    "column twice": (
        lambda: build(data=FOLDERS, weights=write("w.csv", f"time,BTCUSDT,BTCUSDT\n{ROW},1,2\n")),
        "each instrument must have one column, 'BTCUSDT' has 2"),
    "preset of one": (lambda: build(f"{DATA}venue.BTCUSDT = {{preset = 0.5}}"),
        "preset of BTCUSDT must be text, got 0.5"),
    "words": (lambda: build(data=FOLDERS, weights=write("w.csv", f"time,BTCUSDT\n{ROW},long\n")),
        "BTCUSDT"),
    "infinite": (lambda: build(data=FOLDERS, weights=write("w.csv", f"time,BTCUSDT\n{ROW},inf\n")),
        "must be finite"),
    "no zone": (lambda: build(data=FOLDERS, weights=write("w.csv", "time,BTCUSDT\n2023-01-01,1\n")),
        "time zone"),
    "no times": (lambda: build(data=FOLDERS, weights=write("w.csv", "BTCUSDT\n1\n")), "time"),
    "elsewhere": (
        lambda: build(data=FOLDERS, weights=write("w.csv", "time,BTCUSDT\n2022-01-01T00:00Z,1\n")),
        "a row inside the panel"),
    "no text": (lambda: build(data=FOLDERS, weights=write("w.txt", "x")), "a file must end in"),
    "policy of nobody": (
        lambda: build(f"{DATA}policy = {{name = 'constant', XRPUSDT = {{name = 'cppi'}}}}"),
        "a table must be of an instrument of the data, got one of 'XRPUSDT'"),
    "policy missing": (lambda: build(f"{DATA}policy.BTCUSDT = {{name = 'cppi'}}"),
        "each instrument must have a policy, 'ETHUSDT' has none"),
    "unknown policy": (
        lambda: build(f"{DATA}policy = {{name = 'constant', BTCUSDT = {{name = 'cpp'}}}}"), "cpp"),
    "misspelled key": (
        lambda: build(f"{DATA}policy = {{name = 'constant', setings = {{target = 1}}}}"),
        "[policy] has no 'setings'; did you mean 'settings'"),
    "unknown setting": (
        lambda: build(
            f"{DATA}policy.BTCUSDT = {{name = 'cppi', set = 1}}\npolicy.ETHUSDT = {{name = 'cppi'}}"
        ),
        "[policy.BTCUSDT] has no 'set'",
    ),
    "policies of one": (lambda: build("policy.BTCUSDT = {name = 'cppi'}"), "policy] BTCUSDT is"),
    "venue of one": (lambda: build("venue.BTCUSDT = {preset = 'bybit-linear:BTCUSDT'}"),
        "venue] BTCUSDT is for several instruments"),
    "overlay without a name": (lambda: build(f"{DATA}overlay = {{settings = {{}}}}"), "a name"),
    "venue of nobody": (lambda: build(f"{DATA}venue.XRPUSDT = {{preset = 'bybit-linear:XRPUSDT'}}"),
        "got one of 'XRPUSDT'"),
    "no such symbol": (lambda: build(f"{DATA}venue.ETHUSDT = {{preset = 'bybit-linear:NOPEUSDT'}}"),
        "NOPEUSDT"),
    "no symbol of one": (lambda: build(f"{DATA}venue.preset = 'dydx'"), "dydx has none of"),
    "start before the data": (lambda: build(data=FOLDERS, start="2022-01-01"), "inside the data"),
    "calendar": (lambda: build(data=FOLDERS, sessions=True, to="2024-01-01"), "inside the panel"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_experiments_are_refused_with_a_cure(case):
    check_refused(*BAD[case])
