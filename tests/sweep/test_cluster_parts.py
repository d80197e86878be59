"""What a cluster is made of: addresses, blocks, answers and errors, without a worker."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest

import backtest as bt
from backtest.base.errors import BacktestError
from backtest.sweep.cluster import connect, shipped_code, worker, worker_pool
from backtest.sweep.cluster.remote_evaluator import split_blocks
from backtest.sweep.cluster.worker import ClusterJob, WorkBlock
from tests.sweep.clusters import ROOT, distributed


def test_a_block_that_kills_its_workers_is_failed_rows_with_the_cause():
    future = types.SimpleNamespace(result=lambda: raise_(killed_worker()))
    answer = make_tasks()._read(future)
    assert answer is not None
    assert "the worker died, 4 times" in answer.error


def test_a_block_is_not_sent_for_ever():
    tasks = make_tasks()
    tasks.sent = [worker_pool.ATTEMPTS]
    with pytest.raises(BacktestError, match="of a block of sets 5 times; giving up"):
        tasks.send(0)


def make_tasks() -> worker_pool.SentBlocks:
    """Return the tasks of a cluster without workers."""
    client = types.SimpleNamespace(status="running", nthreads=dict)
    return worker_pool.SentBlocks(
        worker_pool.Workers(client, "tcp://x:1"), ClusterJob("", "", b"", {}), [WorkBlock({})]
    )


def killed_worker() -> Exception:
    return distributed.scheduler.KilledWorker("key", None, 3)


def raise_(error: Exception) -> None:
    raise error


def test_an_error_of_a_worker_is_that_of_this_package_it_is_of():
    class Own(bt.PolicyError):
        """One of the user's, which is not known elsewhere."""

    told = worker.describe_failure(Own("p"), "tcp://y:2")
    assert type(told) is bt.PolicyError
    assert str(told) == "p"
    with pytest.raises(BacktestError, match="tcp://y:2 raised ZeroDivisionError"):
        raise worker.answer(lambda _: 1 // 0, (), types.SimpleNamespace(address="tcp://y:2"))


@pytest.mark.parametrize("text", ["local", "local:0", "local:x", "10.0.0.1:8786", "tcp://x", 3])
def test_a_cluster_is_an_address_or_a_number_of_processes(text):
    with pytest.raises(bt.ParameterError, match="cluster must be the address"):
        connect.read_cluster(text)


def test_blocks_are_whole_lanes_for_all_threads_of_a_worker():
    sizes = [len(part) for part in split_blocks(np.arange(100_000), [4, 2], 64)]
    assert set(sizes[:-1]) == {1792}
    assert sum(sizes) == 100_000
    assert 1792 % (64 * 4) == 0


def test_a_worker_keeps_what_was_used_last():
    kept: worker.RecentlyUsed[int] = worker.RecentlyUsed()
    for k in range(worker.KEPT):
        kept.put(str(k), k)
    assert kept.use("0") == 0
    kept.put("new", 9)
    assert kept.use("1") is None
    assert kept.use("0") == 0


@pytest.mark.slow
def test_a_policy_of_main_travels_by_value(tmp_path):
    """A script's own policy keeps its parameters, those without a default too."""
    script = (
        "from typing import Annotated\n"
        "import pickle, sys\n"
        "import backtest as bt\n"
        "from backtest.sweep.cluster.shipped_code import pickle_by_value\n"
        "class Own(bt.Policy):\n"
        "    size: Annotated[float, bt.Range(0.0, 1.0)]\n"
        "    def leverage(self, bar, account):\n"
        "        return self.size\n"
        "open(sys.argv[1], 'wb').write(pickle_by_value(Own))\n"
    )
    (tmp_path / "own.py").write_text(script)
    file = tmp_path / "own.pickle"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "own.py", str(file)], cwd=tmp_path, env=environment, check=True)
    policy = shipped_code.unpickle_with_sources(file.read_bytes(), {})
    assert policy(size=0.5).settings() == {"size": 0.5}
    with pytest.raises(bt.ParameterError, match="needs size, which has no default"):
        policy()
