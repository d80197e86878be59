"""The contract of a policy: it looks at no later bar, answers, and is the same compiled.

From top to bottom: what a check found, the checks of the class, of its columns, of its runs and
decisions, their order in :data:`CHECKS`, and :func:`check_policy`, which makes them all.
"""

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
    list_quantities,
)
from backtest.engine.batch import run_account
from backtest.engine.conditions import Conditions
from backtest.engine.run_setup import set_up
from backtest.market import Market, Markets, as_markets, label_names
from backtest.policies.lookahead import make_futures
from backtest.policies.observing import observe, observe_checked
from backtest.results.result import Result

EFFORT = 8
"""Cuts of the check for look-ahead, as a multiple of those of a run."""
STEADY = "use no random numbers, no clock, and no state but the memory"
GAPS = (1, 5, 9, 13)
"""Bars after the warm-up at which a column is taken away: formulas may look at it only at times."""
ALWAYS_KNOWN = (-1.0, 0.0, 1.0)
"""Values of a side or a switch."""


class Finding(NamedTuple):
    """What a check found."""

    name: str
    passed: bool
    detail: str
    tried: bool = True
    """Whether it could be seen: False where the policy held nothing."""
    warns: bool = False
    """Whether it passes, and what it says should be looked at."""


class ContractCheck(NamedTuple):
    """A check by name. If one that is a gate fails, those after it are left out."""

    name: str
    test: Callable[[ContractTrial], str | list[Finding]]
    is_gate: bool
    needs_position: bool = False


# The class: what it is, how it is made, and made again.


def check_class(trial: ContractTrial) -> str:
    """Check that a class is a policy, and that its rule has the arguments that it is called with.

    The rule is the method that decides: ``combine`` of a combinator, else ``leverage``.
    """
    cls = trial.cls
    if not (isinstance(cls, type) and issubclass(cls, policies.Policy)):
        raise core.PolicyError(f"must be a subclass of bt.Policy, got {cls!r}")

    rule: Any = policies.formula_of(cls)
    arguments = ["self", "bar", "account"]
    has_memory = hasattr(cls, "start")
    if issubclass(cls, policies.Combinator):
        rule = cls.combine
        arguments.append("asked")
        has_memory = hasattr(cls.written, "start")

    name = rule.__name__ if rule is not policies.return_parameter else "leverage"
    if rule in (policies.Policy.leverage, policies.Combinator.combine):
        raise core.PolicyError(
            f"defines no {name}: add def {name}({', '.join(arguments)}): return 1.0"
        )

    if has_memory:
        arguments.append("memory")
    signature = ", ".join(arguments)
    fault = policies.find_rule_fault(rule, len(arguments))
    if fault:
        raise core.PolicyError(f"{name} must have the arguments ({signature}), got {fault}")
    return f"{name} has the arguments ({signature})"


def check_defaults(trial: ContractTrial) -> str:
    """Check that a policy can be made of its defaults; return it with what looks like a mistake."""
    text = repr(trial.policy)
    memory = policies.start_memory(trial.policy)
    if memory is not None:
        text = f"{text}, has the memory {', '.join(memory._fields)}"

    for name, value in list_bare_numbers(trial.cls).items():
        kind = type(value).__name__
        text += (
            f"; {name} = {value!r} is no parameter, as it has no annotation: "
            f"{name}: Annotated[{kind}, bt.Range(low, high)] = {value!r} would be one"
        )
    return text


def list_bare_numbers(policy_class: type[policies.Policy]) -> dict[str, int | float]:
    """Return the numbers of a class that look like parameters, but have no annotation."""
    bare = {}
    for cls in policy_class.__mro__:
        annotated = vars(cls).get("__annotations__", ())
        for name, value in vars(cls).items():
            if type(value) not in (int, float):  # True and False are no numbers here
                continue

            if name not in annotated and not hasattr(policies.Policy, name):
                bare[name] = value
    return bare


def check_copies(trial: ContractTrial) -> str:
    """Check that a policy is made again from its text, its settings, and these as texts."""
    policy = trial.policy
    names: dict[str, Any] = {cls.__name__: cls for cls in policies.list_written(trial.cls)}
    names["inf"] = math.inf
    settings = policy.settings()
    texts = {name: str(value) for name, value in settings.items()}

    copies: dict[str, Callable[[], object]] = {
        repr(policy): lambda: eval(repr(policy), names),  # the text of the policy being checked
        str(settings): lambda: trial.cls.from_settings(settings),
        str(texts): lambda: trial.cls.from_settings(texts),
    }
    for text, make_copy in copies.items():
        copy = make_copy()
        if copy != policy:
            raise core.PolicyError(f"{text} makes {copy!r}, not {policy!r}")
    return repr(policy)


# The columns: numbers, the same twice, and none from later bars.


def check_columns(trial: ContractTrial) -> str:
    """Check that a policy observes the same twice, and columns that are known at some bar."""
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
    """Check that columns up to a bar stay the same with other bars after it, or with none."""
    _, causality = observe_checked(trial.policy, trial.market, effort=EFFORT)
    rng = np.random.default_rng(0)
    for t in choose_ends(trial):
        stop = t + 1
        for change, market in make_futures(trial.market, t, rng):
            seen = observe(trial.policy, market)
            for name, column in trial.columns.items():
                other = seen.get(name, np.empty(0))
                what = f"looks ahead: column {name!r}"
                trial.require_same(column[:stop], other[:stop], what, f"{change} {t}")

    if not trial.columns:
        return "observes nothing"
    return f"the same columns, wherever the market ends; {causality}"


def choose_ends(trial: ContractTrial) -> list[int]:
    """Return bars at which the market is cut: after the warm-up, between, and near the end."""
    n_bars = trial.market.n_bars
    warm = int(np.argmax(trial.is_warm))
    quarters = [warm + (n_bars - warm) * k // 4 for k in (1, 2, 3)]
    ends = {warm + 1, *quarters, n_bars - 2}
    return sorted(t for t in ends if 1 <= t <= n_bars - 2)


# The runs and decisions.


def check_runs(trial: ContractTrial) -> list[Finding]:
    """Return a finding for each account: that it ran, and whether it held anything.

    A policy that held nothing in any account fails, unless its class declares that it may.
    """
    findings = []
    for situation in trial.situations:
        mean_leverage = trial.find(situation).metrics["mean_leverage"]
        is_tried = situation in trial.tried
        finding = Finding(
            name=f"runs: {situation.name}",
            passed=True,
            detail=f"mean leverage {mean_leverage:.3g}" if is_tried else "it held nothing",
            tried=is_tried,
        )
        findings.append(finding)

    if not trial.tried and not trial.cls.may_hold_nothing:
        text = (
            f"nothing in {trial.market.n_bars} bars of any account: give --data in which it "
            "trades, other defaults, or may_hold_nothing = True in its class"
        )
        findings.append(Finding("runs: holds a position", passed=False, detail=text))
    return findings


def check_finite(trial: ContractTrial) -> str:
    """Check that a policy never decides an infinite leverage, and that it decides at all."""
    target = trial.target
    is_asked = trial.is_warm & (trial.plain.of_account("equity") > 0.0)
    n_asked = is_asked.sum()

    infinite = np.flatnonzero(is_asked & np.isinf(target))
    if len(infinite):
        raise core.PolicyError(
            f"infinite at {len(infinite)} of {n_asked} decisions, first at "
            f"{trial.name_bar(int(infinite[0]))}: return a finite leverage"
        )

    n_decided = (is_asked & np.isfinite(target)).sum()
    if n_decided == 0 and not policies.trades_options(trial.cls):
        raise core.PolicyError(
            f"it never decides: its leverage is NaN at all {n_asked} closes of "
            f"{trial.market.n_bars} bars"
        )
    detail = f"finite at all {n_asked} decisions"
    if n_decided < n_asked:
        detail = f"finite at {n_decided} of {n_asked} decisions, NaN (no change) at the others"

    # A column that was known and is lost again freezes the position, which no decision shows.
    is_lost = ~trial.is_warm & (np.cumsum(trial.is_warm) > 0)
    lost = np.flatnonzero(is_lost)
    if len(lost):
        when = trial.name_bar(int(lost[0]))
        detail = f"{detail}; a column is NaN again at {len(lost)} closes, from {when}"
    return detail


def check_gaps(trial: ContractTrial) -> list[Finding]:
    """Look whether the leverage is NaN where a column is: min(2.0, x / NaN) is 2.0."""
    name = "no decision without a column"
    if not trial.columns:
        return [Finding(name, passed=True, detail="observes nothing")]
    first = min(int(np.argmax(trial.is_warm)), trial.market.n_bars - GAPS[-1] - 2)
    if policies.trades_options(trial.cls) or first < 0:
        return [Finding(name, passed=True, detail="not looked at")]

    market = trial.market.prefix(first + GAPS[-1] + 2)
    usual = decide_without(trial, market, first, {})
    for column, values in trial.columns.items():
        if np.isin(values, ALWAYS_KNOWN).all():
            continue

        for gap in GAPS:
            gapped = values[: market.n_bars].copy()
            gapped[first + gap :] = np.nan
            target = decide_without(trial, market, first, {column: gapped})[gap]
            if math.isnan(target) or target == usual[gap]:
                continue

            text = (
                f"where {column} is NaN, at {trial.name_bar(first + gap)}, the leverage is "
                f"{target:.4g}: a number hides that it is unknown; min(2.0, x) and "
                "max(0.0, x) do so, min(x, 2.0) and max(x, 0.0) stay NaN"
            )
            return [Finding(name, passed=True, detail=text, warns=True)]

    text = f"NaN where {', '.join(trial.columns)} is, or not used there"
    return [Finding(name, passed=True, detail=text)]


def decide_without(
    trial: ContractTrial,
    market: Market,
    first: int,
    columns: Mapping[str, core.FloatArray],
) -> core.FloatArray:
    """Return the decisions from bar ``first`` on, with some columns in the place of its own."""
    situation = trial.situations[0]
    signal = situation.signal
    if signal is not None:
        signal = signal[: market.n_bars]
    test = Conditions(
        market,
        venue=situation.venue,
        account=situation.account,
        signal=signal,
        start=market.times[first],
    )

    setup = set_up(test, trial.policy)
    (observed,) = setup.observed
    changed = observed._replace(columns={**observed.columns, **columns})
    outcome = run_account(
        setup._replace(observed=[changed]),
        is_compiled=False,
        progress=None,
    )
    return outcome.record.positions.target[:, 0]


def check_repeatable(trial: ContractTrial) -> str:
    again = ContractTrial(trial.cls, trial.market, trial.accounts, trial.terms)
    trial.require_same(again.target, trial.target, "the leverage", f"between two runs: {STEADY}")
    return "the same bits twice"


def check_compiled(trial: ContractTrial) -> str:
    """Check that compiled code decides the same bits, or that one warning says why it cannot."""
    for situation in trial.situations:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            compiled = trial.run(trial.market, situation, compiled="now")

        # What cannot be compiled runs in plain Python, after one warning that says why.
        reason = compiled.manifest["compiled"]
        if reason != "yes":
            if len(caught) != 1:
                raise core.PolicyError(f"{len(caught)} warnings, with the reason: {reason}")
            return f"runs in plain Python only: {reason}"

        compiled_target = compiled.of_positions("target")[:, 0]
        plain_target = trial.find(situation).of_positions("target")[:, 0]
        bar = find_difference(compiled_target, plain_target)
        if bar is not None:
            raise core.PolicyError(
                f"{situation.name}: the leverage at {trial.name_bar(bar)} is "
                f"{core.repr_plain(compiled_target[bar])} compiled, "
                f"{core.repr_plain(plain_target[bar])} in plain Python; in "
                "leverage use math.log, math.exp, math.sqrt and so on rather than numpy's "
                "functions, and in a policy of this package backtest.math.power in place of **: "
                "their last bit may differ once compiled"
            )

    names = ", ".join(situation.name for situation in trial.tried)
    return f"compiled; the same bits in: {names or 'accounts that hold nothing'}"


def check_causal_decisions(trial: ContractTrial) -> str:
    """Check that decisions up to a bar stay the same with other bars after it, or with none."""
    rng = np.random.default_rng(1)
    situation = (*trial.tried, *trial.situations)[0]
    plain = trial.find(situation)
    for t in choose_ends(trial)[1::2]:
        for change, market in make_futures(trial.market, t, rng):
            result = trial.run(market, situation)
            for column, word in (("target", "leverage"), ("margin", "margin")):
                trial.require_same(
                    plain.of_positions(column)[: t + 1, 0],
                    result.of_positions(column)[: t + 1, 0],
                    f"looks ahead: the {word}",
                    f"{change} {t}",
                )

            # Decisions about options have no leverage: what is held shows them.
            if not policies.trades_options(trial.cls):
                continue
            if list_held(plain, t) != list_held(result, t):
                raise core.PolicyError(
                    f"looks ahead: the options held up to bar {t} differ {change} {t}"
                )
    return "the same decisions, whatever comes after"


def list_held(result: Result, t: int) -> dict[str, list[float]]:
    """Return the contracts at each close up to bar t, of what is held at any of them, by name."""
    return {
        name: column.tolist() for name, column in list_quantities(result, t + 1) if column.any()
    }


CHECKS = (
    ContractCheck("is a policy", check_class, is_gate=True),
    ContractCheck("constructs from its defaults", check_defaults, is_gate=True),
    ContractCheck("text and settings make it again", check_copies, is_gate=False),
    ContractCheck("columns are numbers", check_columns, is_gate=True),
    ContractCheck("columns use only the past", check_causal_columns, is_gate=True),
    ContractCheck("runs", check_runs, is_gate=True),
    ContractCheck("repeats to the bit", check_repeatable, is_gate=True, needs_position=True),
    ContractCheck("decisions are finite", check_finite, is_gate=False, needs_position=True),
    ContractCheck("no decision without a column", check_gaps, is_gate=False),
    ContractCheck("compiled equals plain", check_compiled, is_gate=False, needs_position=True),
    ContractCheck(
        "decisions use only the past", check_causal_decisions, is_gate=False, needs_position=True
    ),
)


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
    markets: Mapping[str, Market | None] = {"": None}
    if market is not None:
        markets = as_markets(market)

    joined: dict[str, Finding] = {}
    for name, label in label_names(markets).items():
        for finding in list_findings(policy_class, markets[name], accounts, terms, progress):
            join_finding(joined, finding, label)
    return list(joined.values())


def join_finding(joined: dict[str, Finding], finding: Finding, label: str) -> None:
    """Write the finding on a market over that on an earlier one, if it says more.

    A failure says more than a pass, and a pass that was tried more than one that was not. Of
    several failures the first stays.
    """
    known = joined.setdefault(finding.name, finding)
    if not known.passed:
        return

    if not finding.passed:
        detail = f"{label}: {finding.detail}" if label else finding.detail
        joined[finding.name] = finding._replace(detail=detail)
    elif finding.tried and not known.tried:
        joined[finding.name] = finding


def list_findings(
    policy_class: type[policies.Policy],
    market: Market | None,
    accounts: Sequence[str],
    terms: Terms | None,
    progress: Callable[[Finding], None] | None,
) -> list[Finding]:
    """Return what the checks found on one market, up to a gate that failed."""
    trial = choose_trial(complete_class(policy_class), market, tuple(accounts), terms)
    findings: list[Finding] = []
    for check in CHECKS:
        made = make_findings(check, trial)
        findings += made
        if progress is not None:
            for finding in made:
                progress(finding)

        has_failed = any(finding.name == check.name and not finding.passed for finding in made)
        if check.is_gate and has_failed:
            break
    return findings


def make_findings(check: ContractCheck, trial: ContractTrial) -> list[Finding]:
    """Make a check; what it raises is a finding that failed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = check.test(trial)
            is_tried = not check.needs_position or bool(trial.tried)
    except core.BacktestError as error:
        return [Finding(check.name, passed=False, detail=str(error))]
    except core.RAISED as error:  # a policy may raise anything
        return [Finding(check.name, passed=False, detail=f"{type(error).__name__}: {error}")]

    if isinstance(outcome, str):
        return [Finding(check.name, passed=True, detail=outcome, tried=is_tried)]
    return outcome


def complete_class(policy_class: type[policies.Policy]) -> type[policies.Policy]:
    """Return a class that can run: a combinator without policies gets some."""
    if not isinstance(policy_class, type):
        return policy_class  # the first check refuses it
    if not issubclass(policy_class, policies.Combinator) or policy_class.parts:
        return policy_class
    probes = [Probe] * policy_class.takes[0]
    return policy_class.over(*probes)


class ProbeMemory(NamedTuple):
    leverage: float


class Probe(policies.Policy):
    """A policy with columns and a memory, which a combinator is checked with."""

    most: Annotated[float, core.Range(0.1, 10.0, "x of equity")] = 2.0

    def observe(self, market: Any) -> dict[str, core.FloatArray]:
        return {"move": np.log(market.high / market.low)}

    def start(self) -> ProbeMemory:
        return ProbeMemory(1.0)

    def leverage(self, bar: Any, account: Any, memory: ProbeMemory) -> tuple[float, ProbeMemory]:  # noqa: ARG002 - the signature of a formula
        """Return the mean of the last leverage and a new one, and the memory that keeps it."""
        decided = 0.5 * memory.leverage + 0.5 * self.most / (1.0 + 100.0 * bar.move)
        return decided, ProbeMemory(decided)
