"""Sets on a cluster: the bytes of one machine, whoever comes, dies or is told to stop."""

import os
import signal
import sys
import time
from typing import Annotated, Any

import numpy as np
import pytest

import backtest as bt
from backtest.experiments.policy_names import load_policy
from backtest.strategies import Cppi, VolTarget
from backtest.sweep import cluster as clustering
from backtest.sweep.cluster import on_cluster
from backtest.sweep.set_evaluator import Evaluator, Rows
from backtest.sweep.sets import VariedTest, grid
from tests.kit import check_refused

distributed = pytest.importorskip("distributed")
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
MARKET = bt.Market.sample(bars=240)


def start_cluster(n_workers: int) -> distributed.LocalCluster:
    return distributed.LocalCluster(
        n_workers=n_workers, threads_per_worker=1, host="127.0.0.1", memory_limit=None,
        dashboard_address="127.0.0.1:0", scheduler_kwargs={"dashboard": False},
    )  # fmt: skip


class Slow(bt.Policy):
    size: Annotated[float, bt.Range(-10.0, 10.0)] = 1.0
    pause: Annotated[float, bt.Range(0.0, 1.0, "s")] = 0.0

    def observe(self, market):
        time.sleep(self.pause)
        return {}

    def leverage(self, bar, account):
        return self.size


def prepare(policy: Any, **settings: Any) -> Evaluator:
    given = {"compile": False, **settings}
    account = given.pop("account", bt.Account())
    market = given.pop("market", MARKET)
    signal = given.pop("signal", None)

    test = bt.Backtest(market, venue=VENUE, account=account, signal=signal)
    return Evaluator(VariedTest(test, policy), **given)


def check_same(one: Rows, other: Rows) -> None:
    """Hold two answers to the same bits."""

    def read(rows: Rows) -> Any:
        columns = {**rows.metrics, "done": rows.done, "returns": np.asarray(rows.returns, float)}
        return rows.errors, {name: values.tobytes() for name, values in columns.items()}

    assert read(one) == read(other)


@pytest.fixture(scope="module")
def cluster():
    with start_cluster(2) as running:
        yield running


@pytest.mark.slow
def test_rows_are_those_of_one_machine_bit_for_bit(cluster):
    own = prepare(VolTarget, compile=True, signal=np.linspace(-1.0, 1.0, 240))
    sets = grid({"target": np.linspace(0.1, 1.0, 20), "half_life": [24.0, 72.0], "power": [1, 2]})

    with on_cluster(own, cluster.scheduler_address) as working:
        check_same(working.evaluate(sets, returns=True), own.evaluate(sets, returns=True))
        check_same(
            working.evaluate(sets, first=48, stop=200), own.evaluate(sets, first=48, stop=200)
        )


@pytest.mark.slow
def test_a_policy_of_a_file_reaches_workers_as_it_is_now(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Bytecode is known by second and size, and the two files differ in neither.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sets = {"most": np.array([1.0, 2.0, 4.0])}
    (tmp_path / "mine.py").write_text("""
from typing import Annotated

import backtest as bt
from beside_mine import brake


class Mine(bt.Policy):
    most: Annotated[float, bt.Range(0.5, 10.0)]

    def leverage(self, bar, account):
        return brake(self.most, account.drawdown, 0.3)
""")
    for factor in (1.0, 0.5):
        (tmp_path / "beside_mine.py").write_text(
            f"""
def brake(most, drawdown, limit):
    return {factor} * most * max(0.0, 1.0 - drawdown / limit)
"""
        )
        sys.modules.pop("beside_mine", None)

        own = prepare(load_policy(str(tmp_path / "mine.py")), compile=factor == 1.0)
        with on_cluster(own, cluster.scheduler_address) as working:
            check_same(working.evaluate(sets), own.evaluate(sets))


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_nothing(cluster):
    own = prepare(Slow, market=bt.Market.sample(bars=60))
    sets = {"size": np.linspace(-1.0, 3.0, 24), "pause": np.full(24, 0.1)}
    alive = [cluster.workers[0].pid]

    def kill_one(done: int, total: int) -> None:
        if alive:
            os.kill(alive.pop(), signal.SIGKILL)

    with on_cluster(own, cluster.scheduler_address) as working:
        found = working.evaluate(sets, progress=kill_one)

    assert not alive
    check_same(found, own.evaluate({**sets, "pause": np.zeros(24)}))


@pytest.mark.slow
def test_a_market_that_is_lost_is_sent_again(cluster):
    """A worker that dies without another copy takes the market with it: the rest is sent anew."""
    own = prepare(Slow, market=bt.Market.sample(bars=60))
    sets = {"size": np.linspace(-1.0, 3.0, 24), "pause": np.full(24, 0.05)}
    sent = []
    with on_cluster(own, cluster.scheduler_address) as working:

        def lose(done: int, total: int) -> None:
            if len(sent) < 2 and working.sent not in sent:
                sent.append(working.sent)
                working.client.cancel(working.sent, force=True)

        found = working.evaluate(sets, progress=lose)

    assert len(sent) == 2
    check_same(found, own.evaluate({**sets, "pause": np.zeros(24)}))


@pytest.mark.slow
def test_a_cluster_that_loses_all_that_is_sent_answers_what_is_done(cluster, monkeypatch):
    monkeypatch.setattr(clustering, "MOST_SENT", 2)
    own = prepare(Slow, market=bt.Market.sample(bars=60))
    sets = {"size": np.linspace(-1.0, 3.0, 24), "pause": np.full(24, 0.05)}
    with on_cluster(own, cluster.scheduler_address) as working:

        def lose(done: int, total: int) -> None:
            working.client.cancel(working.sent, force=True)

        with pytest.warns(UserWarning, match="the cluster lost what was sent 2 times"):
            found = working.evaluate(sets, progress=lose)

    assert 0 < found.done.sum() < 24


@pytest.mark.slow
def test_ctrl_c_returns_what_is_done_and_leaves_the_cluster_free(cluster):
    own = prepare(Slow, market=bt.Market.sample(bars=60))
    sets = {"size": np.linspace(0.0, 3.0, 40), "pause": np.full(40, 0.05)}

    interrupted: list[int] = []  # blocks are larger while a worker starts

    def stop(done: int, total: int) -> None:
        if done >= 5:
            interrupted.append(done)
            raise KeyboardInterrupt

    with on_cluster(own, cluster.scheduler_address) as working:
        found = working.evaluate(sets, progress=stop)
        assert [found.done.sum()] == interrupted
        assert interrupted[0] < 40
        assert np.isnan(found.metrics["sharpe"][~found.done]).all()
        assert working.evaluate({"size": np.array([1.0])}).done.all()


def enter(cluster: Any) -> Any:
    return lambda: on_cluster(prepare(Cppi), cluster).__enter__()


@pytest.mark.parametrize("text", ["local", "local:0", "local:x", "10.0.0.1:8786", "tcp://x", 3])
def test_a_cluster_is_an_address_or_a_number_of_processes(text):
    check_refused(enter(text), "cluster must be the address", bt.ParameterError)


def test_what_is_missing_is_told(monkeypatch):
    """Dask, the scheduler, or every worker."""
    monkeypatch.setattr(clustering, "WAIT", 0.5)
    check_refused(enter("tcp://127.0.0.1:1"), "cannot use the cluster")

    wait = distributed.Client.wait_for_workers
    monkeypatch.setattr(clustering, "WAIT", 60.0)
    monkeypatch.setattr(
        distributed.Client, "wait_for_workers", lambda self, n, timeout: wait(self, n, timeout=0.5)
    )

    with start_cluster(0) as empty:
        address = empty.scheduler_address
        check_refused(enter(address), f"cannot use the cluster {address}")

    monkeypatch.setitem(sys.modules, "distributed", None)
    check_refused(enter("local:2"), "pip install 'leverage-backtest[cluster]'", bt.ParameterError)
