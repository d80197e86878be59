"""The title of a run as people say it, "Volatility target 80 %", and what was changed beside it.

The title names the policy and its first parameter. A *chip* is one other setting that is not at its
default: of the policy, the account, or the run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest import core
from backtest.experiments.policy_names import build_node, find_shipped
from backtest.policies import format_title
from backtest.report.basis import describe_account, name_policy
from backtest.results.manifest import describe_policy

if TYPE_CHECKING:
    from backtest.policies import Parameter, Policy
    from backtest.results import Result

WORDS = {
    "vol": "volatility",
    "cppi": "CPPI",
    "ltv": "loan to value",
}
"""Words of names of classes and parameters that people write otherwise."""
SHARES = ("per sqrt(year)", "of ", "per year")
"""Beginnings of units in which a number is a share, written in per cent."""
CALL = re.compile(r"\b[A-Z]\w*\(")
"""Where the call of a policy begins in a text."""
UNREADABLE = (SyntaxError, TypeError, ValueError, RecursionError, MemoryError)
"""Errors of a text that is no call of a policy, or is nested too deep to be read."""
MAX_CHIPS = 12
MAX_LETTERS = 60
"""Most chips of a page, and letters of one."""


class NamedPolicy(NamedTuple):
    """A policy by names, as a manifest has it: the one that was written, and those it is over.

    ``known`` has the shipped class of each name in ``names``, None of any other: no module of a
    user is loaded. ``settings`` are those of all of them; the names of an inner one begin with
    its prefix.
    """

    names: tuple[str, ...]
    known: tuple[type[Policy] | None, ...]
    settings: Mapping[str, object]

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Of each policy, what the names of its settings begin with; of the outer one nothing."""
        return ("", *map(write_prefix, self.names[1:]))

    @property
    def declared(self) -> dict[str, Parameter]:
        """The parameters of the shipped classes, by the names of their settings."""
        parameters = {}
        for cls, prefix in zip(self.known, self.prefixes, strict=True):
            if cls is not None:
                for name, parameter in cls.parameters().items():
                    parameters[f"{prefix}{name}"] = parameter
        return parameters

    def find_said(self) -> str | None:
        """Return the setting that the phrase says, None if it says none.

        It is the first of the only policy, or of the one that it is over, where it is a number.
        """
        is_over_others = "[" in self.names[-1]
        if len(self.names) > 2 or is_over_others:
            return None

        prefix = self.prefixes[-1]
        first = next((name for name in self.settings if name.startswith(prefix)), None)
        if first is None or isinstance(self.settings[first], bool):
            return None
        return first if isinstance(self.settings[first], int | float) else None


def write_prefix(name: str) -> str:
    """Return what the settings of an inner policy begin with: ``tail_hedge_`` of ``TailHedge``."""
    written, _, _ = name.partition("[")
    return f"{format_title(written).replace('-', '_')}_"


def read_manifest(manifest: Mapping[str, Any]) -> NamedPolicy:
    """Return the policy of a manifest; one over others has the name ``Outer[First, Second]``."""
    policy = manifest["policy"]
    outer, _, rest = str(policy.get("name") or "").partition("[")
    inner = rest.removesuffix("]")
    names = [outer]
    if inner:
        names += inner.split(", ")

    is_shipped = str(manifest.get("policy_module", "")).startswith("backtest.strategies.")
    written = (name.partition("[")[0] for name in names)
    known = (find_shipped(name) if is_shipped else None for name in written)
    return NamedPolicy(tuple(names), tuple(known), policy.get("settings") or {})


def write_phrase(manifest: Mapping[str, Any]) -> str:
    """Return the title of a run; a policy of which only a text is known is that text.

    A policy over another is "Tail hedge over constant leverage 2x".
    """
    named = read_manifest(manifest)
    if not named.settings or not named.names[0]:
        policy = manifest["policy"]
        return str(policy.get("text") or policy.get("name"))

    # The name of an inner policy that is over others too has them in brackets.
    plain_names = (name.replace("[", " over ").replace("]", "") for name in named.names)
    parts = [split_name(name) for name in plain_names]
    said = named.find_said()
    if said is not None:
        parts[-1] = add_setting(named, parts[-1], said)

    phrase = parts[0]
    if len(parts) > 1:
        phrase = f"{parts[0]} over {' and '.join(parts[1:])}"
    return core.capitalize(phrase)


def add_setting(named: NamedPolicy, name: str, setting: str) -> str:
    """Return the words of a policy's name, and its first setting."""
    number = write_setting(named.declared, setting, named.settings[setting])
    label = split_name(setting.removeprefix(named.prefixes[-1]))
    if label in name:
        return f"{name} {number}"
    return f"{name} {label} {number}"


def phrase_heading(heading: str) -> str:
    """Return a heading with the phrase of the shipped policy whose call it has."""
    begin, end = find_call(heading)
    manifest = read_call(heading[begin:end])
    if manifest is None:
        return heading
    return heading[:begin] + write_phrase(manifest) + heading[end:]


def describe_call(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the phrase of the call of a shipped policy, and its settings that were changed.

    Any other text stays as it is.
    """
    manifest = read_call(text)
    if manifest is None:
        return text, ()
    return write_phrase(manifest), tuple(walk_policy_chips(manifest))


def find_call(text: str) -> tuple[int, int]:
    """Return where the first call in a text begins and ends; an empty span if there is none."""
    opened = CALL.search(text)
    if opened is None:
        return 0, 0

    depth = 0
    for end, letter in enumerate(text[opened.start() :], opened.start() + 1):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == ")" and depth == 0:
            return opened.start(), end
    return 0, 0


def read_call(text: str) -> dict[str, Any] | None:
    """Return what a manifest has of the shipped policy that a text calls, None of any other text.

    Only shipped policies are made, of numbers and texts: nothing else in the text is called.
    """
    try:
        node = ast.parse(text, mode="eval").body
        if not isinstance(node, ast.Call):
            return None
        policy = build_node(node, require_shipped)
    except (*UNREADABLE, core.BacktestError):
        return None
    return {"policy": describe_policy(policy), "policy_module": "backtest.strategies."}


def require_shipped(name: str) -> type[Policy]:
    """Return the shipped policy of a class name; raise ValueError if there is none."""
    policy = find_shipped(name)
    if policy is None:
        raise ValueError(f"no shipped policy is called {name!r}")
    return policy


def list_chips(result: Result) -> tuple[str, ...]:
    """Return the settings that were changed, but for what the title says."""
    chips = [core.clip(chip, MAX_LETTERS) for chip in walk_chips(result.manifest)]
    n_more = len(chips) - MAX_CHIPS
    if n_more <= 0:
        return tuple(chips)
    return (*chips[:MAX_CHIPS], f"and {n_more} more")


def walk_chips(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a run has beside the title: settings, overlay, signal, account, an earlier run."""
    yield from walk_policy_chips(manifest)
    if manifest.get("overlay"):
        yield f"overlay {name_policy(manifest['overlay'])}"
    signal, _, _ = str(manifest.get("signal", "")).partition(" sha256")
    if signal not in ("", "constant 1", "equal weights"):
        yield f"signal {signal.removeprefix('constant ')}"

    # An account with a name for each instrument is no list of its settings.
    account = manifest.get("account") or {}
    if not all(isinstance(terms, Mapping) for terms in account.values()):
        for name, text in describe_account(account):
            if name != "capital" and (name, text) != ("margin", "cross"):
                yield f"{name.replace('_', ' ')} {text}"
    if manifest.get("resumed_from"):
        yield f"resumed from {manifest['resumed_from']}"


def walk_policy_chips(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings of the policy that were changed, but for what the title says."""
    named = read_manifest(manifest)
    declared = named.declared
    said = named.find_said()
    for name, value in named.settings.items():
        is_default = name in declared and declared[name].default == value
        if name != said and not is_default:
            yield f"{split_name(name)} {write_setting(declared, name, value)}"


def split_name(name: str) -> str:
    """Return the words of a name in camel case or with underscores, in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").lower()
    return " ".join(WORDS.get(word, word) for word in spaced.split())


def write_setting(declared: Mapping[str, Parameter], name: str, value: object) -> str:
    """Return a value with its unit: shares in per cent, leverage with an x."""
    text = core.format_setting(value)
    if name not in declared or isinstance(value, bool | str):
        return text

    unit = str(getattr(declared[name].space, "unit", ""))
    if unit.startswith("x of"):
        return f"{text}x"
    if unit.startswith(SHARES) and isinstance(value, int | float):
        return f"{100.0 * value:.4g} %"
    if unit in ("bars", "days"):
        return f"{text} {unit}"
    return text
