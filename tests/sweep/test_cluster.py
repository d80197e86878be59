"""Sets on a cluster: the bytes of one machine, whoever comes, dies or is told to stop."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest

import backtest as bt
from backtest.base.errors import BacktestError
from backtest.cli.find_policy import load_policy
from backtest.strategies import Cppi, VolTarget
from backtest.sweep import cluster as clustering
from backtest.sweep.cluster import on_cluster
from backtest.sweep.set_evaluator import Evaluator, Rows
from backtest.sweep.sets.sets import grid

distributed = pytest.importorskip("distributed")
ROOT = Path(__file__).parents[2]


def start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a command of Dask in a folder of its own."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"},
            stdout=log,
            stderr=log,
        )


def start_scheduler(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start a scheduler on loopback; return its process and address."""
    file = folder / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show")
    process = start(folder, "scheduler", *options, "--scheduler-file", str(file))
    for _ in range(6_000):
        if file.is_file() and file.read_text():
            return process, str(json.loads(file.read_text())["address"])
        time.sleep(0.05)
    raise RuntimeError((folder / "log").read_text())


def start_worker(folder: Path, address: str) -> subprocess.Popen[bytes]:
    """Start a worker on loopback that nothing restarts."""
    options = ("--nthreads", "1", "--no-dashboard", "--no-nanny", "--host", "127.0.0.1")
    return start(folder, "worker", address, *options)


def start_client(address: str) -> distributed.Client:
    """Return a client; Dask wants its thread to start in ten seconds, also on a busy machine."""
    for _ in range(5):
        with contextlib.suppress(AssertionError):
            return distributed.Client(address, set_as_default=False)
    return distributed.Client(address, set_as_default=False)


class Cluster:
    """A scheduler and its workers."""

    def __init__(self, folder: Path, n_workers: int = 2) -> None:
        self.folder = folder
        self.scheduler, self.address = start_scheduler(folder)
        self.workers = [start_worker(folder, self.address) for _ in range(n_workers)]
        self.wait(n_workers)

    def wait(self, n: int) -> None:
        """Wait until there are so many workers."""
        with start_client(self.address) as client:
            for _ in range(6_000):
                if len(client.nthreads()) == n:
                    return
                time.sleep(0.05)
        raise RuntimeError((self.folder / "log").read_text())

    def renew(self) -> None:
        """Start workers for those that died."""
        alive = [each for each in self.workers if each.poll() is None]
        new = [start_worker(self.folder, self.address) for _ in range(2 - len(alive))]
        self.workers = [*alive, *new]
        self.wait(2)

    def kill(self) -> None:
        """End all processes."""
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
MARKET = bt.Market.sample(bars=240)


class Slow(bt.Policy):
    """Takes its time, and refuses some sizes."""

    size: Annotated[float, bt.Range(-10.0, 10.0)] = 1.0
    pause: Annotated[float, bt.Range(0.0, 1.0, "s")] = 0.0

    def observe(self, market):
        time.sleep(self.pause)
        return {}

    def leverage(self, bar, account):
        return self.size


def prepare(policy: Any, **settings: Any) -> Evaluator:
    """Return an evaluator in plain Python, unless told otherwise."""
    given = {"venue": VENUE, "account": bt.Account(), "compile": False, **settings}
    return Evaluator(given.pop("market", MARKET), policy, **given)


def check_same(one: Rows, other: Rows) -> None:
    """Hold two answers to the same bits."""
    assert list(one.metrics) == list(other.metrics)
    for name, values in one.metrics.items():
        assert values.tobytes() == other.metrics[name].tobytes(), name
    assert one.errors == other.errors
    assert one.done.tobytes() == other.done.tobytes()
    assert (one.returns is None) == (other.returns is None)
    if one.returns is not None and other.returns is not None:
        assert one.returns.tobytes() == other.returns.tobytes()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Return a real scheduler with two worker processes."""
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    yield running
    running.kill()


@pytest.mark.slow
def test_rows_are_those_of_one_machine_bit_for_bit(cluster):
    own = prepare(VolTarget, compile=True, signal=np.linspace(-1.0, 1.0, 240))
    sets = grid({"target": np.linspace(0.1, 1.0, 20), "half_life": [24.0, 72.0], "power": [1, 2]})
    with on_cluster(own, cluster.address) as working:
        check_same(working.evaluate(sets, returns=True), own.evaluate(sets, returns=True))
        check_same(
            working.evaluate(sets, first=48, stop=200), own.evaluate(sets, first=48, stop=200)
        )


MINE = '''
from typing import Annotated, NamedTuple

import backtest as bt
from beside_mine import brake


class Memory(NamedTuple):
    peak: float


class Mine(bt.Policy):
    """Follow the peak."""

    most: Annotated[float, bt.Range(0.5, 10.0)]
    limit: Annotated[float, bt.Range(0.05, 0.9)] = 0.3

    def start(self):
        return Memory(0.0)

    def leverage(self, bar, account, memory):
        return brake(self.most, account.drawdown, self.limit), Memory(bar.close)
'''


BESIDE = """
def brake(most, drawdown, limit):
    return {factor} * most * max(0.0, 1.0 - drawdown / limit)
"""


@pytest.mark.slow
def test_a_policy_of_a_file_and_what_lies_beside_it_reach_workers_as_they_are_now(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "path", [*sys.path])
    # Bytecode is known by second and size, and the two files differ in neither.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sets = {"most": np.array([1.0, 2.0, 4.0])}
    (tmp_path / "mine.py").write_text(MINE)
    for factor in (1.0, 0.5):
        (tmp_path / "beside_mine.py").write_text(BESIDE.format(factor=factor))
        sys.modules.pop("beside_mine", None)
        own = prepare(load_policy(str(tmp_path / "mine.py")), compile=factor == 1.0)
        with on_cluster(own, cluster.address) as working:
            check_same(working.evaluate(sets), own.evaluate(sets))


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_loses_nothing(cluster):
    own = prepare(Slow, market=bt.Market.sample(bars=60))
    sets = {"size": np.linspace(-1.0, 3.0, 24), "pause": np.full(24, 0.1)}
    killed = []

    def kill_one(done: int, total: int) -> None:
        if not killed:
            killed.append(cluster.workers[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    with on_cluster(own, cluster.address) as working:
        found = working.evaluate(sets, progress=kill_one)
    assert cluster.workers[0].wait() == -signal.SIGKILL
    check_same(found, own.evaluate({**sets, "pause": np.zeros(24)}))
    cluster.renew()


def test_ctrl_c_returns_what_is_done_and_leaves_the_cluster_free(cluster):
    own = prepare(Slow, market=bt.Market.sample(bars=60))
    sets = {"size": np.linspace(0.0, 3.0, 40), "pause": np.full(40, 0.05)}

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with on_cluster(own, cluster.address) as working:
        found = working.evaluate(sets, progress=stop)
        assert found.done.sum() == 5
        assert np.isnan(found.metrics["sharpe"][~found.done]).all()
        assert working.evaluate({"size": np.array([1.0])}).done.all()


@pytest.mark.parametrize("text", ["local", "local:0", "local:x", "10.0.0.1:8786", "tcp://x", 3])
def test_a_cluster_is_an_address_or_a_number_of_processes(text):
    with (
        pytest.raises(bt.ParameterError, match="cluster must be the address"),
        on_cluster(prepare(Cppi), text),
    ):
        pass


def test_dask_that_is_not_installed_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(bt.ParameterError, match=r"pip install 'leverage-backtest\[cluster\]'"),
        on_cluster(prepare(Cppi), "local:2"),
    ):
        pass


def test_no_scheduler_and_no_worker_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(clustering, "WAIT", 0.5)
    with (
        pytest.raises(BacktestError, match="cannot use the cluster"),
        on_cluster(prepare(Cppi), "tcp://127.0.0.1:1"),
    ):
        pass
    wait = distributed.Client.wait_for_workers
    monkeypatch.setattr(clustering, "WAIT", 60.0)
    monkeypatch.setattr(
        distributed.Client, "wait_for_workers", lambda self, n, timeout: wait(self, n, timeout=0.5)
    )
    scheduler, address = start_scheduler(tmp_path)
    try:
        with (
            pytest.raises(BacktestError, match=f"cannot use the cluster {address}.*workers"),
            on_cluster(prepare(Cppi), address),
        ):
            pass
    finally:
        scheduler.kill()
        scheduler.wait()
