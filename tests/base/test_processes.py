"""What processes share: locks, signals, and files of compiled code, one writer at a time."""

import contextlib
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import float64, njit

from backtest import DataError
from backtest._compile import arguments, cache_folders, compiler, find_lasting_folder, object_code
from backtest._compile.compiler import compile_entry, jit, read_kinds
from backtest._compile.interruptions import hold_signals
from backtest.core import atomic_files
from backtest.core.atomic_files import LOCK, LockHeldError, hold_lock_file, is_lock_held
from backtest.search.trials import hold_lock

DAMAGES = {
    "empty": lambda content: b"",
    "cut midway": lambda content: content[: len(content) // 2],
    "one byte changed": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "no head": lambda content: b"\x80\x04garbage" * 50,
}


def test_a_second_holder_is_refused_with_the_number_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic_files, "PATIENCE", 0.0)

    with hold_lock(tmp_path):
        with pytest.raises(DataError, match=rf"process \({os.getpid()}\) is already"):
            hold_lock(tmp_path).__enter__()
        with pytest.raises(LockHeldError, match=str(os.getpid())):
            hold_lock_file(tmp_path / LOCK).__enter__()

    assert not is_lock_held(tmp_path / LOCK)
    with hold_lock(tmp_path):
        assert is_lock_held(tmp_path / LOCK)


@pytest.mark.slow
def test_a_process_that_dies_lets_go(tmp_path):
    code = "import os\nfrom pathlib import Path\n"
    code += "from backtest.core.atomic_files import hold_lock_file\n"
    code += f"hold_lock_file(Path({str(tmp_path / LOCK)!r})).__enter__()\nos._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)

    assert (tmp_path / LOCK).read_text().strip().isdigit()
    assert not is_lock_held(tmp_path / LOCK)


@pytest.mark.slow
def test_the_package_imports_without_the_modules_of_unix():
    code = "import sys\nfor name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):\n"
    code += "    sys.modules[name] = None\nimport backtest\n"
    code += "import backtest.results.listing"
    subprocess.run([sys.executable, "-c", code], check=True)


def raise_interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_for_the_end_of_the_call_and_comes_before_what_it_raises():
    before = signal.getsignal(signal.SIGINT)
    done = []

    def call() -> None:
        with hold_signals():
            raise_interrupt()
            done.append("all of it")
            raise ValueError("of a policy")

    with pytest.raises(KeyboardInterrupt) as caught:
        call()

    assert done == ["all of it"]
    assert isinstance(caught.value.__context__, ValueError)
    assert signal.getsignal(signal.SIGINT) is before


def test_all_that_is_held_is_answered_and_all_handlers_come_back():
    """Though the first answer raises, as Ctrl-C does."""
    heard = []
    others = [signal.SIGTERM, signal.SIGALRM]
    before = {x: signal.signal(x, lambda number, _: heard.append(number)) for x in others}
    mine = {x: signal.getsignal(x) for x in (*others, signal.SIGINT)}

    def call() -> None:
        with hold_signals():
            for number in (signal.SIGINT, *others):
                signal.raise_signal(number)

    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        assert heard == others
        assert {number: signal.getsignal(number) for number in mine} == mine
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


STORM = """
import random, signal, warnings
from typing import NamedTuple
import backtest as bt

class Kept(NamedTuple):
    days: float

class Mem(bt.Policy):
    def start(self):
        return Kept(0.0)
    def leverage(self, bar, account, memory):
        return 1.0 + 0.001 * memory.days, Kept(memory.days + 1.0)

warnings.simplefilter("ignore")
venue, account = bt.Venue.preset("binance-usdm", "BTCUSDT"), bt.Account()
market = bt.Market.sample(bars=60)
bt.run(market, Mem(), venue=venue, account=account)
random.seed(0)
signal.signal(signal.SIGALRM, signal.default_int_handler)  # what Ctrl-C raises
for _ in range(40):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.005, 0.03))
        for _ in range(2_000):
            bt.run(market, Mem(), venue=venue, account=account)
    except KeyboardInterrupt:
        pass
print("alive")
"""


@pytest.mark.slow
def test_a_process_outlives_interrupts_of_compiled_runs():
    """Without the guard it dies of a segmentation fault."""
    done = subprocess.run(
        [sys.executable, "-c", STORM], capture_output=True, text=True, timeout=1200, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "alive", done.stderr[-2000:]


def double(x, out):
    out[0] = x + x


@pytest.fixture
def make_entry(tmp_path, monkeypatch):
    """Return a function that makes an entry of the function above; ``made`` counts compilations."""
    monkeypatch.setattr(cache_folders, "list_folders", lambda: (tmp_path,))
    monkeypatch.setattr(cache_folders, "find_object_folder", lambda: tmp_path)
    made = []

    def make(mark: str = "sources"):
        def compile_for(name, given):
            made.append(name)
            return compile_entry(double, name, read_kinds(given))

        return arguments.Entry("double", mark, compile_for)

    make.made = made
    return make


def call_double(entry, x: float) -> float:
    out = np.zeros(1)
    assert entry(x, out) is None
    return float(out[0])


def test_an_object_is_compiled_once_and_loaded_by_later_processes(make_entry, tmp_path):
    assert call_double(make_entry(), 2.0) == 4.0
    assert call_double(make_entry(), 3.0) == 6.0
    assert len(make_entry.made) == 1
    assert make_entry().is_compiled()

    # A process that has no compiler loads it.
    code = "import sys\nfrom pathlib import Path\nfrom backtest._compile import arguments\n"
    code += "from backtest._compile import cache_folders\nimport numpy as np\n"
    code += "folder = Path(sys.argv[1])\ncache_folders.list_folders = lambda: (folder,)\n"
    code += "out = np.zeros(1)\narguments.Entry('double', 'sources', None)(4.0, out)\n"
    code += "print(out[0], 'numba' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["8.0", "False"]


def test_other_sources_and_other_kinds_are_other_objects(make_entry, tmp_path):
    call_double(make_entry(), 2.0)

    assert not make_entry("other sources").is_compiled()
    call_double(make_entry("other sources"), 2.0)

    out = np.zeros(1)
    make_entry()(3, out)  # a whole number
    assert out[0] == 6.0

    assert len(make_entry.made) == 3
    assert len(list(tmp_path.glob("*.o"))) == 3


@pytest.mark.parametrize("way", DAMAGES)
def test_a_damaged_object_is_compiled_again(make_entry, tmp_path, way):
    call_double(make_entry(), 2.0)
    (path,) = tmp_path.glob("*.o")
    path.write_bytes(DAMAGES[way](path.read_bytes()))

    assert call_double(make_entry(), 2.5) == 5.0
    assert len(make_entry.made) == 2
    assert object_code.ObjectFile.read(path) is not None


def test_an_object_that_needs_what_the_process_lacks_is_not_loaded(make_entry, tmp_path):
    """LLVM ends the process for want of a symbol."""
    call_double(make_entry(), 2.0)
    (path,) = tmp_path.glob("*.o")
    found = object_code.ObjectFile.read(path)
    path.write_bytes(found._replace(needs=("a_symbol_of_nobody",)).pack())

    assert call_double(make_entry(), 2.5) == 5.0
    assert len(make_entry.made) == 2


def test_what_cannot_be_written_is_compiled_and_not_kept(make_entry, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(object_code, "write_file", refuse)
    monkeypatch.setattr("filelock.FileLock.acquire", refuse)

    assert call_double(make_entry(), 2.0) == 4.0
    assert list(tmp_path.glob("*.o")) == []


def test_a_processor_gets_the_objects_of_its_level():
    third = dict.fromkeys(cache_folders.LEVELS["x86-64-v3"], True)
    fourth = third | dict.fromkeys(cache_folders.LEVELS["x86-64-v4"], True)

    assert cache_folders.choose_levels({}) == []
    assert cache_folders.choose_levels(third) == ["x86-64-v3"]
    assert cache_folders.choose_levels(fourth) == ["x86-64-v4", "x86-64-v3"]
    assert cache_folders.choose_levels(fourth | {"avx2": False}) == []


def test_a_folder_that_cannot_be_made_is_none(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BACKTEST_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(cache_folders.tempfile, "gettempdir", lambda: str(tmp_path / "file"))

    assert find_lasting_folder() is None


def test_without_fast_links_numba_compiles_by_itself(monkeypatch):
    monkeypatch.setattr(compiler, "CAN_LINK", False)
    add = jit(lambda x, k: x + k)
    both = jit(lambda x: add(x, 1) * add(x, 2), is_linked=False)

    address = object_code.load(compile_entry(both, "both", (float64,))).address

    # at 3: the product of 4 and 5
    found = arguments.call("both", arguments.CALLED(address), "d", struct.pack("d", 3.0))
    assert found == 20.0
    assert njit(lambda x: x + 1.0)(1.0) == 2.0


FAR = """
import ctypes, warnings
import backtest as bt
from backtest._compile import object_code
from backtest.strategies import Constant

system = ctypes.CDLL(None)
system.mmap.restype = ctypes.c_void_p
system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
system.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

def reserve(size):
    return system.mmap(None, size, 0, 0x4022, -1, 0)  # private, of no file, and not in memory

object_code.start_loader()
page = reserve(4096)
low = reserve(3 << 30)
while reserve(16384) > low:  # until no hole above is left
    pass
system.munmap(page, 4096)  # but one, with room for constants and not for code

warnings.simplefilter("ignore")
venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
result = bt.run(bt.Market.sample(bars=60), Constant(2.0), venue=venue, account=bt.Account())
print(len(result.bars))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="maps memory by the numbers of Linux")
def test_code_loads_beside_its_constants_where_memory_is_full_of_holes():
    """Where they are 2 GB apart, LLVM ends the process."""
    done = subprocess.run(
        [sys.executable, "-c", FAR], capture_output=True, text=True, timeout=1200, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "60"


TWO = """
import sys, time
from pathlib import Path
import numpy as np
from backtest._compile import arguments, cache_folders
from backtest._compile.compiler import compile_entry, read_kinds
folder = Path(sys.argv[1])
cache_folders.list_folders = lambda: (folder,)
cache_folders.find_object_folder = lambda: folder
def double(x, out):
    out[0] = x + x
def compile_for(name, given):
    print("compiled")
    time.sleep(0.5)
    return compile_entry(double, name, read_kinds(given))
out = np.zeros(1)
arguments.Entry("double", "sources", compile_for)(2.0, out)
print(out[0])
"""


@pytest.mark.slow
def test_one_of_two_processes_compiles_and_the_other_waits(tmp_path):
    command = [sys.executable, "-c", TWO, str(tmp_path)]
    folder = Path(__file__).parents[2]
    two = [subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) for _ in "ab"]

    said = [process.communicate()[0].split() for process in two]
    assert sorted(said) == [["4.0"], ["compiled", "4.0"]]


def test_a_folder_that_another_process_moved_is_copied_again(tmp_path, monkeypatch):
    target = tmp_path / "run"
    copy = shutil.copytree
    target.mkdir()
    (target / "note").touch()

    def copy_moved(*given, **named):
        monkeypatch.setattr(shutil, "copytree", copy)
        moved = target.rename(tmp_path / "moved")
        with contextlib.ExitStack() as stack:
            stack.callback(moved.rename, target)
            copy(*given, **named)

    monkeypatch.setattr(shutil, "copytree", copy_moved)

    with atomic_files.drafted_folder(target, ".saving-") as draft:
        (draft / "bars").touch()
    assert sorted(path.name for path in target.iterdir()) == ["bars", "note"]
