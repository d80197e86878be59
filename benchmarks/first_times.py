"""Time what a newcomer waits for: first commands, from an empty home. Prints JSON, then a table.

    make wheel && python benchmarks/first_times.py [--repeat 3] [--only run sweep]

Each command starts in a new home and cache without any bytecode, that of libraries included, once
from the wheel in ``build/wheel/env`` and once from a copy of the last commit, as a fresh clone has
it. The least CPU time and the least wall time of the repeats count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from timing import describe_machine, read_flags

ROOT = Path(__file__).resolve().parents[1]
WHEEL = ROOT / "build" / "wheel" / "env" / "bin" / "python"
POLICY = "steady.py"
COMMANDS = {
    "run": ("run",), "sweep": ("sweep", "--vary", "target=0.1,0.2,0.3,0.4,0.5"), "risk": ("risk",),
    "own policy": ("run", "--policy", f"{POLICY}:Steady"), "check": ("check", POLICY),
}  # fmt: skip


class Taken(NamedTuple):
    """Seconds of a command."""

    cpu: float
    wall: float


def read_policy() -> str:
    """Return the policy that the README shows."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.partition(f"# {POLICY}\n")[2].partition("```")[0]


def copy_commit(folder: Path) -> None:
    """Write the files of the last commit into a folder, as a clone does."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "HEAD"], check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)


def take(python: Path, words: tuple[str, ...], *, is_clone: bool) -> Taken:
    """Run a command from an empty home, and return its seconds, those of its children included."""
    with tempfile.TemporaryDirectory() as made:
        home = Path(made, "home")
        place = Path(made, "place")
        home.mkdir()
        place.mkdir()
        if is_clone:
            copy_commit(place)  # the first place where Python looks for modules
        Path(place, POLICY).write_text(read_policy(), encoding="utf-8")

        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPYCACHEPREFIX": str(home / "bytecode"),
        }

        start = time.perf_counter()
        process = subprocess.Popen(
            [str(python), "-m", "backtest", *words], cwd=place, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        errors = b"" if process.stderr is None else process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start

    if status:
        sys.exit(f"backtest {' '.join(words)} failed: {errors.decode()[-2000:]}")
    return Taken(usage.ru_utime + usage.ru_stime, wall)


def main() -> None:
    """Time the commands and print what they took."""
    given = read_flags(__doc__, repeat=3, only=(*COMMANDS,))
    if not WHEEL.exists():
        sys.exit(f"{WHEEL} must exist: make wheel writes it")

    sources = {"wheel": WHEEL, "clone": Path(sys.executable)}
    found: dict[str, dict[str, Taken]] = {}
    for name in given.only:
        for source, python in sources.items():
            is_clone = source == "clone"
            trials = [take(python, COMMANDS[name], is_clone=is_clone) for _ in range(given.repeat)]
            cpu = min(trial.cpu for trial in trials)
            wall = min(trial.wall for trial in trials)
            least = Taken(round(cpu, 2), round(wall, 2))
            found.setdefault(name, {})[source] = least
            sys.stderr.write(f"{name}, {source}: {least.cpu} s of CPU\n")

    plain = {
        name: {source: taken._asdict() for source, taken in row.items()}
        for name, row in found.items()
    }

    lines = [
        json.dumps({"first_seconds": plain, **describe_machine()}, indent=2),
        "\n| first | wheel, CPU | wall | clone, CPU | wall |\n|---|---|---|---|---|",
    ]
    for name, row in found.items():
        cells = [f"{number:.1f} s" for source in sources for number in row[source]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
