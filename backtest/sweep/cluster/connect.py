"""Connect to a running Dask cluster, or start one of processes on this machine."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from backtest.base import BacktestError, ParameterError, repr_plain

if TYPE_CHECKING:
    from backtest.sweep.set_evaluator import Evaluator

WAIT = 15.0
"""Seconds to wait for a scheduler, and for its first worker."""
MOST_LOCAL = 1024

LOGGERS = (
    "asyncio",
    "distributed",
    "distributed.client",
    "distributed.gc",
    "tornado",
    "tornado.application",
)
CONFIG = {
    "distributed.admin.large-graph-warning-threshold": "1TB",
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.scheduler.allowed-failures": 10,
}

TLS = {
    "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": "distributed.comm.tls.ca-file",
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT": "distributed.comm.tls.client.cert",
    "DASK_DISTRIBUTED__COMM__TLS__CLIENT__KEY": "distributed.comm.tls.client.key",
}

_LOCAL = re.compile(r"local(?::(\d+))?")
_ADDRESS = re.compile(r"\w+://[^/\s]+:\d+")


@contextlib.contextmanager
def on_cluster(evaluator: Evaluator, cluster: str | None) -> Iterator[Evaluator]:
    if cluster is None:
        yield evaluator
        return
    n_local = read_cluster(cluster)
    distributed = import_distributed()
    from backtest.sweep.cluster.remote_evaluator import ClusterEvaluator  # noqa: PLC0415 - as above
    from backtest.sweep.cluster.worker_pool import Workers  # noqa: PLC0415 - loads where it is used

    with silence_dask(), connect(distributed, cluster, n_local) as client:
        workers = Workers(client, cluster)
        yield evaluator.map_members(lambda each: ClusterEvaluator(each, workers))


def read_cluster(cluster: str) -> int | None:
    text = cluster if isinstance(cluster, str) else ""
    local = _LOCAL.fullmatch(text)
    if local and 1 <= int(local[1] or 0) <= MOST_LOCAL:
        return int(local[1])
    if local or not _ADDRESS.fullmatch(text):
        raise ParameterError(
            "cluster must be the address that dask scheduler prints, such as tcp://10.0.0.1:8786, "
            f"or local:2, got {repr_plain(cluster)}"
        )
    return None


def import_distributed() -> Any:
    try:
        return importlib.import_module("distributed")
    except ImportError as error:
        raise ParameterError(
            f"cluster needs Dask, which is not installed: {error}; pip install "
            "'leverage-backtest[cluster]'"
        ) from error


def list_missing_tls() -> str:
    config = importlib.import_module("dask").config
    return ", ".join(name for name, key in TLS.items() if config.get(key, None) is None)


@contextlib.contextmanager
def connect(distributed: Any, cluster: str, n_local: int | None) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        address = cluster
        if n_local is not None:
            address = stack.enter_context(start_local(distributed, n_local))
        try:
            client = distributed.Client(address, timeout=WAIT, set_as_default=False)
            stack.enter_context(client)
        except (OSError, ValueError) as error:
            raise BacktestError(f"cannot reach the cluster {cluster}: {error}") from error
        except TypeError as error:  # raised by Dask for tls:// without certificates
            raise BacktestError(
                f"the cluster {cluster} needs the files of certificates, not set: "
                f"{list_missing_tls() or 'none'} of {', '.join(TLS)}"
            ) from error
        try:
            client.wait_for_workers(n_local or 1, timeout=WAIT if n_local is None else None)
        except TimeoutError as error:
            raise BacktestError(
                f"the cluster has no workers after {WAIT:g} s; start one: dask worker {cluster}"
            ) from error
        yield client


@contextlib.contextmanager
def start_local(distributed: Any, n: int) -> Iterator[Any]:
    before = set(os.environ)
    try:
        cluster = distributed.LocalCluster(
            n_workers=n,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=None,
            silence_logs=logging.CRITICAL,
            preload=["backtest.sweep.cluster.preload"],
        )
    except (OSError, RuntimeError) as error:
        raise BacktestError(
            f"cannot start {n} processes on this machine: {error}; a script must do its work "
            "under if __name__ == '__main__':"
        ) from error
    try:
        with cluster:
            yield cluster
    finally:
        for name in set(os.environ) - before:  # set by Dask for its processes
            del os.environ[name]


@contextlib.contextmanager
def silence_dask() -> Iterator[None]:
    dask = importlib.import_module("dask")
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        with dask.config.set(CONFIG):
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
