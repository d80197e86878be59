"""Preload of local workers: leave Ctrl-C to the process that started them."""

import signal


def dask_setup(worker: object) -> None:  # noqa: ARG001 - Dask calls it so
    signal.signal(signal.SIGINT, signal.SIG_IGN)
