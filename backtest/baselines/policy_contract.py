"""The contract of a policy: it looks at no later bar, answers, and is the same compiled."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from backtest import core, policies
from backtest.baselines.contract_trial import (
    ACCOUNTS,
    ContractTrial,
    Terms,
    choose_trial,
    find_difference,
)
from backtest.core.code_names import pd
from backtest.engine.batch import run_account
from backtest.engine.conditions import Conditions
from backtest.engine.run_setup import set_up
from backtest.market import Market, Markets, as_markets, label_names
from backtest.policies.lookahead import make_futures, observe, observe_checked
from backtest.results.result import Result

EFFORT = 8
"""Cuts of the check for look-ahead, as a multiple of those of a run."""
STEADY = "use no random numbers, no clock, and no state but the memory"


def check_columns(trial: ContractTrial) -> str:
    if not trial.columns:
        return "observes nothing"
    again = observe(trial.policy, trial.market)
    for name, column in trial.columns.items():
        other = again.get(name, np.empty(0))
        trial.require_same(column, other, f"column {name!r}", f"between two calls: {STEADY}")
    if not trial.is_warm.any():
        never = [name for name, column in trial.columns.items() if not np.isfinite(column).any()]
        raise core.PolicyError(
            f"{', '.join(never) or 'the columns together'} never known in "
            f"{trial.market.n_bars} bars: give a longer market, or shorter windows as defaults"
        )
    first = int(np.argmax(trial.is_warm))
    return f"observes {', '.join(trial.columns)}, known from bar {first} on"


def check_causal_columns(trial: ContractTrial) -> str:
    causality = observe_checked(trial.policy, trial.market, effort=EFFORT)[1]
    rng = np.random.default_rng(0)
    for t in choose_ends(trial):
        for what, market in make_futures(trial.market, t, rng):
            seen = observe(trial.policy, market)
            for name, column in trial.columns.items():
                other = seen.get(name, np.empty(0))[: t + 1]
                word = f"looks ahead: column {name!r}"
                trial.require_same(column[: t + 1], other, word, f"{what} {t}")
    if not trial.columns:
        return "observes nothing"
    return f"the same columns, wherever the market ends; {causality}"


def choose_ends(trial: ContractTrial) -> list[int]:
    n = trial.market.n_bars
    warm = int(np.argmax(trial.is_warm))
    cuts = {warm + 1, *(warm + (n - warm) * k // 4 for k in (1, 2, 3)), n - 2}
    return sorted(t for t in cuts if 1 <= t <= n - 2)


def check_runs(trial: ContractTrial) -> list[Finding]:
    found = []
    for each in trial.situations:
        text = f"mean leverage {trial.find(each).metrics['mean_leverage']:.3g}"
        is_tried = each in trial.tried
        found.append(
            Finding(f"runs: {each.name}", True, text if is_tried else "it held nothing", is_tried)
        )
    if not trial.tried and not trial.cls.may_hold_nothing:
        text = (
            f"nothing in {trial.market.n_bars} bars of any account: give --data in which it "
            "trades, other defaults, or may_hold_nothing = True in its class"
        )
        found.append(Finding("runs: holds a position", False, text))
    return found


def check_finite(trial: ContractTrial) -> str:
    target, equity = trial.target, trial.plain.of_account("equity")
    asked = trial.is_warm & (equity > 0.0)
    infinite = np.flatnonzero(asked & np.isinf(target))
    if len(infinite):
        raise core.PolicyError(
            f"infinite at {len(infinite)} of {asked.sum()} decisions, first at "
            f"{trial.name_bar(int(infinite[0]))}: return a finite leverage"
        )
    known = asked & np.isfinite(target)
    if not known.any() and not policies.trades_options(trial.cls):
        raise core.PolicyError(
            f"it never decides: its leverage is NaN at all {asked.sum()} closes of "
            f"{trial.market.n_bars} bars"
        )
    if known.sum() < asked.sum():
        return f"finite at {known.sum()} of {asked.sum()} decisions, NaN (no change) at the others"
    return f"finite at all {asked.sum()} decisions"


GAPS = (1, 5, 9, 13)
"""Bars after the warm-up at which a column is taken away: formulas may look at it only at times."""


def check_gaps(trial: ContractTrial) -> list[Finding]:
    """Look whether the leverage is NaN where a column is: min(2.0, x / NaN) is 2.0."""
    name, warm = "no decision without a column", int(np.argmax(trial.is_warm))
    begins = min(warm, trial.market.n_bars - GAPS[-1] - 2)
    if not trial.columns or policies.trades_options(trial.cls) or begins < 0:
        return [Finding(name, True, "observes nothing" if not trial.columns else "not looked at")]
    market = trial.market.prefix(begins + GAPS[-1] + 2)
    whole = decide_without(trial, market, begins, {})
    for column, values in trial.columns.items():
        if np.isin(values, (-1.0, 0.0, 1.0)).all():  # a side or a switch, which is always known
            continue
        for gap in GAPS:
            left = values[: market.n_bars].copy()
            left[begins + gap :] = np.nan
            target = decide_without(trial, market, begins, {column: left})[gap]
            if not (math.isnan(target) or target == whole[gap]):
                text = (
                    f"where {column} is NaN, at {trial.name_bar(begins + gap)}, the leverage is "
                    f"{target:.4g}: a number hides that it is unknown; min(2.0, x) and "
                    "max(0.0, x) do so, min(x, 2.0) and max(x, 0.0) stay NaN"
                )
                return [Finding(name, True, text, warns=True)]
    return [Finding(name, True, f"NaN where {', '.join(trial.columns)} is, or not used there")]


def decide_without(
    trial: ContractTrial, market: Market, first: int, columns: Mapping[str, core.FloatArray]
) -> core.FloatArray:
    """Return the decisions from bar ``first`` on, with some columns in the place of its own."""
    situation = trial.situations[0]
    test = Conditions(
        market,
        venue=situation.venue,
        account=situation.account,
        signal=None if situation.signal is None else situation.signal[: market.n_bars],
        start=market.times[first],
    )
    setup = set_up(test, trial.policy)
    (own,) = setup.observed
    changed = own._replace(columns={**own.columns, **columns})
    run_of = setup._replace(observed=[changed])
    outcome = run_account(run_of, is_compiled=False, progress=None)
    return outcome.record.positions.target[:, 0]


def check_repeatable(trial: ContractTrial) -> str:
    again = ContractTrial(trial.cls, trial.market, trial.accounts, trial.terms)
    trial.require_same(again.target, trial.target, "the leverage", f"between two runs: {STEADY}")
    return "the same bits twice"


def check_compiled(trial: ContractTrial) -> str:
    for situation in trial.situations:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compiled = trial.run(trial.market, situation, compiled="now")
        reason = compiled.manifest["compiled"]
        if reason != "yes":
            if len(caught) != 1:
                raise core.PolicyError(f"{len(caught)} warnings, with the reason: {reason}")
            return f"runs in plain Python only: {reason}"
        both = (compiled, trial.find(situation))
        ours, theirs = (each.of_positions("target")[:, 0] for each in both)
        bad = find_difference(ours, theirs)
        if bad is not None:
            raise core.PolicyError(
                f"{situation.name}: the leverage at {trial.name_bar(bad)} is "
                f"{core.repr_plain(ours[bad])} compiled, "
                f"{core.repr_plain(theirs[bad])} in plain Python; in "
                "leverage use math.log, math.exp, math.sqrt and so on rather than numpy's "
                "functions or ** 0.5, whose last bit may differ once compiled"
            )
    names = ", ".join(situation.name for situation in trial.tried)
    return f"compiled; the same bits in: {names or 'accounts that hold nothing'}"


def check_causal_decisions(trial: ContractTrial) -> str:
    rng = np.random.default_rng(1)
    situation = (*trial.tried, *trial.situations)[0]
    plain = trial.find(situation)
    for t in choose_ends(trial)[1::2]:
        for what, market in make_futures(trial.market, t, rng):
            result = trial.run(market, situation)
            for column, word in (("target", "leverage"), ("margin", "margin")):
                one, other = (x.of_positions(column)[: t + 1, 0] for x in (plain, result))
                trial.require_same(one, other, f"looks ahead: the {word}", f"{what} {t}")
            if policies.trades_options(trial.cls) and not list_held(plain, t).equals(
                list_held(result, t)
            ):
                raise core.PolicyError(
                    f"looks ahead: the options held up to bar {t} differ {what} {t}"
                )
    return "the same decisions, whatever comes after"


def list_held(result: Result, t: int) -> pd.DataFrame:
    held = result.positions[result.positions["time"] <= result.bars.index[t]]
    held = held[["time", "instrument", "quantity"]].astype({"instrument": str})
    found: pd.DataFrame = held.sort_values(["time", "instrument"]).reset_index(drop=True)
    return found


class Finding(NamedTuple):
    name: str
    passed: bool
    detail: str
    tried: bool = True
    """Whether it could be seen: False where the policy held nothing."""
    warns: bool = False
    """Whether it passes, and what it says should be looked at."""


class ProbeMemory(NamedTuple):
    leverage: float


class Probe(policies.Policy):
    most: Annotated[float, core.Range(0.1, 10.0, "x of equity")] = 2.0

    def observe(self, market: Any) -> dict[str, core.FloatArray]:
        return {"move": np.log(market.high / market.low)}

    def start(self) -> ProbeMemory:
        return ProbeMemory(1.0)

    def leverage(self, bar: Any, account: Any, memory: ProbeMemory) -> tuple[float, ProbeMemory]:  # noqa: ARG002 - the signature of a formula
        """Return the mean of the last leverage and a new one, and the memory that keeps it."""
        decided = 0.5 * memory.leverage + 0.5 * self.most / (1.0 + 100.0 * bar.move)
        return decided, ProbeMemory(decided)


class ContractCheck(NamedTuple):
    name: str
    test: Callable[[ContractTrial], str | list[Finding]]
    is_gate: bool
    needs_position: bool = False


def check_policy(
    policy_class: type[policies.Policy],
    market: Market | Markets | None = None,
    *,
    accounts: Sequence[str] = ACCOUNTS,
    terms: Terms | None = None,
    progress: Callable[[Finding], None] | None = None,
) -> list[Finding]:
    """Return what the checks found, of several markets the first failure of each.

    It runs on cross and isolated margin and on an inverse contract, or on ``terms`` alone.
    ``progress`` is called with each finding as it is made.
    """
    given: Mapping[str, Market | None] = {"": None} if market is None else as_markets(market)
    joined: dict[str, Finding] = {}
    for name, label in label_names(given).items():
        for each in list_findings(policy_class, given[name], accounts, terms, progress):
            if each.passed and each.tried and not joined.get(each.name, each).tried:
                joined[each.name] = each
            if joined.setdefault(each.name, each).passed and not each.passed:
                lead = f"{label}: " if label else ""
                joined[each.name] = each._replace(detail=f"{lead}{each.detail}")
    return list(joined.values())


def list_findings(
    policy_class: type[policies.Policy],
    market: Market | None,
    accounts: Sequence[str],
    terms: Terms | None,
    progress: Callable[[Finding], None] | None,
) -> list[Finding]:
    if isinstance(policy_class, type) and issubclass(policy_class, policies.Combinator):
        probes = [Probe] * policy_class.takes[0]
        policy_class = policy_class if policy_class.parts else policy_class.over(*probes)
    trial = choose_trial(policy_class, market, tuple(accounts), terms)
    findings = []
    for check in CHECKS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = check.test(trial)
                is_tried = not check.needs_position or bool(trial.tried)
            made = [Finding(check.name, True, found, is_tried)] if isinstance(found, str) else found
        except core.BacktestError as broken:
            made = [Finding(check.name, False, str(broken))]
        except core.RAISED as error:  # a policy may raise anything
            made = [Finding(check.name, False, f"{type(error).__name__}: {error}")]
        findings += made
        if progress is not None:
            for each in made:
                progress(each)
        if check.is_gate and any(each.name == check.name and not each.passed for each in made):
            break
    return findings


def check_class(trial: ContractTrial) -> str:
    cls = trial.cls
    if not (isinstance(cls, type) and issubclass(cls, policies.Policy)):
        raise core.PolicyError(f"must be a subclass of bt.Policy, got {cls!r}")
    rule: Any = policies.formula_of(cls)
    wanted = ["self", "bar", "account"]
    remembers = hasattr(cls, "start")
    if issubclass(cls, policies.Combinator):
        rule, wanted = cls.combine, [*wanted, "asked"]
        remembers = hasattr(cls.written, "start")
    name = rule.__name__ if rule is not policies.return_parameter else "leverage"
    if rule in (policies.Policy.leverage, policies.Combinator.combine):
        raise core.PolicyError(
            f"defines no {name}: add def {name}({', '.join(wanted)}): return 1.0"
        )
    wanted += ["memory"] * remembers
    if fault := policies.find_rule_fault(rule, len(wanted)):
        raise core.PolicyError(f"{name} must have the arguments ({', '.join(wanted)}), got {fault}")
    return f"{name} has the arguments ({', '.join(wanted)})"


def check_defaults(trial: ContractTrial) -> str:
    bare = {
        name: value
        for cls in trial.cls.__mro__
        for name, value in vars(cls).items()
        if type(value) in (int, float)
        and not (name in vars(cls).get("__annotations__", ()) or hasattr(policies.Policy, name))
    }
    notes = [
        f"; {name} = {value!r} is no parameter, as it has no annotation: "
        f"{name}: Annotated[{type(value).__name__}, bt.Range(low, high)] = {value!r} would be one"
        for name, value in bare.items()
    ]
    memory = policies.start_memory(trial.policy)
    kept = "" if memory is None else f", has the memory {', '.join(memory._fields)}"
    return f"{trial.policy!r}{kept}{''.join(notes)}"


def check_copies(trial: ContractTrial) -> str:
    policy, settings = trial.policy, trial.policy.settings()
    names = {**{each.__name__: each for each in policies.list_written(trial.cls)}, "inf": math.inf}
    texts = {name: str(value) for name, value in settings.items()}
    copies: dict[str, Callable[[], object]] = {
        repr(policy): lambda: eval(repr(policy), names),  # the text of the policy being checked
        str(settings): lambda: trial.cls.from_settings(settings),
        str(texts): lambda: trial.cls.from_settings(texts),
    }
    for text, copy in copies.items():
        again = copy()
        if again != policy:
            raise core.PolicyError(f"{text} makes {again!r}, not {policy!r}")
    return repr(policy)


CHECKS = (
    ContractCheck("is a policy", check_class, True),
    ContractCheck("constructs from its defaults", check_defaults, True),
    ContractCheck("text and settings make it again", check_copies, False),
    ContractCheck("columns are numbers", check_columns, True),
    ContractCheck("columns use only the past", check_causal_columns, True),
    ContractCheck("runs", check_runs, True),
    ContractCheck("repeats to the bit", check_repeatable, True, needs_position=True),
    ContractCheck("decisions are finite", check_finite, False, needs_position=True),
    ContractCheck("no decision without a column", check_gaps, False),
    ContractCheck("compiled equals plain", check_compiled, False, needs_position=True),
    ContractCheck("decisions use only the past", check_causal_decisions, False, True),
)
