"""How long a fetch of a year of minutes takes, and how much memory, from a server on loopback.

    PYTHONPATH=. python benchmarks/fetch.py

Bars, mark prices and funding of twelve months come from the server that the tests use, which runs
in a process of its own. Prints JSON: the time that passed, the time that was computed, the peak of
memory, the size of what was stored. The bars are 60 s, 20 s and 500 MiB.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.replay import Replay

MONTHS = [f"2023-{month:02d}" for month in range(1, 13)]
BARS = {"seconds": 60.0, "computed": 20.0, "peak_mib": 500.0}


def serve() -> None:
    """Serve a year until there is nobody to serve."""
    with Replay(interval="1m").publish(*MONTHS).serve() as replay:
        sys.stdout.write(f"{replay.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


def measure(url: str, folder: Path) -> dict[str, float]:
    """Return what a fetch by the command line takes."""
    words = ["data", "fetch", "BTCUSDT", "--from", "2023-01-01", "--to", "2024-01-01"]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "backtest", *words, "--out", str(folder), "--base-url", url],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    computed = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    stored = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "seconds": round(seconds, 2),
        "computed": round(computed, 2),
        "peak_mib": round(after.ru_maxrss / 1024, 1),
        "stored_mb": round(stored / 1e6, 1),
    }


def main() -> None:
    """Start the server, fetch, print."""
    if sys.argv[1:] == ["--serve"]:
        serve()
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server,
    ):
        if server.stdout is None or server.stdin is None:  # both are pipes
            raise AssertionError("no pipes")
        found = measure(server.stdout.readline().strip(), Path(folder) / "btc")
        server.stdin.close()
    sys.stdout.write(json.dumps({"found": found, "bars": BARS}, indent=1) + "\n")


if __name__ == "__main__":
    main()
