"""A store with one result of each kind, and a copy of it to be damaged."""

import shutil
from pathlib import Path

import pytest

import backtest as bt
from backtest.results import list_results
from backtest.strategies import Constant, VolTarget
from tests.kit import AT_BINANCE, compare_policies
from tests.report.conftest import live
from tests.tuning import seek, stand_in
from tests.validation.worlds import TERMS

SEARCH = {**TERMS, "space": {"size": (0.5, 2.0)}, "fix": {"window": 5}, "trials": 4}
SPANS = {"train": "50d", "test": "20d", "sampler": "sobol", "robust": False}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    store = tmp_path_factory.mktemp("made")
    short = bt.Market.sample(bars=24 * 5)

    live(VolTarget()).save(store)
    live(Constant(leverage=1.0)).save(store)
    bt.Backtest(short, **AT_BINANCE).sweep(VolTarget, {"target": [0.2, 0.4]}).save(store)

    both = {"vol-target": VolTarget(), "constant": Constant()}
    compare_policies(bt.Market.sample(bars=24 * 40), both, draws=99, **AT_BINANCE).save(store)

    with pytest.MonkeyPatch.context() as patch:
        stand_in(put=patch.setattr)
        seek(store=store, trials=40)
    return store


@pytest.fixture
def store(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "results"))


def folder_of(store: Path, kind: str) -> Path:
    entry = next(entry for entry in list_results(store) if entry.kind == kind)
    return store / entry.name


def spoil(path: Path, change: str) -> None:
    content = path.read_bytes()
    match change:
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "deleted":
            path.unlink()
        case "flipped":
            data = bytearray(content)
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
