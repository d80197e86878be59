"""Send blocks of sets to the workers of a cluster and collect the results."""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backtest.base import BacktestError, warn_caller
from backtest.sweep.cluster.worker import (
    BlockResult,
    ClusterJob,
    WorkBlock,
    answer,
    check_versions,
    describe_failure,
    evaluate_block,
    prepare_job,
    read_versions,
    store_market,
)

if TYPE_CHECKING:
    from backtest.market import Market, Markets

TICK = 1.0
"""Seconds without a result after which the connection to the cluster is checked."""
PATIENCE = 20.0
"""Seconds without any worker after which the user is warned."""
ATTEMPTS = 5
"""How often a block is sent before the search fails."""


class ClusterLost(Exception):  # noqa: N818 - a reason to end with what is done
    """The scheduler cannot be reached any more."""


class Workers:
    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    def count_threads(self) -> list[int]:
        try:
            return list(self.client.nthreads().values())
        except OSError:
            return []

    def equip(
        self, job: ClusterJob, market: Market | Markets, workers: Sequence[str] | None = None
    ) -> None:
        found = self._call(workers, check_versions, read_versions(), job.market)
        lacking = [address for address, has_market in found.items() if not has_market]
        if lacking:
            self._call(lacking, store_market, job.market, market)
        self._call(list(found), prepare_job, job)

    def _call(self, workers: Sequence[str] | None, function: Any, *given: Any) -> dict[str, Any]:
        try:
            found = self.client.run(answer, function, given, workers=workers, on_error="return")
        except OSError:
            self.wait_for_scheduler()
            return {}
        for address, result in found.items():
            if isinstance(result, BacktestError):
                raise result
            if isinstance(result, Exception) and not isinstance(result, OSError):
                raise describe_failure(result, address) from result
        return {name: each for name, each in found.items() if not isinstance(each, Exception)}

    def wait_for_scheduler(self) -> None:
        while self.client.status == "connecting":
            time.sleep(0.05)
        if self.client.status != "running":
            raise ClusterLost

    def evaluate(
        self, job: ClusterJob, market: Market | Markets, blocks: Sequence[WorkBlock]
    ) -> Iterator[BlockResult]:
        self.equip(job, market)
        sent = SentBlocks(self, job, blocks)
        try:
            for number in range(len(blocks)):
                sent.send(number)
            while sent.pending:
                number, result = sent.receive()
                if result is not None and (result.rows is not None or result.error):
                    yield result._replace(number=number)
                    continue
                if result is not None:
                    self.equip(job, market, [result.worker])
                sent.send(number)
        finally:
            sent.cancel()


class SentBlocks:
    def __init__(self, workers: Workers, job: ClusterJob, blocks: Sequence[WorkBlock]) -> None:
        self.workers = workers
        self.client = workers.client
        self.job = job
        self.blocks = blocks
        self.name = f"backtest-{uuid.uuid4().hex}"
        self.sent = [0] * len(blocks)
        self.pending: dict[Any, int] = {}
        self.results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.active_at = time.monotonic()
        self.has_warned = False

    def send(self, number: int) -> None:
        if self.sent[number] >= ATTEMPTS:
            raise BacktestError(
                f"the cluster {self.workers.name} lost the result of a block of sets {ATTEMPTS} "
                "times; giving up"
            )
        self.sent[number] += 1
        key = f"{self.name}-{number}-{self.sent[number]}"
        future = self.client.submit(
            evaluate_block, self.job.name, self.blocks[number], key=key, pure=False
        )
        self.pending[future] = number
        future.add_done_callback(self.results.put)

    def receive(self) -> tuple[int, BlockResult | None]:
        while True:
            try:
                future = self.results.get(timeout=TICK)
                break
            except queue.Empty:
                self._check_cluster()
        self.active_at = time.monotonic()
        return self.pending.pop(future), self._read(future)

    def _read(self, future: Any) -> BlockResult | None:
        import distributed  # noqa: PLC0415 - the client is one of its

        try:
            result: BlockResult = future.result()
        except (distributed.client.FutureCancelledError, OSError):
            self.workers.wait_for_scheduler()
            return None
        except distributed.scheduler.KilledWorker as error:
            died = error.allowed_failures + 1
            return BlockResult(
                None, (), "", f"the worker died, {died} times in a row, at these sets"
            )
        except Exception as error:
            raise describe_failure(error, self.workers.name) from error
        if result.failure is not None:
            raise result.failure
        return result

    def _check_cluster(self) -> None:
        self.workers.wait_for_scheduler()
        if self.workers.count_threads():
            self.active_at = time.monotonic()
        elif time.monotonic() - self.active_at > PATIENCE and not self.has_warned:
            self.has_warned = True
            warn_caller(
                f"no worker is left at {self.workers.name}; waiting for one to join. Ctrl-C "
                "keeps what is done"
            )

    def cancel(self) -> None:
        if self.pending and self.client.status == "running":
            self.client.cancel(list(self.pending), force=True)
        self.pending.clear()
