"""The command that makes a saved result again, as far as its manifest says how it was made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from backtest import strategies
from backtest.account.account import Account
from backtest.base.errors import BacktestError
from backtest.base.json_values import to_plain
from backtest.base.result_folders import MANIFEST, read_json
from backtest.market.data_expression import take_apart
from backtest.store.entry import COMPARISON, RUN, STUDY_KIND, SWEEP, find_kind
from backtest.sweep.sweep_table import Sweep
from backtest.tune.study_folder import STUDY
from backtest.tune.study_folder import read_json as read_study_json
from backtest.venue.preset_files import LATEST, parse_name
from backtest.venue.venue import Venue

COMMANDS = {RUN: "run", SWEEP: "sweep", STUDY_KIND: "tune", COMPARISON: "compare"}
DEFAULT_VENUE = "binance-usdm:BTCUSDT"
MOST_VALUES = 32
_CLASS = re.compile(r"\b([A-Z]\w*)\(")
LOADED = ("instrument", "interval", "funding_interval", "timezone", "mark_gaps", "funding_gaps")
"""What the command line can say of data that are loaded."""

ReadTable = Callable[[], pd.DataFrame]


class Origin(NamedTuple):
    """How a result was made.

    Attributes
    ----------
    command : str
        The line to type. It gives a result of the same id, where there are no remarks.
    remarks : tuple of str
        What the line cannot say, one sentence each.
    """

    command: str
    remarks: tuple[str, ...]


class Said(NamedTuple):
    """Words of a command, and what has no word."""

    words: list[str]
    remarks: list[str]


def find_origin(folder: Path) -> Origin:
    """Return the command that makes the result of a folder again."""
    kind = find_kind(folder)
    facts = read_study_json(folder / STUDY) if kind == STUDY_KIND else read_json(folder / MANIFEST)
    return describe_origin(kind, to_plain(facts), lambda: Sweep.load(folder).table)


def describe_origin(kind: str, facts: Mapping[str, Any], read_table: ReadTable) -> Origin:
    """Return the command that makes a result again.

    Parameters
    ----------
    kind : str
        ``"run"``, ``"sweep"``, ``"study"`` or ``"comparison"``.
    facts : mapping
        Its manifest, or what a study is, as plain data.
    read_table : callable
        Returns the table of a sweep; called of a grid only.
    """
    own = {RUN: say_run, SWEEP: say_sweep, STUDY_KIND: say_study, COMPARISON: say_comparison}[kind]
    found = [
        say_data(str(facts["data"].get("source") or facts.get("source", ""))),
        own(facts, read_table),
        say_venue(facts["venue"]),
        say_account(facts["account"]),
        say_terms(facts),
    ]
    words = [word for each in found for word in each.words]
    remarks = [remark for each in found for remark in each.remarks]
    return Origin(shlex.join(["backtest", COMMANDS[kind], *words]), tuple(remarks))


# ------------------------------------------------------------------------------------------- data


def say_data(source: str) -> Said:
    """Return the words for ``Market.load('btc').between(...).resample('1d')``; it is never run."""
    unsaid = Said([], [f"the data cannot be said at the command line: {source}"])
    try:
        (name, given, named), *steps = take_apart(source)
        words = say_first(name, given, named)
        if steps and steps[0][0] == "between" and not {"--from", "--to"} & {*words}:
            words += say_span(*steps.pop(0)[1])
        if steps and steps[0][0] == "resample":
            words += ["--resample", str(steps.pop(0)[1][0])]
    except (ValueError, TypeError, IndexError):
        return unsaid
    return unsaid if steps else Said(words, [])


def say_first(name: str, given: list[Any], named: dict[str, Any]) -> list[str]:
    """Return the words for where data come from.

    Raises
    ------
    ValueError
        If there are none.
    """
    if name == "Market.sample" and not given and not named:
        return []
    between = named.pop("between", (None, None))
    if name != "Market.load" or len(given) != 1 or {*named} - {*LOADED}:
        raise ValueError(name)
    said = [word for k, v in named.items() for word in (f"--{k.replace('_', '-')}", str(v))]
    return ["--data", str(given[0]), *said, *say_span(*between)]


def say_span(start: str | None = None, end: str | None = None) -> list[str]:
    """Return the words for a part of the time."""
    pairs = (("--from", start), ("--to", end))
    return [word for flag, time in pairs if time is not None for word in (flag, str(time))]


# ------------------------------------------------------------------------------------ by its kind


def say_run(facts: Mapping[str, Any], read_table: ReadTable) -> Said:  # noqa: ARG001
    """Return the words for the policy of a run."""
    text = facts["policy"]["text"]
    remarks = [] if facts.get("resumed_from") is None else ["it was resumed from another run"]
    return Said(["--policy", text], [*find_foreign(text), *remarks])


def find_foreign(text: str) -> list[str]:
    """Return a remark where a policy is not one of the library."""
    known = {*strategies.__all__}
    others = sorted({name for name in _CLASS.findall(text) if name not in known})
    return [f"{name} is a policy of yours: say its file, FILE.py:{name}" for name in others]


def say_policy(policy: Mapping[str, Any], settings: Mapping[str, Any]) -> Said:
    """Return the words for a policy of which some settings are held."""
    cls = getattr(strategies, str(policy["name"]), None)
    name = policy["name"] if cls is None else cls.title()
    words = ["--policy", str(name)]
    for key, value in settings.items():
        words += ["--set", f"{key}={write_word(value)}"]
    return Said(words, find_foreign(f"{policy['name']}("))


def write_word(value: object) -> str:
    """Return a value as the command line reads it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def say_sweep(facts: Mapping[str, Any], read_table: ReadTable) -> Said:
    """Return the words for the sets of a sweep: the values of a grid, or how they were drawn."""
    words, remarks = say_policy(facts["policy"], facts["policy"]["settings"])
    drawn, asked = facts["drawn"], int(facts["sets"]["asked"])
    if drawn:
        words += ["--draws", str(asked), "--method", drawn["method"], "--seed", str(drawn["seed"])]
        remarks.append(
            f"the sets were drawn over {', '.join(facts['parameters'])}: where that was not from "
            "the declared ranges, say it with --space"
        )
    else:
        words += say_grid(read_table(), facts["parameters"], asked, remarks)
    for name, value in (("--metrics", facts.get("metrics")),):
        if value == "core":
            words += [name, value]
    return Said([*words, *(["--full"] if facts.get("full") else [])], remarks)


def say_grid(
    table: pd.DataFrame, names: Mapping[str, Any], asked: int, remarks: list[str]
) -> list[str]:
    """Return the words for a grid; a remark where the sets are no grid, or one too long to say."""
    words, product = [], 1
    for name in names:
        values = table[name].drop_duplicates().tolist()
        product *= len(values)
        if len(values) > MOST_VALUES:
            product = -1
            break
        words += ["--vary", f"{name}={','.join(map(write_word, values))}"]
    if product == asked:
        return words
    remarks.append(f"its {asked:,} sets are no short grid: its table holds them")
    return []


def say_study(facts: Mapping[str, Any], read_table: ReadTable) -> Said:  # noqa: ARG001
    """Return the words for a search."""
    space = facts["space"]
    varied = {each["name"] for each in space["dimensions"]}
    held = {k: v for k, v in facts["policy"]["settings"].items() if k not in varied}
    free = {name: value for name, value in held.items() if name not in space["fixed"]}
    words, remarks = say_policy(facts["policy"], free)
    given = facts["objective"]
    for objective in given if isinstance(given, list) else [given]:
        said, more = say_objective(objective)
        words += said
        remarks += more
    for each in facts["constraints"]:
        if each != "ruined == 0":
            words += ["--constraint", str(each).replace(" ", "")]
    for each in space["dimensions"]:
        words += ["--space", f"{each['name']}={say_dimension(each)}"]
        if each["when"] is not None:
            remarks.append(f"{each['name']} counts only under a condition that its policy declares")
    for name, value in space["fixed"].items():
        words += ["--fix", f"{name}={write_word(value)}"]
    words += say_budget(facts)
    return Said(words, remarks)


def say_objective(objective: Any) -> Said:
    """Return the words for one objective: a measure, or weights."""
    if isinstance(objective, Mapping):
        objective = ",".join(f"{name}={weight!r}" for name, weight in objective.items())
    if "sha256:" in str(objective):
        return Said([], ["its objective is a function of yours"])
    return Said(["--objective", str(objective)], [])


def say_dimension(each: Mapping[str, Any]) -> str:
    """Return what a search may vary, as the command line reads it."""
    if each["options"]:
        return ",".join(map(write_word, each["options"]))
    log = "log:" if each["log"] else ""
    return f"{log}{write_word(each['low'])}:{write_word(each['high'])}"


def say_budget(facts: Mapping[str, Any]) -> list[str]:
    """Return the words for how long a search goes on, and how."""
    budget, words = facts["budget"], []
    for name in ("trials", "seconds"):
        if budget[name] is not None:
            words += [f"--{name}", write_word(budget[name])]
    holdout = "none" if facts["holdout"] is None else str(facts["holdout"])
    words += ["--sampler", facts["sampler"], "--holdout", holdout, "--seed", str(facts["seed"])]
    return [*words, *([] if facts["robust"] else ["--no-robust"])]


def say_comparison(facts: Mapping[str, Any], read_table: ReadTable) -> Said:  # noqa: ARG001
    """Return the words for the policies of a comparison, and how they were compared."""
    words: list[str] = []
    remarks: list[str] = []
    for name, policy in facts["policies"].items():
        words += ["--policy", f"{name}={policy['text']}"]
        remarks += find_foreign(policy["text"])
    words += ["--baseline", facts["baseline"]]
    words += ["--equal-risk"] if facts["equal_risk"] else []
    for name in ("confidence", "draws", "seed"):
        words += [f"--{name}", write_word(facts[name])]
    return Said(words, remarks)


# ------------------------------------------------------------------------------------------ terms


def say_venue(venue: Mapping[str, Any]) -> Said:
    """Return the words for a venue: its preset, and the fields that differ from it."""
    name = (venue.get("in_force") or {}).get("preset")
    if name is None:
        return Said([], ["its venue is no preset: the manifest holds all of it, under venue"])
    found = []
    since = str(venue["in_force"].get("since", ""))
    for at in dict.fromkeys(("", LATEST, since)):
        full = f"{name}@{at}" if at else str(name)
        try:
            preset = parse_name(full, where="manifest")
            plain = to_plain(Venue.preset(*preset).to_dict())
        except BacktestError:
            continue
        changed = dict(find_changes(plain, venue))
        found.append((len(changed), full, changed))
    if not found:
        return Said([], [f"its venue is the preset {name}, which is not here"])
    _, full, changed = min(found, key=lambda each: each[0])
    words = [] if full == DEFAULT_VENUE else ["--venue", full]
    return say_changes("venue", words, changed)


def say_account(account: Mapping[str, Any]) -> Said:
    """Return the words for the fields of an account that are not the defaults."""
    changed = dict(find_changes(to_plain(Account().to_dict()), account))
    return say_changes("account", [], changed)


def find_changes(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the entries of one table that differ from another, by their names joined by dots."""
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from find_changes(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}", new


def say_changes(table: str, words: Sequence[str], changed: Mapping[str, Any]) -> Said:
    """Return the words for changed fields, and a remark for those that are no single value."""
    said, remarks = list(words), []
    for name, value in changed.items():
        if isinstance(value, Mapping | list) or name.startswith("in_force"):
            if name != "in_force.since":
                remarks.append(f"{table}.{name} is a table: the manifest holds it")
        else:
            said += ["--set", f"{table}.{name}={write_word(value)}"]
    return Said(said, remarks)


def say_terms(facts: Mapping[str, Any]) -> Said:
    """Return the words for the signal and for how returns are measured."""
    words: list[str] = []
    remarks: list[str] = []
    signal = str(facts["signal"])
    if signal.startswith("constant "):
        value = signal.removeprefix("constant ")
        words += [] if value == "1" else ["--signal", value]
    else:
        remarks.append(f"its signal was a series ({signal:.60}): name its column with --signal")
    for name, default in (("sampling", "1d"), ("calendar", "365")):
        if facts[name] != default:
            words += [f"--{name}", str(facts[name])]
    return Said(words, remarks)
