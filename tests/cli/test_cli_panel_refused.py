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
    "unknown instrument": (lambda: build(data=["data"], instrument=["BTCUSDT", "ETHUSD"]),
        "must be among the data, got 'ETHUSD'; did you mean 'ETHUSDT'"),
    "sample and folder": (lambda: build(data=["sample:1", "data/X"]), "got sample:1, data/X"),
    "no weights": (lambda: build(data=FOLDERS, weights="w.csv"), "a file of weights must exist"),
    "unknown column": (lambda: build(data=FOLDERS, weights=write("w.csv", f"time,BTC\n{ROW},1\n")),
        "got one of 'BTC'"),
    "infinite": (lambda: build(data=FOLDERS, weights=write("w.csv", f"time,BTCUSDT\n{ROW},inf\n")),
        "must be finite"),
    "elsewhere": (
        lambda: build(data=FOLDERS, weights=write("w.csv", "time,BTCUSDT\n2022-01-01T00:00Z,1\n")),
        "a row inside the panel"),
    "policy missing": (lambda: build(f"{DATA}policy.BTCUSDT = {{name = 'cppi'}}"),
        "each instrument must have a policy, 'ETHUSDT' has none"),
    "misspelled key": (
        lambda: build(f"{DATA}policy = {{name = 'constant', setings = {{target = 1}}}}"),
        "[policy] has no 'setings'; did you mean 'settings'"),
    "venue of nobody": (lambda: build(f"{DATA}venue.XRPUSDT = {{preset = 'bybit-linear:XRPUSDT'}}"),
        "got one of 'XRPUSDT'"),
    "start before the data": (lambda: build(data=FOLDERS, start="2022-01-01"), "inside the data"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_experiments_are_refused_with_a_cure(case):
    check_refused(*BAD[case])
