"""A store of results of every kind, and a server of a copy of it."""

import shutil

import pytest

import backtest as bt
from backtest.store.listing import INDEX
from backtest.strategies import Constant
from tests.report.serve.served import SECRET, VENUE, live, serving


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Return a store of two runs that can be compared, one that cannot, a sweep, a comparison."""
    store = tmp_path_factory.mktemp("saved") / "results"
    market = bt.Market.sample(bars=24 * 40)
    terms = {"venue": VENUE, "account": bt.Account(), "compile": False}
    calm, bold, other = live(0.5), live(2.0), live(2.0, days=35)
    folders = [each.save(store).name for each in (calm, bold, other)]
    sweep = bt.sweep(market, Constant, {"leverage": [0.5, 1.0]}, **terms)
    both = bt.compare(market, {"calm": calm, "bold": bold}, draws=99, confidence=0.9, **terms)
    return store, [*folders, sweep.save(store).name, both.save(store).name]


@pytest.fixture
def store(saved, tmp_path):
    """Return a copy of the store, to be spoiled, without the index of an earlier listing."""
    shutil.copytree(saved[0], tmp_path / "results", ignore=shutil.ignore_patterns(INDEX))
    (tmp_path / "secret.txt").write_text(SECRET)
    return tmp_path / "results"


@pytest.fixture
def names(saved):
    return saved[1]


@pytest.fixture
def ask(store):
    """Return how to ask a server of the store; it listens on a free port of loopback."""
    with serving(store) as asked:
        yield asked
