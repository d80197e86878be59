"""Policies: parameters, formulas, memory, columns, what they see, and that they compile."""

import dataclasses
import importlib
import math
import sys
import types
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np
import pytest

import backtest as bt
from backtest import Choice, PolicyError, Range
from backtest._compile.bytecode import BAR, find_fields, may_read_of_account, rewrite_formula
from backtest.policies import change_settings, formula_for
from backtest.results import hash_source
from backtest.strategies import VolTarget
from tests.kit import check_refused

VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT", at="latest")
MARKET = bt.Market.sample(bars=300)
MANY = 2**60
VIEWS: list[tuple[Any, Any]] = []
ROOT_NAMES = frozenset({"liquidation_price"})


def live(policy: bt.Policy, **settings: Any) -> bt.Result:
    settings = {"account": bt.Account(), "compile": False, **settings}
    return bt.run(settings.pop("market", MARKET), policy, venue=VENUE, **settings)


class Mixed(bt.Policy):
    """One parameter of each kind."""

    target: Annotated[float, Range(0.1, 2.0, "turns")] = 1.0
    count: Annotated[int, Range(1, 9)] = 3
    mode: Annotated[str, Choice("low", "high")] = "low"
    is_on: bool = True

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return a leverage that depends on all four."""
        scale = 2.0 if self.mode == "high" else 1.0
        return self.target * scale / self.count if self.is_on else 0.0


class Seen(NamedTuple):
    bars: float
    highest: float


class Remembering(bt.Policy):
    def start(self) -> Seen:
        return Seen(0.0, 0.0)

    def leverage(self, bar: bt.Bar, account: bt.AccountView, memory: Seen) -> tuple[float, Seen]:
        highest = max(memory.highest, bar.close)
        return bar.close / highest, Seen(memory.bars + 1.0, highest)


def test_numbers_are_kept_as_their_declared_type_and_settings_may_be_text():
    policy = Mixed(target=np.float32(0.5), count=np.int64(4), is_on=np.bool_(False))
    assert repr(policy) == "Mixed(target=0.5, count=4, mode='low', is_on=False)"

    assert [type(value) for value in policy.settings().values()] == [float, int, str, bool]
    assert repr(Mixed(target=1, count=2.0)) == "Mixed(target=1.0, count=2, mode='low', is_on=True)"

    given = {"target": "0.5", "count": "4", "mode": "high", "is_on": "false"}
    assert Mixed.from_settings(given) == Mixed(0.5, 4, "high", False)


def one(self: Any, bar: Any, account: Any) -> float:
    return 1.0


def observing(observe: Callable[[bt.Market], Any], formula: Any = one) -> bt.Policy:
    class Observing(bt.Policy):
        def observe(self, market: bt.Market) -> Any:
            return observe(market)

        leverage = formula

    return Observing()


def make(**body: Any) -> type[bt.Policy]:
    return type("Made", (bt.Policy,), body)


def declare(**hints: Any) -> type[bt.Policy]:
    return make(leverage=one, __annotations__=hints, **dict.fromkeys(hints, 1.0))


def keep(self: Any, bar: Any, account: Any) -> float:
    self.n = max(account.equity, 1.0)
    return 1.0


async def answer_later(self: Any, bar: Any, account: Any) -> float:
    return 1.0


def declare_count() -> Any:
    class Counted(bt.Policy):
        n: Annotated[int, Range(0, 2**62)] = 1

        def leverage(self, bar: Any, account: Any) -> float:
            return 1.0

    return Counted


def misspell(self: Any, bar: Any, account: Any) -> float:
    return 1.0 / bar.sigmaa


@pytest.mark.parametrize(("call", "words"), [
    (lambda: Mixed(0.5, 2, "low", True, 7), "has 4 parameters (target, count, mode, is_on)"),
    (lambda: Mixed(targt=1.0), "Mixed has no parameter 'targt' (did you mean 'target'?)"),
    (lambda: Mixed(target=2.5), "Mixed.target must be 0.1 to 2 turns, got 2.5"),
    (lambda: Mixed(count=2.5), "count must be a whole number, got 2.5"),
    (lambda: Mixed(mode="hihg"), "must be one of low, high, got 'hihg' (did you mean 'high'?)"),
    (lambda: Mixed(is_on=1), "is_on must be True or False, got 1"),
    (lambda: Mixed.from_settings({"target": "0.5x"}), "target must be a number"),
    (lambda: Range(2.0, 1.0), "low <= high"),
    (lambda: Range(0.0, 1.0, log=True), "low > 0 on a log scale"),
    (declare(target=float), "Made.target has <class 'float'>; declare target: Annotated"),
    (declare(parts=Annotated[float, Range(0.0, 1.0)]), "must not be reserved"),
    (make(__annotations__={"leverage": Annotated[float, Range(0.0, 5.0)]}), "needs leverage"),
    (bt.Policy.parameters, "Policy is a base class"),
    (lambda: live(VolTarget), "policy must be a Policy"),
    (lambda: live(make()()), "a policy must define leverage, Made does not"),
    (lambda: make(__init__=lambda self, window: None), "must not define __init__"),
    (lambda: live(make(leverage=lambda self: 1.0)()), "account), got (self)"),
    (lambda: live(make(leverage=staticmethod(lambda bar, account: 1.0))()), "an undecorated meth"),
    (lambda: live(make(leverage=answer_later)()), "got one that is async or yields"),
    (lambda: live(make(leverage=lambda self, bar, account: 2**70 * 1.0)()), f"has {2**64}"),
    (lambda: live(make(leverage=lambda self, bar, account: bar.time * MANY)()), f"has {2**60}"),
    (lambda: declare_count()(2**53 + 1), f"exact, got {2**53 + 1}"),
    (lambda: live(observing(lambda m: {"a": m.close + 1j})), "one per bar, got complex128"),
    (lambda: live(make(leverage=keep)()), "keep state in its memory"),
    (lambda: live(observing(lambda m: {"sigma": m.close}, misspell)), "did you mean 'sigma'?"),
    (lambda: live(make(leverage=misspell)()), "returned by observe(self, market), which Made does"),
    (lambda: live(observing(lambda m: {"a": m.close[1:]})), "must be 300 numbers, one per bar"),
    (lambda: live(observing(lambda m: {"close": m.close})), "an identifier other than time"),
    (lambda: live(observing(lambda m: m.close)), "Observing.observe must return columns"),
    (lambda: live(observing(lambda m: {"a": m.closed})), "observe raised AttributeError"),
    (lambda: live(observing(lambda m: {"a": np.append(m.close[1:], 1.0)})), "looks ahead"),
])  # fmt: skip
def test_bad_policies_are_refused(call: Callable[[], object], words: str):
    check_refused(call, words)


class Steps(bt.Policy):
    """A list of numbers, whose order is a rule of its own."""

    levels: Annotated[tuple[float, ...], Range(0, 10, "turns", length=3)] = (3.0, 2.0, 1.0)

    def faults(self):
        for k, (above, below) in enumerate(zip(self.levels, self.levels[1:], strict=False), 1):
            if above < below:
                yield f"levels.{k}", f"must be at most levels.{k - 1}"

    def leverage(self, bar, account):
        fall = account.drawdown
        return self.levels[0] if fall < 0.02 else self.levels[1 if fall < 0.05 else 2]


def test_a_parameter_may_be_a_list_whose_numbers_have_names():
    policy = Steps(levels=np.array([4, 2, 1]))
    assert policy.levels == (4.0, 2.0, 1.0)
    assert repr(policy) == "Steps(levels=(4.0, 2.0, 1.0))"
    assert eval(repr(policy)) == policy

    assert Steps.from_settings({"levels.0": "4"}) == policy
    assert Steps.from_settings({"levels": "4,2,1"}) == Steps.from_settings(policy.settings())
    assert change_settings(policy, {"levels.2": 0.5}).levels == (4.0, 2.0, 0.5)

    assert bt.strategies.Capped(policy, cap=3.0).policies == (policy,)
    for levels, said in {
        (1.0, 2.0): "levels must be 3 numbers, each 0 to 10 turns, got",
        (3.0, 2.0, 11.0): "levels.2 must be 0 to 10 turns, got 11",
        (3.0, 4.0, 1.0): "Steps.levels.1 must be at most levels.0, got 4",
    }.items():
        check_refused(lambda given=levels: Steps(levels=given), said)
    check_refused(lambda: Steps.from_settings({"levels.3": 1.0}), "no parameter 'levels.3'")


@pytest.mark.filterwarnings("ignore:.* sets failed")
def test_the_numbers_of_a_list_vary_in_sweeps_and_searches():
    """A set that breaks an order is a row with its cause."""
    test = bt.Backtest(MARKET, venue=VENUE, account=bt.Account())
    sweep = test.sweep(Steps, {"levels.0": [2.0, 5.0], "levels.2": [0.5, 4.0]}, compile=False)

    # rows 0 and 2 have levels.2 = .5; in the others it is over levels.1
    found = sweep.table["final_equity"].tolist()
    expected = [test.run(Steps(levels=(x, 2.0, 0.5)), compile=False) for x in (2.0, 5.0)]
    assert found[::2] == [result.metrics["final_equity"] for result in expected]

    is_refused = sweep.table["error"].str.contains("levels.2 must be at most")
    assert is_refused.tolist() == [False, True, False, True]

    drawn = test.sweep(Steps, 2, space={"levels.0": (3.0, 9.0)}, compile=False).table
    assert drawn["levels.0"].between(3.0, 9.0).all()


def test_an_error_of_a_formula_names_its_line_and_its_bar():
    with pytest.raises(PolicyError, match=r"Observing\.leverage raised AttributeError") as caught:
        live(observing(lambda m: {"sigma": m.close}, misspell))

    line = misspell.__code__.co_firstlineno + 1
    assert f"test_policy.py, line {line}; at the close of bar 0, 2023-01-01" in str(caught.value)


def make_scaled(scale=2.0, half=0.5, low=0.1, high=9.0) -> type[bt.Policy]:
    return make(
        SCALE=scale,
        half=property(lambda self: half),
        low=classmethod(lambda cls: low),
        high=staticmethod(lambda: high),
        leverage=lambda self, bar, account: min(max(self.SCALE, self.half), self.high()),
    )


def test_constants_properties_class_and_static_methods_are_part_of_a_policys_source():
    changes = ({}, {"scale": 3.0}, {"half": 0.25}, {"low": 0.2}, {"high": 8.0})
    hashes = [hash_source(make_scaled(**change)) for change in changes]

    assert hash_source(make_scaled()) == hashes[0]
    assert len({*hashes}) == len(changes)


class Watching(bt.Policy):
    target: Annotated[float, Range(0.0, 100.0)] = 3.0

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        VIEWS.append((bar, account))
        return self.target


@pytest.mark.parametrize(("settings", "signal"), [
    ({}, 1.0),
    ({}, -1.0),
    ({"margin": "isolated", "venue_leverage": 40.0, "max_leverage": 35.0}, 1.0),
])  # fmt: skip
def test_the_account_a_policy_sees_is_the_one_in_the_result(settings: dict, signal: float):
    VIEWS.clear()
    policy = Watching(30.0 if settings else 3.0)
    bars = live(policy, account=bt.Account(**settings), signal=signal).bars

    views = [view for _, view in VIEWS]
    assert len(views) == 300
    assert len(bars) == 300

    expected = bars.assign(peak_equity=bars["equity"].cummax())
    for name in (
        "equity", "position", "leverage", "margin_ratio", "liquidation_price", "entry",
        "maintenance", "peak_equity", "drawdown",
    ):  # fmt: skip
        seen = np.array([getattr(view, name) for view in views])
        np.testing.assert_allclose(seen, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)

    days = [view.days for view in views]
    np.testing.assert_allclose(days, np.arange(1, 301) / 24.0, rtol=1e-12)

    if settings:
        assert min(view.bars_since_liquidation for view in views) < 300
    else:
        assert {view.bars_since_liquidation for view in views} == {math.inf}


def test_the_bar_a_policy_sees_is_the_one_that_closed():
    VIEWS.clear()
    live(Watching())
    bars = [bar for bar, _ in VIEWS]

    for name in ("open", "high", "low", "close", "volume"):
        assert [getattr(bar, name) for bar in bars] == list(getattr(MARKET, name))
    assert [bar.time for bar in bars] == [time.timestamp() for time in MARKET.times]
    assert [bar.mark for bar in bars] == list(MARKET.mark_close)

    last = [MARKET.funding_rate[MARKET.funding_time <= stamp][-1] for stamp in MARKET.time]
    assert [bar.funding for bar in bars] == last


def test_a_memory_goes_on_where_a_run_is_resumed():
    first = live(Remembering(), market=MARKET.prefix(100))
    second = live(Remembering(), resume=first)

    assert first.memory.tolist() == [100.0, MARKET.close[:100].max(), 0.0]
    assert second.memory.tolist() == [300.0, MARKET.close.max(), 0.0]


def compiled(policy: bt.Policy, **settings: Any) -> bt.Result:
    """Return a compiled run, which has the bits of the plain one."""
    result = live(policy, compile=True, **settings)
    plain = live(policy, **settings)

    assert result.manifest["compiled"] == "yes"
    assert np.array_equal(result.record.values, plain.record.values, equal_nan=True)
    assert np.array_equal(result.entries, plain.entries)
    assert np.array_equal(result.memory, plain.memory)
    return result


def make_closure(scale: float) -> bt.Policy:
    class Closed(bt.Policy):
        def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
            return scale * bar.low / bar.high

    return Closed()


@pytest.mark.slow
def test_a_policy_made_in_a_function_compiles_with_the_values_around_it():
    """Two classes of one name and one text, told apart by what their closures hold."""
    one = compiled(make_closure(1.0))
    two = compiled(make_closure(2.0))

    np.testing.assert_array_equal(two.bars["target"], 2.0 * one.bars["target"])
    np.testing.assert_allclose(one.bars["target"], MARKET.low / MARKET.high, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.compiled
def test_a_memory_compiles_and_holds_every_bar():
    result = compiled(Remembering())
    assert result.memory.tolist() == [300.0, MARKET.close.max(), 0.0]
    expected = MARKET.close / np.maximum.accumulate(MARKET.close)
    np.testing.assert_array_equal(result.bars["target"], expected)


class NearLiquidation(bt.Policy):
    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return 1 plus the liquidation price over the close, as the mean of both ways to it."""
        if account.position == 0.0:
            return 2.0
        price = bt.margin.liquidation_price(
            account.venue, account.position, account.entry, account.wallet
        )
        return 1.0 + 0.5 * (price + account.liquidation_price) / bar.close


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("signal", [1.0, -0.3])
def test_margin_functions_give_the_same_inside_compiled_code_as_outside(signal: float):
    bars = compiled(NearLiquidation(), signal=signal).bars
    held = bars[bars["position"] != 0.0]
    assert len(held)

    wanted = 1.0 + held["liquidation_price"] / held["close"]
    np.testing.assert_allclose(held["target"], wanted, rtol=1e-9)

    wallet = held["cash"] + held["position"] * held["entry"]
    outside = bt.margin.liquidation_price(
        VENUE, held["position"].to_numpy(), held["entry"].to_numpy(), wallet.to_numpy()
    )
    np.testing.assert_allclose(outside, held["liquidation_price"], rtol=1e-9)


class Tabled(bt.Policy):
    """Look words up, which numba cannot."""

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        """Return 2 in rising bars."""
        return {"rising": 2.0, "falling": 1.0}["rising" if bar.close > bar.open else "falling"]


@pytest.mark.slow
def test_what_does_not_compile_runs_in_plain_python_with_one_warning():
    with pytest.warns(UserWarning, match="Tabled runs in plain Python") as caught:
        result = live(Tabled(), compile=True)
    assert len(caught) == 1

    text = str(caught[0].message)
    line = Tabled.leverage.__code__.co_firstlineno
    assert any(f"test_policy.py, line {line + k}: " in text for k in range(4))
    assert result.manifest["compiled"] in text

    np.testing.assert_array_equal(result.record.values, live(Tabled()).record.values)
    assert set(result.bars["target"]) == {1.0, 2.0}


def write_module(folder, monkeypatch, name, text):
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name)


BY_MODULE = """
from typing import NamedTuple
import backtest as bt
import levels_of_a_test

class Kept(NamedTuple):
    {slots}

class ByModule(bt.Policy):
    "Hold what another module says."
    def start(self):
        return Kept(a=1.0, b=3.0)
    def leverage(self, bar, account, memory):
        return levels_of_a_test.LEVEL * memory.a, (memory[0], memory[1])
"""


@pytest.mark.slow
def test_compiled_code_follows_a_changed_module_and_changed_memory(tmp_path, monkeypatch):
    """What a policy refers to through a module, and the order of its memory, are its code too."""
    first = "a: float; b: float"
    second = "b: float; a: float"
    for level, slots in ((1.0, first), (2.0, first), (2.0, second)):
        write_module(tmp_path, monkeypatch, "levels_of_a_test", f"LEVEL = {level}\n")
        text = BY_MODULE.format(slots=slots)
        policy = write_module(tmp_path, monkeypatch, "policy_of_a_test", text).ByModule()
        assert compiled(policy).bars["target"].iloc[3] == level


def steepen(value: float, power: float = 1.7) -> float:
    return value**power


class Curved(bt.Policy):
    power: Annotated[float, bt.Range(0.1, 5.0)] = 1.3

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        ratio = bar.close / bar.open
        total = ratio**self.power + steepen(ratio)
        total **= 0.7
        total += math.exp(-ratio) + np.exp(-ratio) - math.log(ratio) + np.log(ratio)
        return 0.1 * total + 0.01 * pow(math.pow(ratio, 3.3), 0.3) + 0.01 * np.power(2.0, ratio)


class Timed(bt.Policy):
    """The square of whole seconds is over 2^60, and that of nanoseconds wrapped."""

    power: Annotated[float, bt.Range(0.1, 5.0)] = 1.3

    def leverage(self, bar: bt.Bar, account: bt.AccountView) -> float:
        return self.power * (bar.time * bar.time % 1000) / 1000.0


def by_hand(ratio: float, power: float) -> float:
    """Return the formula of Curved with the functions of ``bt.math``."""
    f = bt.math
    total = f.power(f.power(ratio, power) + f.power(ratio, 1.7), 0.7)
    total += f.exp(-ratio) + f.exp(-ratio) - f.log(ratio) + f.log(ratio)
    return 0.1 * total + 0.01 * f.power(f.power(ratio, 3.3), 0.3) + 0.01 * f.power(2.0, ratio)


def test_plain_python_uses_our_functions():
    targets = live(Curved()).bars["target"].to_numpy()
    ratios = (MARKET.close / MARKET.open).tolist()
    assert targets.tolist() == [by_hand(ratio, 1.3) for ratio in ratios]


@pytest.mark.slow
@pytest.mark.compiled
@pytest.mark.parametrize("cls", [Curved, Timed])
def test_compiled_code_and_lanes_have_the_bits_of_plain_python(cls):
    compiled(cls())

    powers = np.linspace(0.5, 3.0, 70)
    test = bt.Backtest(MARKET, venue=VENUE, account=bt.Account())
    swept = test.sweep(cls, {"power": powers}).table["final_equity"]

    for k in (0, 33, 69):
        alone = live(cls(power=float(powers[k])))
        assert swept.iloc[k] == alone.metrics["final_equity"]


def careful_log(value: float) -> float:
    """Return -1 where there is no logarithm."""
    try:
        return math.log(value)
    except ValueError:
        return -1.0


def test_a_formula_that_catches_exceptions_stays():
    assert rewrite_formula(careful_log)(-2.0) == -1.0


def test_looking_a_function_up_runs_nothing(monkeypatch):
    def refuse(*given: object) -> None:
        raise ImportError(given)

    lazy: Any = types.ModuleType("lazy")
    lazy.__getattr__ = refuse
    model: Any = dataclasses.make_dataclass("Model", [], namespace={"__call__": lambda self: 2.0})()
    monkeypatch.setitem(globals(), "LAZY", lazy)
    monkeypatch.setitem(globals(), "MODEL", model)

    def rule(value: float) -> float:
        return LAZY.load(value) if value > 9.0 else value**2.0 * MODEL()  # type: ignore[name-defined]  # noqa: F821

    assert rewrite_formula(rule)(3.0) == 18.0  # a dataclass with __call__ has no hash


def read_it(account):
    return account.liquidation_price


class Near(bt.Policy):
    def leverage(self, bar, account):
        return 1.0 if account.liquidation_price > 0.5 * bar.close else 2.0


class Twice(bt.Combinator):
    def combine(self, bar, account, asked):
        return 2.0 * asked[0]


class Wary(bt.Combinator):
    def combine(self, bar, account, asked):
        return min(asked[0], account.liquidation_price)


@pytest.mark.parametrize(("rule", "may"), [
    (lambda policy, bar, account: account.liquidation_price / bar.close, True),
    (lambda policy, bar, account: read_it(account), True),
    (lambda policy, bar, account: getattr(account, "liquidation_" + "price"), True),
    (lambda policy, bar, account: account[10], True),
    (lambda policy, bar, account: account.equity / bar.close, False),
    (formula_for(VolTarget(), ("sigma",)), False),
    (formula_for(Twice(VolTarget()), ("vol_target__sigma",)), False),
    (formula_for(Twice(Near()), ()), True),
    (formula_for(Twice(Twice(Near())), ()), True),
    (formula_for(Wary(VolTarget()), ("vol_target__sigma",)), True),
    (lambda policy, *shown: shown[1].liquidation_price, True),
], ids=[
    "itself", "a function", "a text", "a place", "the equity", "no account", "a combinator",
    "a policy inside", "a policy inside twice", "what combines", "arguments",
])  # fmt: skip
def test_the_liquidation_price_is_left_out_only_where_a_formula_cannot_read_it(rule, may):
    assert may_read_of_account(rule, ROOT_NAMES) == may


def test_a_combinator_reads_what_its_policies_read_of_the_bar():
    rule = formula_for(Twice(VolTarget()), ("vol_target__sigma",))
    assert find_fields(rule, BAR) == {"vol_target__sigma"}
    assert find_fields(formula_for(Twice(Near()), ()), BAR) == {"close"}
