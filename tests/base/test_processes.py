"""What processes share: locks, signals, and files of compiled code, one writer at a time."""

import importlib.util
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from numba import int64, njit

from backtest.base import atomic_files, compiler, fast_link, kernels
from backtest.base.atomic_files import LOCK, LockHeldError, hold_lock_file, is_lock_held
from backtest.base.compiler import jit
from backtest.base.errors import DataError
from backtest.base.kernels import find_lasting_folder
from backtest.engine.held_signals import SignalGate, hold_signals, is_compiling
from backtest.tune.trials import hold_lock


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
    code += "from backtest.base.atomic_files import hold_lock_file\n"
    code += f"hold_lock_file(Path({str(tmp_path / LOCK)!r})).__enter__()\nos._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / LOCK).read_text().strip().isdigit()
    assert not is_lock_held(tmp_path / LOCK)


@pytest.mark.slow
def test_the_package_imports_without_the_modules_of_unix():
    code = "import sys\nfor name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'):\n"
    code += "    sys.modules[name] = None\nimport backtest\n"
    code += "import backtest.store"
    subprocess.run([sys.executable, "-c", code], check=True)


# ----------------------------------------------------------------------------------------- signals


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
    before = {each: signal.signal(each, lambda number, _: heard.append(number)) for each in others}
    mine = {each: signal.getsignal(each) for each in (*others, signal.SIGINT)}

    def call() -> None:
        with hold_signals():
            for each in (signal.SIGINT, *others):
                signal.raise_signal(each)

    try:
        with pytest.raises(KeyboardInterrupt):
            call()
        assert heard == others
        assert {each: signal.getsignal(each) for each in mine} == mine
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_an_open_gate_lets_signals_pass():
    """One that an interrupt left in the place of a handler must not swallow what comes later."""
    heard = []
    gate = SignalGate()
    gate.handle(lambda *_: heard.append("kept"), signal.SIGTERM, None)
    assert (heard, len(gate.kept)) == ([], 1)
    gate.is_closed = False
    gate.handle(lambda *_: heard.append("passed"), signal.SIGTERM, None)
    assert heard == ["passed"]


def make_dispatcher(text: str) -> Any:
    """Return a module that is called as numba's, with these lines after the call of ``act``."""
    dispatcher = types.ModuleType("numba.core.dispatcher")
    exec(f"def _compile_for_args(act):\n    act()\n{text}", dispatcher.__dict__)
    return dispatcher


def test_where_llvm_calls_back_an_interrupt_waits():
    """What is raised there is lost."""
    done = []

    def _raw_object_cache_notify() -> None:
        raise_interrupt()
        done.append("to its end")

    with pytest.raises(KeyboardInterrupt), hold_signals():
        make_dispatcher("")._compile_for_args(_raw_object_cache_notify)
    assert done == ["to its end"]


def test_while_numba_compiles_an_interrupt_comes_at_once():
    dispatcher = make_dispatcher("    raise AssertionError('it went on')\n")
    with pytest.raises(KeyboardInterrupt), hold_signals():
        dispatcher._compile_for_args(raise_interrupt)
    assert not is_compiling(sys._getframe())


def test_what_is_looked_for_on_the_stack_has_its_name():
    engine = pytest.importorskip("llvmlite.binding.executionengine")
    assert callable(engine.ExecutionEngine._raw_object_cache_notify)
    assert callable(engine.ExecutionEngine._raw_object_cache_getbuffer)
    dispatcher = pytest.importorskip("numba.core.dispatcher")
    assert dispatcher._DispatcherBase._compile_for_args.__code__.co_name == "_compile_for_args"


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
    assert (done.returncode, done.stdout.strip()) == (0, "alive"), done.stderr[-2000:]


# ------------------------------------------------------------------------------- compiled code


TEXT = "def double(x):\n    return x + x\n"
DAMAGES = {
    "empty": lambda content: b"",
    "cut midway": lambda content: content[: len(content) // 2],
    "garbage": lambda content: b"\x80\x04garbage" * 50,
}


@pytest.fixture
def function(tmp_path, monkeypatch):
    """Return a function that stands in a file, as numba's cache wants it."""
    path = tmp_path / "small.py"
    path.write_text(TEXT)
    spec = importlib.util.spec_from_file_location("small", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "small", module)  # the cache refers to it by name
    spec.loader.exec_module(module)
    return module.double


def find_code(tmp_path) -> list[Path]:
    return sorted(tmp_path.rglob("*.nbc"))


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("end", ["nbc", "nbi"])
def test_damaged_code_is_compiled_again(function, tmp_path, way, end):
    jit(function, cache=True)(2.0)
    (path,) = tmp_path.rglob(f"*.{end}")
    path.write_bytes(DAMAGES[way](path.read_bytes()))
    again = jit(function, cache=True)
    assert again(2.0) == 4.0
    assert sum(again.stats.cache_misses.values()) == 1
    healed = jit(function, cache=True)
    assert healed(2.0) == 4.0
    assert not healed.stats.cache_misses


def test_what_cannot_be_written_is_compiled_and_not_kept(function, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(compiler.FunctionCache, "save_overload", refuse)
    monkeypatch.setattr(compiler.FileLock, "acquire", refuse)
    assert jit(function, cache=True)(2.0) == 4.0
    assert find_code(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_none(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BACKTEST_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(kernels.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    assert find_lasting_folder() is None


def test_code_from_the_cache_is_linked_though_its_first_caller_dropped_the_call(function):
    """LLVM links none of it that nothing calls yet; the second caller then called address 0."""
    inner: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    jit(function, cache=True, **inner).compile((int64,))
    kept = jit(function, cache=True, **inner)
    idle = jit(lambda n: kept(n) if n - n != 0 else n, cache=False, **inner)
    busy = jit(lambda n: kept(n) + 1, cache=False, **inner)
    whole = jit(lambda n: idle(n) + busy(n), cache=False)
    assert whole(3) == 10
    assert sum(kept.stats.cache_hits.values()) == 1


def test_without_fast_links_numba_compiles_by_itself(monkeypatch):
    monkeypatch.setattr(fast_link, "CAN_LINK", False)
    add = jit(lambda x, k: x + k, cache=False, no_cpython_wrapper=True)
    both = jit(lambda x: add(x, 1) * add(x, 2), cache=False)
    before = fast_link.CODEGEN._library_class
    assert both(3.0) == 20.0
    assert fast_link.CODEGEN._library_class is before
    assert type(next(iter(both.overloads.values())).library) is before
    assert njit(lambda x: x + 1.0)(1.0) == 2.0


TWO = """
import sys, time
from pathlib import Path
from backtest.base import compiler
sys.path.insert(0, sys.argv[1])
import small
compile_one = compiler.FunctionCache.save_overload
def save(*given):
    time.sleep(0.5)
    compile_one(*given)
compiler.FunctionCache.save_overload = save
double = compiler.jit(small.double, cache=True)
print(double(2.0), double(3), *double.stats.cache_misses.values())
"""


def test_one_of_two_processes_compiles_and_the_other_waits(function, tmp_path):
    """numba's index forgets one of two writers, and mixes up their code."""
    command = [sys.executable, "-c", TWO, str(tmp_path)]
    folder = Path(__file__).parents[2]
    two = [subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    said = [each.communicate()[0].split() for each in two]
    assert [each[:2] for each in said] == [["4.0", "6"]] * 2
    assert sum(len(each) - 2 for each in said) == 2
