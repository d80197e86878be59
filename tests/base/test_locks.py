"""One holder of a lock, and signals that never come into a compiled call."""

import os
import signal
import subprocess
import sys
import types

import pytest

from backtest.base import atomic_files
from backtest.base.atomic_files import LOCK, LockHeldError, hold_lock_file, is_lock_held
from backtest.base.errors import DataError
from backtest.base.thread_pool import SignalGate, hold_signals, is_compiling
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


def test_an_interrupt_waits_for_the_end_of_the_call():
    before = signal.getsignal(signal.SIGINT)
    done = []

    def call() -> None:
        with hold_signals():
            raise_interrupt()
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        call()
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_comes_before_what_the_call_raises():
    def call() -> None:
        with hold_signals():
            raise_interrupt()
            raise ValueError("of a policy")

    with pytest.raises(KeyboardInterrupt) as caught:
        call()
    assert isinstance(caught.value.__context__, ValueError)


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


def test_where_llvm_calls_back_an_interrupt_waits():
    """What is raised there is lost."""
    dispatcher = types.ModuleType("numba.core.dispatcher")
    text = "def _compile_for_args(act):\n    act()\n"
    exec(text, dispatcher.__dict__)
    done = []

    def _raw_object_cache_notify() -> None:
        raise_interrupt()
        done.append("to its end")

    def call() -> None:
        with hold_signals():
            dispatcher._compile_for_args(_raw_object_cache_notify)

    with pytest.raises(KeyboardInterrupt):
        call()
    assert done == ["to its end"]


def test_the_callback_of_llvm_has_the_name_that_is_looked_for():
    engine = pytest.importorskip("llvmlite.binding.executionengine")
    assert callable(engine.ExecutionEngine._raw_object_cache_notify)
    assert callable(engine.ExecutionEngine._raw_object_cache_getbuffer)


def test_while_numba_compiles_an_interrupt_comes_at_once():
    dispatcher = types.ModuleType("numba.core.dispatcher")
    text = "def _compile_for_args(act):\n    act()\n    raise AssertionError('it went on')\n"
    exec(text, dispatcher.__dict__)
    with pytest.raises(KeyboardInterrupt), hold_signals():
        dispatcher._compile_for_args(raise_interrupt)
    assert not is_compiling(sys._getframe())


def test_the_door_of_numbas_compiler_has_the_name_that_is_looked_for():
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
