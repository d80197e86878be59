"""A first run answers in plain Python where that is sooner, to the same bits and the same bytes."""

import fcntl
import math
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pytest

import backtest as bt
from backtest.base import compile_choice, kernels
from backtest.base.argument_types import name_types, outline_argument, rebuild_argument
from backtest.base.code_identity import describe_function
from backtest.base.compile_choice import is_plain_sooner, read_mode, set_hurry
from backtest.engine import loop_driver
from backtest.engine.compile import background_compiler, plain_or_compiled
from backtest.engine.compile.plain_or_compiled import estimate_plain
from backtest.engine.compile.recipe import write_recipe
from backtest.engine.compile.rule_pickles import pack_rule
from backtest.engine.compile.same_bits import gives_same_bits
from backtest.features import rolling_kernels
from backtest.policy.policy import formula_for
from backtest.strategies.cppi import Cppi
from backtest.strategies.vol_target import VolTarget

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
ACCOUNT = bt.Account()
ROOT = Path(__file__).parents[2]


def run(policy: bt.Policy, **given):
    market = bt.Market.sample(bars=400)
    return bt.run(market, policy, venue=VENUE, account=ACCOUNT, **given)


@pytest.fixture
def cold(monkeypatch, tmp_path):
    """Nothing is compiled, and whoever compiles is caught; return what the background is given."""
    given = []

    def refuse(*_):
        raise AssertionError("compiled")

    monkeypatch.setenv("BACKTEST_COMPILE", "auto")
    monkeypatch.setattr(compile_choice, "_spent", {})
    monkeypatch.setattr(plain_or_compiled, "find_rules_folder", lambda: tmp_path)
    monkeypatch.setattr(kernels.Kernel, "mark", lambda self, key: tmp_path / key)
    kernels.compile_module.cache_clear()  # kernels of other tests are compiled already
    compile_choice.pop_kernels()  # or wait to be
    monkeypatch.setattr(kernels.Kernel, "compiled", property(refuse))
    monkeypatch.setattr(loop_driver, "build_compiled", refuse)
    monkeypatch.setattr(background_compiler, "start_compiling", lambda *order: given.append(order))
    yield given
    kernels.compile_module.cache_clear()
    compile_choice.pop_kernels()
    set_hurry(False)


def test_a_first_run_compiles_nothing_before_it_answers(cold):
    run(VolTarget())
    ((kernels, loop),) = cold
    assert [each.name for each in kernels] == ["ewma_lanes"]
    assert loop.recipe == write_recipe(VolTarget(), ("sigma",))


def test_the_answer_does_not_tell_which_way_it_came(cold, monkeypatch):
    first = run(VolTarget())
    monkeypatch.undo()
    again = run(VolTarget())
    assert len(cold) == 1
    assert again.manifest == first.manifest
    assert again.manifest["compiled"] == "yes"
    assert again.record.values.tobytes() == first.record.values.tobytes()
    assert again.entries.tobytes() == first.entries.tobytes()
    assert again.tally == first.tally


def test_what_is_compiled_is_used(cold, tmp_path):
    run(VolTarget())
    ((_, loop),) = cold
    plain_or_compiled.mark_ready(loop)
    with pytest.raises(AssertionError, match="compiled"):
        run(VolTarget())


def test_what_the_background_tried_twice_is_compiled_in_front(cold):
    run(VolTarget())
    ((_, loop),) = cold
    loop.tries.write_bytes(b"..")
    with pytest.raises(AssertionError, match="compiled"):
        run(VolTarget())


@pytest.mark.parametrize("estimator", ["ewma", "parkinson", "yang-zhang", "har"])
def test_estimators_of_ranges_answer_at_once_as_well(cold, estimator):
    run(VolTarget(estimator=estimator))
    assert len(cold) == 1


def test_a_kernel_that_raises_in_plain_python_is_undone_and_compiled(cold, monkeypatch):
    def spoil(values, out):
        out[:] = 1.0
        raise ValueError("math domain error")

    monkeypatch.setattr(rolling_kernels, "add_up", spoil)
    kernel = kernels.Kernel(rolling_kernels, "add_up")
    values, out = np.zeros(3), np.full((5, 3), 7.0)
    set_hurry(True)
    with pytest.raises(AssertionError, match="compiled"):
        kernel(values, out)
    assert (out == 7.0).all()


def test_a_long_market_compiles_first(cold):
    run(VolTarget())
    ((_, loop),) = cold
    rules = loop.arguments[0]
    policies = [(VolTarget(), ("sigma",))]
    answers = [
        plain_or_compiled.is_loop_plain(loop, policies, estimate_plain(rules, n_bars))
        for n_bars in (8_760, 525_600)
    ]
    assert answers == [True, False]
    stopped = rules._replace(instrument=rules.instrument._replace(has_stop=True))
    assert estimate_plain(stopped, 100) > estimate_plain(rules, 100)


def test_many_short_runs_pay_for_the_compiler(cold):
    """In one process they count together."""
    set_hurry(True)
    answers = [is_plain_sooner("a", 1.0, 3.5) for _ in range(6)]
    assert answers == [True, True, True, False, False, False]
    assert is_plain_sooner("b", 1.0, 3.5)


def test_an_estimate_is_lower_for_a_known_kind_of_account(cold):
    run(VolTarget())
    ((_, loop),) = cold
    first = plain_or_compiled.estimate_compiling(loop)
    (loop.marks[1].parent / "account-other.ready").touch()
    other = plain_or_compiled.estimate_compiling(loop)
    loop.marks[1].touch()
    assert first > other > plain_or_compiled.estimate_compiling(loop)


def test_sweeps_and_checks_compile_first(cold):
    set_hurry(False)
    assert not is_plain_sooner("a", 1.0, 9.0)
    set_hurry(True)
    with compile_choice.compiling_first():
        assert not is_plain_sooner("a", 1.0, 9.0)
    assert is_plain_sooner("a", 1.0, 9.0)


def test_compile_false_stays_plain(cold):
    assert run(VolTarget(), compile=False).manifest["compiled"] == "compile=False"
    assert cold == []


class Typo(bt.Policy):
    def leverage(self, bar, account):
        return bar.clsoe


class Root(bt.Policy):
    def leverage(self, bar, account):
        return math.sqrt(bar.open - bar.close)


def test_a_mistake_is_notified_at_once(cold):
    with pytest.raises(bt.PolicyError, match="clsoe"):
        run(Typo())


def test_where_only_plain_python_raises_it_is_compiled(cold):
    """The root of a negative number is NaN when compiled."""
    with pytest.raises(AssertionError, match="compiled"):
        run(Root())
    assert cold == []


def test_an_unknown_word_is_refused(monkeypatch):
    monkeypatch.setenv("BACKTEST_COMPILE", "never")
    with pytest.raises(bt.ParameterError, match="BACKTEST_COMPILE must be one of auto, no, now"):
        read_mode()


# --------------------------------------------------------------------------------- the same bits

K = 3


def helper(x: float) -> float:
    return max(x, 0.5) * math.exp(-abs(x))


def powered(x: float) -> float:
    return x**0.5


def factorial(x: float) -> float:
    product = 1
    for k in range(1, 25):
        product = product * k
    return x / product


def add(x: float) -> float:
    total = 0.0
    for k in range(3):
        total += k * x
    return total


def from_local(rule: Any, base: float) -> float:
    local = 16.0
    return local**rule.power + base**rule.power


def start_whole(x: Any) -> float:
    total = x.n
    for _ in range(3):
        total = total * total
    return total


class Powers(bt.Policy):
    power: Annotated[float, bt.Range(0.5, 3.0)] = 1.5
    n: Annotated[int, bt.Range(1, 3)] = 2


FORMULAS = {
    "arithmetic": (lambda self, bar, account: bar.close / bar.open - 2 * account.drawdown, True),
    "a choice": (lambda self, bar, account: 1.0 if bar.close > bar.open else self.power, True),
    "a helper": (lambda self, bar, account: helper(bar.close) * K, True),
    "a whole number that grows": (lambda self, bar, account: factorial(bar.close), False),
    "a whole parameter that grows": (lambda self, bar, account: start_whole(self), False),
    "a large whole number": (lambda self, bar, account: bar.close * 2**40, False),
    "a sum": (lambda self, bar, account: add(bar.close), True),
    "a base written out": (lambda self, bar, account: 2.0**self.power, False),
    "a global base": (lambda self, bar, account: K**self.power, False),
    "a local base": (lambda self, bar, account: from_local(self, 2.0), False),
    "a base that is worked out": (
        lambda self, bar, account: (bar.close / bar.open) ** self.power,
        True,
    ),
    "a power that is a parameter": (lambda self, bar, account: bar.close**self.power, True),
    "a whole power": (lambda self, bar, account: bar.close**self.n, False),
    "a power written out": (lambda self, bar, account: bar.close**3, False),
    "a power of a global": (lambda self, bar, account: bar.close**K, False),
    "a power in a helper": (lambda self, bar, account: powered(bar.close), False),
    "numpy's functions": (lambda self, bar, account: np.exp(bar.close), False),
    "numpy's constants": (lambda self, bar, account: np.nan, True),
    "a remainder": (lambda self, bar, account: bar.close % 2.0, False),
    "no answer": (lambda self, bar, account: None, False),
    "a text": (lambda self, bar, account: 1.0 if self.n == "a" else 2.0, False),
    "a method": (lambda self, bar, account: bar.close.conjugate(), False),
    "a whole number of a float": (lambda self, bar, account: math.floor(bar.close), False),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_is_known_to_give_the_same_bits(name):
    rule, is_same = FORMULAS[name]
    assert gives_same_bits(rule, Powers()) is is_same


def test_a_builtin_name_that_is_the_users_own_is_not_trusted():
    scope: dict = {}
    exec("def max(a, b): return a ** 2\ndef rule(self, bar, account): return max(1.0, 2.0)", scope)
    assert not gives_same_bits(scope["rule"], Powers())


# ------------------------------------------------------------------------------- on the way there


def test_outlines_keep_the_types():
    class Pair(NamedTuple):
        first: object
        second: object

    fixed = np.zeros(5)
    fixed.flags.writeable = False
    for value in (
        *(np.zeros((4, 6)), np.asfortranarray(np.zeros((4, 6))), np.zeros((4, 6))[::2, ::2], fixed),
        *((1, 2.0, True, None, "word"), Pair(np.zeros(3, dtype=np.int64), (np.float64(1.0),))),
    ):
        told = outline_argument(value)
        assert outline_argument(rebuild_argument(told)) == told
        assert name_types(outline_argument(rebuild_argument(told))) == name_types(told)
    assert name_types(outline_argument(np.zeros(2))) != name_types(outline_argument(fixed))
    assert name_types(1) != name_types(1.0) != name_types(True)


USERS = """
from typing import NamedTuple
import backtest as bt

print("runs once")

class Kept(NamedTuple):
    days: float

def grow(days):
    return days + 1.0

class Own(bt.Policy):
    def start(self):
        return Kept(0.0)

    def leverage(self, bar, account, memory):
        return 1.0, Kept(grow(memory.days))
"""

READ = """
import pickle, sys
from backtest.base.code_identity import describe_function
from backtest.engine.compile.rule_pickles import unpack_rule
rule, memory = unpack_rule(pickle.load(sys.stdin.buffer))
print(describe_function(rule, {}).text == sys.argv[1], memory is sys.modules["own"].Kept)
"""


@pytest.mark.slow
def test_a_users_formula_travels_as_code(tmp_path, monkeypatch):
    """The file is not run a second time."""
    (tmp_path / "own.py").write_text(USERS)
    monkeypatch.syspath_prepend(tmp_path)
    own = __import__("own")
    recipe = write_recipe(own.Own(), ())
    content = pickle.dumps(pack_rule(recipe))
    text = describe_function(formula_for(own.Own(), ()), {}).text
    done = subprocess.run(
        [sys.executable, "-c", READ, text], input=content, capture_output=True, check=True, cwd=ROOT
    )
    assert done.stdout.decode().split() == ["True", "True"]
    del sys.modules["own"]


def test_our_own_formulas_travel_by_name():
    for policy, columns in ((VolTarget(), ("sigma",)), (Cppi(), ())):
        assert len(pack_rule(write_recipe(policy, columns))) < 300


# ------------------------------------------------------------------------------- in the background


# ------------------------------------------------------------------------------ the whole of it

COLD = [sys.executable, "-c", "from backtest.cli import main; raise SystemExit(main())", "run"]
COUNT = """
import atexit, sys
from numba.core import event

class Count(event.Listener):
    n = 0
    def on_start(self, event):
        Count.n += 1
    def on_end(self, event):
        pass

event.register("numba:compile", Count())
from backtest.cli import main
code = main(["run", "--no-save", "--json"])
print("compiled", Count.n, file=sys.stderr)
raise SystemExit(code)
"""


def wait_for_the_child(folder: Path) -> None:
    """Wait until no process holds the lock."""
    with (folder / background_compiler.LOCK).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def cold_environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "CI"}
    return {**kept, "BACKTEST_CACHE_DIR": str(folder), "BACKTEST_COMPILE": "auto"}


def call(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command, and wait for what it leaves in the background."""
    done = subprocess.run(
        command, env=cold_environment(folder), capture_output=True, text=True, check=True, cwd=ROOT
    )
    wait_for_the_child(folder)
    return done


@pytest.mark.slow
def test_the_second_run_loads_what_the_child_of_the_first_compiled(tmp_path):
    cold = [*COLD, "--no-save", "--json"]
    first = call(cold, tmp_path)
    assert first.stderr == f"note: {background_compiler.NOTE}\n"
    if not list(tmp_path.glob("rules-*/account-*.ready")):  # a slow machine: it is given a minute
        call(cold, tmp_path)
    again = call([sys.executable, "-c", COUNT], tmp_path)
    assert again.stderr == "compiled 0\n"
    assert again.stdout == first.stdout
    assert not list(tmp_path.rglob(".new-*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_is_interrupted_leaves_no_process(tmp_path, number):
    """Not even one that compiles."""
    text = "import time\nfrom backtest.cli.app import main\n"
    text += "main(['run', '--no-save'])\nprint('done', flush=True)\ntime.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", text],
        env=cold_environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    ) as program:
        assert any(line == "done\n" for line in program.stdout)
        program.send_signal(number)
    wait_for_the_child(tmp_path)
    assert not list(tmp_path.glob("rules-*/*.ready"))
