"""The title of a run as people say it, "Volatility target 80 %", and what was changed beside it.

The title names the policy and its first parameter. A *chip* is one other setting that is not at its
default: of the policy, the account, or the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backtest import core
from backtest.experiments.policy_names import find_shipped
from backtest.report.basis import describe_account, name_policy

if TYPE_CHECKING:
    from backtest.policies import Policy
    from backtest.results import Result

WORDS = {
    "vol": "volatility",
    "cppi": "CPPI",
    "ltv": "loan to value",
}
"""Words of names of classes and parameters that people write otherwise."""
SHARES = ("per sqrt(year)", "of ", "per year")
"""Beginnings of units in which a number is a share, written in per cent."""
CALL = re.compile(r"([A-Z]\w*)\(([^()]*)\)")
"""The call of a policy in a text."""
MAX_CHIPS = 12
MAX_LETTERS = 60
"""Most chips of a page, and letters of one."""


def write_phrase(manifest: Mapping[str, Any]) -> str:
    """Return the title of a run; a policy of which only a text is known is that text."""
    policy = manifest["policy"]
    settings = policy.get("settings")
    if not settings or not policy.get("name"):
        return str(policy.get("text") or policy.get("name"))

    name = split_name(str(policy["name"]))
    first, value = next(iter(settings.items()))
    if not isinstance(value, int | float) or isinstance(value, bool):
        return core.capitalize(name)

    number = write_setting(find_class(manifest), first, value)
    label = split_name(first)
    if label not in name:
        name = f"{name} {label}"
    return f"{core.capitalize(name)} {number}"


def phrase_heading(heading: str) -> str:
    """Return a heading with the phrase of the shipped policy whose call it has."""
    called = CALL.search(heading)
    if called is None:
        return heading

    manifest = read_call(called)
    if find_class(manifest) is None:
        return heading
    return heading[: called.start()] + write_phrase(manifest) + heading[called.end() :]


def describe_call(text: str) -> tuple[str, tuple[str, ...]]:
    """Return the phrase of the call of a shipped policy, and its settings that were changed.

    Any other text stays as it is.
    """
    called = CALL.fullmatch(text)
    if called is None:
        return text, ()

    manifest = read_call(called)
    if find_class(manifest) is None:
        return text, ()
    return write_phrase(manifest), tuple(walk_policy_chips(manifest))


def read_call(called: re.Match[str]) -> dict[str, Any]:
    """Return what a manifest has of the policy whose call was found in a text."""
    settings = {}
    for part in called[2].split(", "):
        name, _, text = part.partition("=")
        number = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d+)?", text)
        settings[name] = float(text) if number else text.strip("'")

    policy = {
        "name": called[1],
        "settings": settings,
        "text": called[0],
    }
    return {"policy": policy, "policy_module": "backtest.strategies."}


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
    cls = find_class(manifest)
    declared: Mapping[str, Any] = {}
    if cls is not None:
        declared = cls.parameters()

    settings = dict(manifest["policy"].get("settings") or {})
    first = next(iter(settings), None)
    for name, value in settings.items():
        is_said = name == first and isinstance(value, int | float)
        is_default = name in declared and declared[name].default == value
        if not is_said and not is_default:
            yield f"{split_name(name)} {write_setting(cls, name, value)}"


def find_class(manifest: Mapping[str, Any]) -> type[Policy] | None:
    """Return the shipped class of the policy, None of any other: no module of a user is loaded."""
    module = str(manifest.get("policy_module", ""))
    if not module.startswith("backtest.strategies."):
        return None
    return find_shipped(str(manifest["policy"].get("name")))


def split_name(name: str) -> str:
    """Return the words of a name in camel case or with underscores, in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").lower()
    return " ".join(WORDS.get(word, word) for word in spaced.split())


def write_setting(cls: type[Policy] | None, name: str, value: object) -> str:
    """Return a value with its unit: shares in per cent, leverage with an x."""
    text = core.format_setting(value)
    if cls is None or name not in cls.parameters() or isinstance(value, bool | str):
        return text

    unit = str(getattr(cls.parameters()[name].space, "unit", ""))
    if unit.startswith("x of"):
        return f"{text}x"
    if unit.startswith(SHARES) and isinstance(value, int | float):
        return f"{100.0 * value:.4g} %"
    if unit in ("bars", "days"):
        return f"{text} {unit}"
    return text
