"""Formulas give the same numbers in plain Python, called back and compiled."""

import importlib.util
import math
import random
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backtest as bt
from backtest._compile.bytecode import rewrite_formula
from backtest._compile.plain_formula import make_plain
from backtest.core import Number
from tests.kit import check_refused

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
INF = math.inf
NAN = math.nan


@pytest.mark.parametrize(("found", "expected"), [
    (Number(1.0) / 0.0, INF),
    (-1.0 / Number(0.0), -INF),
    (1 / Number(-0.0), -INF),
    (Number(0.0) / 0, NAN),
    (Number(INF) / 0.0, INF),
    (Number(5.0) // 0.0, INF),
    (5.0 % Number(0.0), NAN),
    (Number(7.5) // 2, 3.0),
    (-7.5 % Number(2.0), 0.5),
    (Number(0.0) ** -1, INF),
    (Number(-8.0) ** (1.0 / 3.0), NAN),
    (2 ** Number(4000.0), INF),
    (Number(1e308) * 10.0, INF),
    (-Number(2.0), -2.0),
    (abs(Number(-2.0)), 2.0),
    (+Number(-2.0), -2.0),
    (round(Number(2.675), 2), 2.68),  # 2.675 * 100 is 267.5, and half goes to even
    (round(Number(1234.5), -2), 1200.0),
    (np.float64(1.0) + Number(2.0), 3.0),
    (sum((Number(0.1), Number(0.2))), 0.1 + 0.2),
])  # fmt: skip
def test_arithmetic_stays_in_the_class_and_follows_ieee_754(found, expected):
    assert type(found) is Number
    if math.isnan(expected):
        assert math.isnan(found)
    else:
        assert found == expected


def test_comparisons_are_bools_that_add_up():
    x = Number(2.0)
    assert (x > 1.0) + (x < 3) + (np.float64(3.0) > x) + (x == 2) == 4
    assert type(np.float64(3.0) > x) is bool


def test_what_is_no_number_is_refused_as_ever_and_arrays_are_numpys():
    with pytest.raises(TypeError):
        Number(1.0) + "a"  # type: ignore[operator]
    with pytest.raises(TypeError):
        Number(1.0) / None  # type: ignore[operator]

    products = (np.ones(2) * Number(2.0), Number(2.0) * np.ones(2))
    for product in products:
        assert product.tolist() == [2.0, 2.0]
    assert isinstance(np.asarray([Number(1.0)]), np.ndarray)


NOTHING = 0.0
NUMPYS = np.float64(2.0)


def divide_by_nothing(x: Any) -> Any:
    return math.sqrt(x) / NOTHING


def collect(x: Any) -> Any:
    def half(y: Any) -> Any:
        return y / 0.0

    return (
        divide_by_nothing(x), (np.sqrt(x) > 1) + (np.sqrt(NUMPYS) > 1), math.sqrt(-1.0),
        math.log(0.0), float(x) / 0, 1.0 / max(0.0, -x), half(1),
        max([each / 0.0 for each in (1.0,)]),
        1.0 / bt.math.exp(-1000.0), np.sign(x) / np.maximum(0.0, -1.0),
    )  # fmt: skip


def test_constants_names_and_functions_of_a_formula_are_such_numbers():
    found = make_plain(collect)(Number(4.0))

    assert found[1] == 2
    assert math.isnan(found[2])
    assert found[3] == -INF
    assert [value for k, value in enumerate(found) if k not in (1, 2, 3)] == [INF] * 7


def root_or_nothing(x: Any) -> Any:
    try:
        return math.sqrt(x)
    except ValueError:
        return 0.0


def test_functions_of_math_raise_where_a_formula_catches_errors():
    assert make_plain(root_or_nothing)(Number(-1.0)) == 0.0


def test_where_and_clip_return_such_numbers():
    def choose(x: Any) -> Any:
        return (np.where(x > 1.0, x, 0.0) / 0.0, np.clip(x, 0.0, 2.0) / 0.0, np.median([x]) / 0.0)

    assert make_plain(rewrite_formula(choose))(Number(4.0)) == (INF, INF, INF)


CALLS = 0


def test_names_that_a_formula_writes_are_those_of_its_module_and_of_functions_around_it():
    seen = 0

    def count(x: Any) -> Any:
        global CALLS  # noqa: PLW0603 - what is tested
        nonlocal seen
        CALLS += 1
        seen += 1
        return x / 0.0

    assert make_plain(count)(Number(1.0)) == INF
    assert CALLS == 1
    assert seen == 1


def test_a_changing_name_of_its_module_are_read_at_the_time(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "NOTHING", 2.0)
    assert make_plain(divide_by_nothing)(Number(16.0)) == 2.0


class Votes(bt.Policy):
    """One x for each vote."""

    def observe(self, market):
        close = market.bars()["close"]
        return {"fast": close.ewm(4).mean().to_numpy(), "slow": close.ewm(40).mean().to_numpy()}

    def leverage(self, bar, account):
        return ((bar.close > bar.slow) + (bar.fast > bar.slow)) * 1.0


TABLE = {"scale": 1.0}


class RefusedVotes(Votes):
    def leverage(self, bar, account):
        return ((bar.close > bar.slow) + (bar.fast > bar.slow)) * TABLE["scale"]


class Squared(bt.Policy):
    """The squares of nanoseconds have 121 bits."""

    def leverage(self, bar, account):
        return int(bar.time * 1e9) ** 2 % 997 / 997


class Hashed(bt.Policy):
    """Products of 31 and 32 bits; the second product has up to 94 bits."""

    def leverage(self, bar, account):
        return (int(bar.time) * 2654435761 * 2654435761 >> 33) % 1000 / 1000


class Small(bt.Policy):
    """Whole numbers that stay small."""

    def leverage(self, bar, account):
        return int(bar.time) % 7 / 7


class Tanh(bt.Policy):
    def leverage(self, bar, account):
        return np.tanh(bar.close)


def run(policy: bt.Policy, *, is_compiled: bool, bars: int = 96) -> bt.Result:
    market = bt.Market.sample(bars=bars)
    return bt.run(market, policy, venue=VENUE, account=bt.Account(), compile=is_compiled)


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize(("policy", "told"), [
    (Votes(), "yes"),
    (RefusedVotes(), "TABLE"),
    (Squared(), "whole numbers beyond 64 bits are not supported"),
    (Hashed(), "whole numbers beyond 64 bits are not supported"),
    (Small(), "yes"),
    (Tanh(), "np.tanh is not supported in compiled code, where its last digit may differ"),
], ids=lambda given: type(given).__name__ if isinstance(given, bt.Policy) else "")  # fmt: skip
def test_a_formula_has_one_number_however_it_runs(policy, told):
    plain = run(policy, is_compiled=False)
    fast = run(policy, is_compiled=True)

    assert plain.record.positions.target.tobytes() == fast.record.positions.target.tobytes()
    assert told in fast.manifest["compiled"]
    assert plain.record.positions.target.max() > 0.0


def test_votes_count_in_plain_python():
    result = run(Votes(), is_compiled=False, bars=300)
    assert result.record.positions.target.max() == 2.0


def test_a_division_of_whole_numbers_by_zero_is_an_error():
    class Divided(bt.Policy):
        def leverage(self, bar, account):
            return 1 // (int(bar.time) * 0)

    check_refused(lambda: run(Divided(), is_compiled=False), "ZeroDivisionError", bt.PolicyError)


FLOATS_OF_ONE = (
    "math.sqrt({})", "np.sqrt({})", "abs({})", "math.fabs({})", "np.abs({})", "np.floor({})",
    "np.ceil({})", "np.trunc({})", "np.rint({})", "np.sign({})", "math.exp({})", "math.log({})",
    "np.exp({})", "np.log({})", "float({})", "-({})", "+({})", "round({}, 2)", "np.negative({})",
    "round({}, -1)", "np.square({})", "bt.math.normal_cdf({})",
    "np.clip({}, -1.0, 2.0)", "np.where({} > 0.5, a, b)",
)  # fmt: skip
FLOATS_OF_TWO = (
    "({} + {})", "({} - {})", "({} * {})", "({} / {})", "({} // {})", "({} % {})", "({} ** {})",
    "max({}, {})", "min({}, {})", "np.maximum({}, {})", "np.minimum({}, {})",
    "math.copysign({}, {})", "math.pow({}, {})", "np.power({}, {})", "pow({}, {})",
)  # fmt: skip
COMPARISONS = ("({} > {})", "({} < {})", "({} >= {})", "({} <= {})", "({} == {})", "({} != {})")
TESTS = ("math.isnan({})", "np.isnan({})", "math.isinf({})", "np.isfinite({})", "bool({})")
WHOLE_OF_TWO = (
    "({} + {})", "({} - {})", "({} * {})", "({} // {})", "({} % {})", "({} & {})", "({} | {})",
    "({} ^ {})", "max({}, {})", "min({}, {})", "({} << 2)", "({} ** 2)", "({} >> 1)",
)  # fmt: skip
WHOLE_OF_ONE = ("int({})", "math.floor({})", "math.ceil({})", "round({})", "math.trunc({})")
VALUES = (
    0.0, -0.0, 1.0, -1.0, 2.5, -3.7, 1e308, -1e308, 5e-324, INF, -INF, NAN, 0.1, 100.0, -8.0,
    1.0 / 3.0,
)  # fmt: skip


class Drawing:
    """Draws formulas of floats a, b, c and a whole number n over what a policy may use."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def number(self, depth: int) -> str:
        choose = self.rng.choice
        kind = self.rng.random()
        if depth <= 0:
            return choose(["a", "b", "c", "a", "b", "c", "0.0", "1.5", "-2.0", "0.5", "3.0"])
        if kind < 0.3:
            return choose(FLOATS_OF_ONE).format(self.number(depth - 1))
        if kind < 0.8:
            return choose(FLOATS_OF_TWO).format(self.number(depth - 1), self.number(depth - 1))
        if kind < 0.87:
            one = self.number(depth - 1)
            other = self.number(depth - 1)
            return f"({one} if {self.claim(depth - 1)} else {other})"
        if kind < 0.95:
            return f"(({self.claim(depth - 1)} + {self.claim(0)}) * {self.number(depth - 1)})"
        return f"({self.whole(depth - 1)} / {self.whole(depth - 1)})"

    def claim(self, depth: int) -> str:
        choose = self.rng.choice
        kind = self.rng.random()
        if kind < 0.6 or depth <= 0:
            return choose(COMPARISONS).format(self.number(depth - 1), self.number(depth - 1))
        if kind < 0.75:
            return choose(TESTS).format(self.number(depth - 1))
        if kind < 0.85:
            return f"(not {self.claim(depth - 1)})"
        return choose(COMPARISONS).format(self.whole(depth - 1), self.number(depth - 1))

    def whole(self, depth: int) -> str:
        choose = self.rng.choice
        kind = self.rng.random()
        if depth <= 0:
            return choose(["n", "3", "7", "-2", "(a > b)", "(n + 1)"])
        if kind < 0.2:
            return choose(WHOLE_OF_ONE).format(self.number(0))
        if kind < 0.3:
            return f"({self.claim(depth - 1)} + {self.claim(depth - 1)})"
        if kind < 0.4:
            return f"-({self.whole(depth - 1)})"
        return choose(WHOLE_OF_TWO).format(self.whole(depth - 1), self.whole(depth - 1))

    def row(self) -> tuple[float, float, float, int]:
        a, b, c = (self.rng.choice(VALUES) for _ in range(3))
        return a, b, c, self.rng.choice([0, 1, 2, 5, -3, 70, 2**40])


def write_formulas(texts: list[str], folder: Path) -> Any:
    """Return a module of formulas f0, f1, ..., from a file, as those of users are."""
    lines = ["import math", "import numpy as np", "import backtest as bt"]
    lines += [f"def f{k}(a, b, c, n): return 1.0 * ({text})" for k, text in enumerate(texts)]
    path = folder / "drawn_formulas.py"
    path.write_text("\n".join(lines))

    spec = importlib.util.spec_from_file_location("drawn_formulas", path)
    module: Any = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def call(function: Any, given: tuple[Any, ...]) -> bytes | str:
    """Return the bits of an answer, all NaN the same, or the name of what is raised."""
    with np.errstate(all="ignore"):
        try:
            found = function(*given)
        except (ArithmeticError, ValueError) as error:
            return type(error).__name__
    return b"nan" if math.isnan(found) else struct.pack("d", found)


GROUP = 20
"""Formulas that one compiled function calls: one for each takes three times as long."""


def compile_group(numba: Any, formulas: list[Any]) -> Any:
    """Return a compiled function of k and the four numbers, which answers as formula k does."""
    lines = ["def choose(k, a, b, c, n):"]
    for k in range(len(formulas)):
        lines += [f"    if k == {k}:", f"        return f{k}(a, b, c, n)"]
    lines += ["    return 0.0"]

    names = {f"f{k}": formula for k, formula in enumerate(formulas)}
    exec("\n".join(lines), names)
    return numba.njit(names["choose"])


@pytest.mark.slow
@pytest.mark.compiled
def test_drawn_formulas_have_the_bits_of_plain_python(tmp_path):
    """Compiled code may only say that it has no number; then plain Python is asked."""
    numba = pytest.importorskip("numba")
    from backtest._compile.lowering import jit_tree  # noqa: PLC0415 - loads numba
    from backtest.engine.compiler import compile_scalar_rules  # noqa: PLC0415

    compile_scalar_rules()

    drawing = Drawing(92)
    texts = [drawing.number(drawing.rng.choice([1, 2, 2, 3])) for _ in range(300)]
    module = write_formulas(texts, tmp_path)
    formulas = [rewrite_formula(vars(module)[f"f{k}"]) for k in range(len(texts))]

    n_numbers = 0
    for k, text in enumerate(texts):
        if k % GROUP == 0:
            compiled = [jit_tree(formula, {}) for formula in formulas[k : k + GROUP]]
            choose = compile_group(numba, compiled)
        plain = make_plain(formulas[k])

        for _ in range(40):
            row = drawing.row()
            found = call(choose, (k % GROUP, *row))
            if found == "OverflowError":
                continue

            *floats, whole = row
            assert found == call(plain, (*map(Number, floats), whole)), (text, row)
            n_numbers += 1

    assert n_numbers > 10_000


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.float32, np.float64, np.bool_])
def test_a_number_of_a_formula_meets_numbers_of_numpy(kind):
    """Whole numbers of NumPy are no numbers to Python's floats: a comparison was False."""
    one = Number(1.0)
    other = kind(1)

    assert (one == other) is True
    assert (one < other) is False
    assert (one <= other) is True
    assert (one != other) is False

    assert type(one + other) is Number
    assert one + other == 2.0
    assert one - other == 0.0
    assert one * other == 1.0
    assert one / other == 1.0
