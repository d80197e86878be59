"""The workers of a cluster: what they are given, and blocks of sets sent until all are answered.

A worker that dies loses nothing: Dask gives its blocks to others, a worker that comes new is given
what it lacks when its first block shows that, and a block whose answer is lost is sent again.
"""

from __future__ import annotations

import queue
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backtest.base.errors import BacktestError
from backtest.sweep.cluster.worker import (
    Answer,
    Block,
    Job,
    evaluate_block,
    greet,
    read_stamp,
    take_job,
    take_market,
)

if TYPE_CHECKING:
    from backtest.market.market import Market

TICK = 1.0
"""Seconds of silence after which it is asked whether the cluster is still there."""
PATIENCE = 20.0
"""Seconds without any worker after which the user is told."""
ATTEMPTS = 5
"""How often a block is sent before it is given up."""


class ClusterLost(Exception):  # noqa: N818 - a reason to end with what is done
    """The scheduler cannot be reached any more."""


class Crew:
    """The workers of a cluster.

    Parameters
    ----------
    client : distributed.Client
        Connected.
    place : str
        What the user calls the cluster, for messages.
    """

    def __init__(self, client: Any, place: str) -> None:
        self.client = client
        self.place = place

    def count_threads(self) -> list[int]:
        """Return the number of threads of each worker; of none where it cannot be told."""
        try:
            return list(self.client.nthreads().values())
        except OSError:
            return []

    def equip(self, job: Job, market: Market, workers: Sequence[str] | None = None) -> None:
        """Give workers a job, and its market unless they have it.

        Raises
        ------
        BacktestError
            If a worker has other versions, or cannot import what the job needs.
        """
        found = self._tell(workers, greet, read_stamp(), job.market)
        lacking = [address for address, has_market in found.items() if not has_market]
        if lacking:
            self._tell(lacking, take_market, job.market, market)
        self._tell(list(found), take_job, job)

    def _tell(self, workers: Sequence[str] | None, function: Any, *given: Any) -> dict[str, Any]:
        """Return what a function returned on each worker; those that died are left out."""
        try:
            found = self.client.run(function, *given, workers=workers, on_error="return")
        except OSError:
            self.wait_for_scheduler()
            return {}
        for address, answer in found.items():
            if isinstance(answer, Exception) and not isinstance(answer, OSError):
                raise self.explain(answer, address) from answer
        return {name: each for name, each in found.items() if not isinstance(each, Exception)}

    def explain(self, error: BaseException, worker: str) -> BacktestError:
        """Return what to tell a user of what went wrong on a worker."""
        if isinstance(error, BacktestError):
            return error
        return BacktestError(
            "a worker must be able to do what this process can, one raised "
            f"{type(error).__name__}: {error}",
            where=f"cluster {self.place}, {worker}",
            cure="install there what is installed here: leverage-backtest[cluster], and what the "
            "policy imports",
        )

    def wait_for_scheduler(self) -> None:
        """Wait while the client tries to reach the scheduler again.

        Raises
        ------
        ClusterLost
            If it gives up.
        """
        while self.client.status == "connecting":
            time.sleep(0.05)
        if self.client.status != "running":
            raise ClusterLost

    def work(self, job: Job, market: Market, blocks: Sequence[Block]) -> Iterator[Answer]:
        """Yield the answers to some blocks, as they come.

        Raises
        ------
        ClusterLost
            If the scheduler goes away.
        BacktestError
            If a worker cannot do what it is asked.
        """
        self.equip(job, market)
        post = Post(self, job, blocks)
        try:
            for place in range(len(blocks)):
                post.send(place)
            while post.waiting:
                place, answer = post.receive()
                if answer is None:
                    post.send(place)
                elif answer.rows is None and not answer.error:
                    self.equip(job, market, [answer.worker])
                    post.send(place)
                else:
                    yield answer._replace(place=place)
        finally:
            post.cancel()


class Post:
    """Blocks under way to the workers, and their answers on the way back."""

    def __init__(self, crew: Crew, job: Job, blocks: Sequence[Block]) -> None:
        self.crew = crew
        self.client = crew.client
        self.job = job
        self.blocks = blocks
        self.name = f"backtest-{uuid.uuid4().hex}"
        self.sent = [0] * len(blocks)
        self.waiting: dict[Any, int] = {}
        self.back: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.quiet_since = time.monotonic()
        self.has_told = False

    def send(self, place: int) -> None:
        """Send a block.

        Raises
        ------
        BacktestError
            If it was sent too often.
        """
        if self.sent[place] >= ATTEMPTS:
            raise BacktestError(
                f"a block of sets must be answered, one was sent {ATTEMPTS} times in vain",
                where=f"cluster {self.crew.place}",
                cure="look at the logs of scheduler and workers",
            )
        self.sent[place] += 1
        key = f"{self.name}-{place}-{self.sent[place]}"
        future = self.client.submit(
            evaluate_block, self.job.name, self.blocks[place], key=key, pure=False
        )
        self.waiting[future] = place
        future.add_done_callback(self.back.put)

    def receive(self) -> tuple[int, Answer | None]:
        """Wait for the next block that comes back; return its place and answer, None if lost."""
        while True:
            try:
                future = self.back.get(timeout=TICK)
                break
            except queue.Empty:
                self._look_around()
        self.quiet_since = time.monotonic()
        return self.waiting.pop(future), self._read(future)

    def _read(self, future: Any) -> Answer | None:
        """Return the answer of a block that came back.

        Raises
        ------
        ClusterLost
            If it never will.
        BacktestError
            If a worker raised something.
        """
        import distributed  # noqa: PLC0415 - the client is one of its

        try:
            answer: Answer = future.result()
        except (distributed.client.FutureCancelledError, OSError):
            self.crew.wait_for_scheduler()
            return None
        except distributed.scheduler.KilledWorker as error:
            died = error.allowed_failures + 1
            return Answer(None, (), "", f"the worker died, {died} times in a row, at these sets")
        except Exception as error:
            raise self.crew.explain(error, "a worker") from error
        return answer

    def _look_around(self) -> None:
        """See to it that a user knows why nothing happens."""
        self.crew.wait_for_scheduler()
        if self.crew.count_threads():
            self.quiet_since = time.monotonic()
        elif time.monotonic() - self.quiet_since > PATIENCE and not self.has_told:
            self.has_told = True
            warnings.warn(
                f"no worker is left at {self.crew.place}: waiting for one to come; Ctrl-C ends "
                "with what is done",
                stacklevel=2,
            )

    def cancel(self) -> None:
        """Take back what was not answered."""
        if self.waiting and self.client.status == "running":
            self.client.cancel(list(self.waiting), force=True)
        self.waiting.clear()
