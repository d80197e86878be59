"""A store with one result of each kind, and a copy of it to be damaged."""

import shutil
from pathlib import Path

import pytest

import backtest as bt
from backtest.strategies import Constant, VolTarget
from tests.kit import compare_policies
from tests.store.stores import DAYS, VENUE, live
from tests.tuning import seek, stand_in


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Return a store with one result of each kind, made once."""
    store = tmp_path_factory.mktemp("made")
    short = bt.Market.sample(bars=24 * 5)
    terms = {"venue": VENUE, "account": bt.Account(), "compile": False}
    live(VolTarget()).save(store)
    live(Constant(leverage=1.0)).save(store)
    bt.sweep(short, VolTarget, {"target": [0.2, 0.4]}, **terms).save(store)
    market = bt.Market.sample(bars=24 * DAYS)
    both = {"vol-target": VolTarget(), "constant": Constant()}
    compare_policies(market, both, draws=99, **terms).save(store)
    with pytest.MonkeyPatch.context() as patch:
        stand_in(put=patch.setattr)
        seek(store=store, trials=40)
    return store


@pytest.fixture
def store(made, tmp_path):
    """Return a copy of the store that may be damaged."""
    return Path(shutil.copytree(made, tmp_path / "results"))
