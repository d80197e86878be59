"""A scheduler of Dask and its workers, in processes of their own."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
