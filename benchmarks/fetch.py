"""How long a fetch of a year of minutes takes, and how much memory, from a server on loopback.

    python benchmarks/fetch.py [--months 12] [--interval 1m]

Bars, mark prices and funding of the first months of 2023 come from the server that the tests use,
which runs in a process of its own. Prints JSON: the time that passed, the time that was computed,
the peak of memory, the size of what was stored. The bars for a year of minutes are 60 s, 20 s and
500 MiB.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPLAY = Path(__file__).parent.parent / "tests" / "replay.py"
BARS = {"seconds": 60.0, "computed": 20.0, "peak_mib": 500.0}


def load_replay() -> Any:
    """Return the module of the tests' server, from its file: no package is needed."""
    spec = importlib.util.spec_from_file_location("replay", REPLAY)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(REPLAY)
    module = importlib.util.module_from_spec(spec)
    sys.modules["replay"] = module
    spec.loader.exec_module(module)
    return module


def serve(months: int, interval: str) -> None:
    """Serve the months until there is nobody to serve."""
    names = [f"2023-{month:02d}" for month in range(1, months + 1)]
    with load_replay().Replay(interval=interval).publish(*names).serve() as replay:
        sys.stdout.write(f"{replay.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


def measure(url: str, folder: Path, months: int, interval: str) -> dict[str, float]:
    """Return what a fetch by the command line takes."""
    end = f"2023-{months + 1:02d}-01" if months < 12 else "2024-01-01"
    words = ["data", "fetch", "BTCUSDT", "--from", "2023-01-01", "--to", end]
    words += ["--interval", interval]
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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--months", type=int, default=12)
    parser.add_argument("--interval", default="1m")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    size = ["--months", str(wanted.months), "--interval", wanted.interval]
    if wanted.serve:
        serve(wanted.months, wanted.interval)
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, __file__, "--serve", *size],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as server,
    ):
        if server.stdout is None or server.stdin is None:  # both are pipes
            raise AssertionError("no pipes")
        url = server.stdout.readline().strip()
        found = measure(url, Path(folder) / "btc", wanted.months, wanted.interval)
        server.stdin.close()
    sys.stdout.write(json.dumps({"found": found, "bars": BARS}, indent=1) + "\n")


if __name__ == "__main__":
    main()
