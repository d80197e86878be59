"""Sets on a cluster: the bytes of one machine, whoever comes, dies or is told to stop."""

import os
import signal
import sys
import time
import warnings
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import pytest

import backtest as bt
from backtest.base.errors import BacktestError
from backtest.cli.find_policy import load_policy
from backtest.strategies import Cppi, VolTarget
from backtest.sweep.cluster import connect, on_cluster, worker, worker_pool
from backtest.sweep.cluster.remote_evaluator import ClusterEvaluator
from backtest.sweep.cluster.worker import BlockResult, WorkBlock
from backtest.sweep.set_evaluator import Evaluator
from backtest.sweep.set_rows import Rows
from backtest.sweep.sets.sets import grid
from tests.sweep.clusters import (
    Cluster,
    distributed,
    start_client,
    start_scheduler,
    start_worker,
)

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


class Loud(bt.Policy):
    """Warns."""

    size: Annotated[float, bt.Range(0.0, 9.0)] = 1.0

    def observe(self, market):
        warnings.warn("once is enough", stacklevel=2)
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


# ------------------------------------------------------------------------------------- processes


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Return a real scheduler with two worker processes."""
    running = Cluster(tmp_path_factory.mktemp("cluster"))
    yield running
    running.kill()


@contextmanager
def hear(calls: list[tuple[str, int]]):
    """Note which functions the workers are called with, and how many workers."""
    call = worker_pool.Workers._call

    def listen(self: Any, workers: Any, function: Any, *given: Any) -> Any:
        found = call(self, workers, function, *given)
        calls.append((function.__name__, len(found)))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker_pool.Workers, "_call", listen)
        yield


# ----------------------------------------------------------------------------------------- bytes


@pytest.mark.slow
def test_rows_are_those_of_one_machine_bit_for_bit_and_the_market_travels_once(cluster):
    own = prepare(VolTarget, compile=True, signal=np.linspace(-1.0, 1.0, 240))
    sets = grid({"target": np.linspace(0.1, 1.0, 20), "half_life": [24.0, 72.0], "power": [1, 2]})
    calls: list[tuple[str, int]] = []
    with hear(calls), on_cluster(own, cluster.address) as working:
        check_same(working.evaluate(sets, returns=True), own.evaluate(sets, returns=True))
        check_same(
            working.evaluate(sets, first=48, stop=200), own.evaluate(sets, first=48, stop=200)
        )
    assert calls.count(("store_market", 2)) == 1
    with hear(calls), on_cluster(prepare(Cppi), cluster.address) as working:
        working.evaluate({"multiplier": np.array([2.0, 3.0])})
    assert calls.count(("store_market", 2)) == 1


@pytest.mark.slow
def test_a_sweep_is_the_same_table_failed_sets_and_paths_included(cluster):
    sets = {"size": [0.5, -1.0, 2.0, 3.0], "account.band": [0.0, 0.2]}
    settings = {"venue": VENUE, "account": bt.Account(), "compile": False, "full": True}
    tables = []
    for where in (None, cluster.address):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sweep = bt.sweep(MARKET, Slow, sets, cluster=where, **settings)
        tables.append(sweep.table)
    assert tables[0].equals(tables[1])
    assert (tables[0]["error"] != "").sum() == 2


@pytest.mark.slow
def test_a_search_ends_the_same(cluster):
    found = []
    for where in (None, cluster.address):
        study = bt.tune(
            MARKET, Slow, venue=VENUE, account=bt.Account(), compile=False, cluster=where,
            space={"size": (0.0, 3.0)}, trials=24, sampler="random",
        )  # fmt: skip
        found.append((study.best_values, study.verdict, study.table))
    assert found[0][:2] == found[1][:2]
    assert found[0][2].equals(found[1][2])


def test_a_warning_of_the_workers_is_told_once(cluster):
    own = prepare(Loud, market=bt.Market.sample(bars=60))
    with on_cluster(own, cluster.address) as working, pytest.warns(UserWarning, match="e") as found:
        working.evaluate({"size": np.linspace(1.0, 3.0, 6)})
    assert [str(each.message) for each in found] == ["once is enough"]


def test_progress_counts_up_to_all(cluster):
    seen: list[tuple[int, int]] = []
    own = prepare(Cppi, market=bt.Market.sample(bars=60))
    with on_cluster(own, cluster.address) as working:
        working.evaluate(
            {"multiplier": np.linspace(1.0, 3.0, 6)}, progress=lambda *at: seen.append(at)
        )
    assert seen == [(k, 6) for k in range(1, 7)]


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


# ---------------------------------------------------------------------------------- what dies


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


@pytest.mark.slow
def test_all_workers_may_die_where_others_come(cluster):
    own = prepare(Slow, market=bt.Market.sample(bars=60))
    sets = {"size": np.linspace(0.0, 3.0, 12), "pause": np.full(12, 0.1)}
    killed = []

    def kill_all(done: int, total: int) -> None:
        if not killed:
            killed.extend(cluster.workers)
            for process in cluster.workers:
                process.kill()
                process.wait()
            cluster.workers = [start_worker(cluster.folder, cluster.address) for _ in range(2)]

    with on_cluster(own, cluster.address) as working:
        found = working.evaluate(sets, progress=kill_all)
    check_same(found, own.evaluate({**sets, "pause": np.zeros(12)}))
    cluster.wait(2)


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


@pytest.mark.slow
def test_a_scheduler_that_goes_away_ends_it_with_what_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr(connect, "WAIT", 10.0)
    other = Cluster(tmp_path, n_workers=1)
    own = prepare(Slow, market=bt.Market.sample(bars=60))
    sets = {"size": np.linspace(0.0, 3.0, 40), "pause": np.full(40, 0.05)}
    try:
        with (
            on_cluster(own, other.address) as working,
            pytest.warns(UserWarning, match="the scheduler at tcp://.* is gone"),
        ):
            found = working.evaluate(sets, progress=lambda done, total: other.scheduler.kill())
    finally:
        other.kill()
    assert 1 <= found.done.sum() < 40


# ------------------------------------------------------------------------------------ mistakes


def test_other_versions_are_refused_and_named(cluster, monkeypatch):
    versions = {**worker.read_versions(), "numba": "0.1"}
    monkeypatch.setattr(worker_pool, "read_versions", lambda: versions)
    with (
        on_cluster(prepare(Cppi), cluster.address) as working,
        pytest.raises(bt.ParameterError, match=r"these differ: numba \(0.1, the worker has"),
    ):
        working.evaluate({"multiplier": np.array([2.0])})


def test_a_worker_that_cannot_import_is_an_error_that_says_so(cluster):
    with on_cluster(prepare(Cppi), cluster.address) as working:
        working.job = working.job._replace(
            name="other", content=b"cnot_there\nMissing\n.", sources={}
        )
        with pytest.raises(bt.PolicyError, match="No module named 'not_there'"):
            working.evaluate({"multiplier": np.array([2.0])})


class Untold(BaseException):
    """Cannot be unpickled where it was not raised."""

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuild_in_process, (os.getpid(),)


def rebuild_in_process(process: int) -> Untold:
    if process != os.getpid():
        raise RuntimeError("not here")
    return Untold("of a worker")


class Leaver(bt.Policy):
    """Raises what is no error of a policy."""

    kind: Annotated[int, bt.Range(0, 2)] = 0

    def observe(self, market):
        if self.kind:
            raise Untold("of a worker") if self.kind == 1 else SystemExit(3)
        return {}

    def leverage(self, bar, account):
        return 1.0


@pytest.mark.parametrize(("kind", "said"), [(1, "Untold: of a worker"), (2, "SystemExit: 3")])
def test_what_cannot_travel_or_would_end_a_worker_is_one_error(cluster, kind, said):
    own = prepare(Leaver, market=bt.Market.sample(bars=60))
    with on_cluster(own, cluster.address) as working:
        with pytest.raises(BacktestError, match=f"tcp://.* raised {said}"):
            working.evaluate({"kind": np.array([0, kind])})
        assert working.evaluate({"kind": np.array([0])}).done.all()
    assert all(each.poll() is None for each in cluster.workers)


def test_dask_that_is_not_installed_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(bt.ParameterError, match=r"pip install 'leverage-backtest\[cluster\]'"),
        on_cluster(prepare(Cppi), "local:2"),
    ):
        pass


def test_no_scheduler_and_no_worker_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(connect, "WAIT", 0.5)
    with (
        pytest.raises(BacktestError, match="cannot reach the cluster"),
        on_cluster(prepare(Cppi), "tcp://127.0.0.1:1"),
    ):
        pass
    wait = distributed.Client.wait_for_workers
    monkeypatch.setattr(connect, "WAIT", 60.0)
    monkeypatch.setattr(
        distributed.Client, "wait_for_workers", lambda self, n, timeout: wait(self, n, timeout=0.5)
    )
    scheduler, address = start_scheduler(tmp_path)
    try:
        with (
            pytest.raises(BacktestError, match=f"has no workers .* dask worker {address}"),
            on_cluster(prepare(Cppi), address),
        ):
            pass
    finally:
        scheduler.kill()
        scheduler.wait()


# ---------------------------------------------------------------------------------- local workers


@pytest.mark.slow
def test_local_workers_come_and_go_quietly_and_one_may_be_killed(capfd):
    own = prepare(Slow, market=bt.Market.sample(bars=60))
    sets = {"size": np.linspace(0.0, 3.0, 16), "pause": np.full(16, 0.1)}
    killed = []

    def kill_one(done: int, total: int) -> None:
        if not killed:
            killed.extend(working.workers.client.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    environment = dict(os.environ)
    with on_cluster(own, "local:2") as working:
        assert isinstance(working, ClusterEvaluator)
        found = working.evaluate(sets, progress=kill_one)
    assert len(killed) == 2
    check_same(found, own.evaluate({**sets, "pause": np.zeros(16)}))
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == environment


# ----------------------------------------------------------------------------------- small parts


def test_an_answer_without_rows_is_asked_for_again(cluster):
    """A worker that has not been given the job says so."""
    with start_client(cluster.address) as client:
        future = client.submit(worker.evaluate_block, "unknown", WorkBlock({}), pure=False)
        result: BlockResult = future.result()
    assert result.rows is None
    assert result.worker.startswith("tcp://")
