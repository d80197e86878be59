"""``backtest compare``: compare policies, and report which differences are more than noise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

import backtest
from backtest.base import BacktestError, ParameterError, did_you_mean, from_plain
from backtest.cli.experiment import Experiment, build_experiment
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_draft import Draft, DraftTable, GivenFlag, overlay
from backtest.cli.experiment_keys import RULE_TABLES, Key, list_flags
from backtest.cli.experiment_schema import find_single
from backtest.cli.experiment_venue import build_policy
from backtest.cli.find_policy import is_expression
from backtest.cli.flags import POLICY, RESULTS, AsJson, Results, Save
from backtest.cli.printing import save_and_print
from backtest.cli.progress import show_progress
from backtest.cli.typed_values import parse_typed, split_pair
from backtest.compare import Comparison
from backtest.policy import Policy, format_title

EXAMPLES = """
backtest compare --policy vol-target --policy cppi --set cppi.multiplier=5
backtest compare --policy calm=vol-target --policy bold=vol-target --set bold.target=0.8
backtest compare --policy constant --policy kelly --equal-risk --data btc/ --from 2021-01-01
backtest compare examples/btc-vol-target.toml --policy constant --baseline constant --json
backtest compare calm.toml bold.toml       [dim]# experiments that differ in their policy[/dim]
"""


_LABELLED = re.compile(r"\s*([A-Za-z_][\w-]*)\s*=\s*(.+)", re.DOTALL)
_CLASS = re.compile(r"(\w+)\s*\(")
RESERVED = ("account", "venue", *RULE_TABLES)


def read_policy_flags(_key: Key, texts: Sequence[str]) -> Iterator[GivenFlag]:
    seen: dict[str, str] = {}
    for text in texts:
        match = _LABELLED.fullmatch(text)
        label, policy = (match[1], match[2]) if match else (make_label(text), text.strip())
        if label in seen or label in RESERVED:
            why = f"two are called {label!r}" if label in seen else f"one is called {label!r}"
            raise ParameterError(
                f"the names of policies must be different, {why}; label it, as 'bold={policy}'"
            )
        seen[label] = policy
        yield GivenFlag("compare", f"policies.{label}.name", policy)


def make_label(text: str) -> str:
    if is_expression(text):
        return "-".join(map(format_title, _CLASS.findall(text)))
    path, _, name = text.strip().partition(".py:")
    return format_title(name) if name else Path(path).name.removesuffix(".py")


def read_setting_flags(key: Key, texts: Sequence[str]) -> Iterator[GivenFlag]:
    for text in texts:
        name, value = split_pair(key.flag, text, "cppi.multiplier=5")
        whose, dot, field = name.partition(".")
        if not (dot and field):
            raise ParameterError(
                f"a setting must name its policy, as vol-target.{text}, got {text!r}"
            )
        if whose in RULE_TABLES:
            yield GivenFlag("run", f"{whose}_settings.{field}", parse_typed(value))
        elif whose in RESERVED:
            yield GivenFlag(whose, field, parse_typed(value))
        else:
            yield GivenFlag("compare", f"policies.{whose}.settings.{field}", value)


def list_policy_entries(drafts: Sequence[Draft]) -> dict[str, DraftTable]:
    """Return the policies by label, those of files first, then those of flags.

    A file gives the policies of its table ``[compare.policies]``, or else the one of ``[policy]``,
    labeled with the name of the file.
    """
    entries = dict(list_file_policies(drafts))
    first = drafts[0]
    for label, table in first.tables.get("compare", {}).get("policies", {}).items():
        if "name" in table:
            folder = first.find_base("compare", f"policies.{label}.name")
            entries[label] = DraftTable(table, folder)
        elif label in entries:
            merged = overlay(entries[label].entries, table)
            entries[label] = entries[label]._replace(entries=merged)
        else:
            raise ParameterError(
                f"compare.policies.{label} must have a name or be of a policy that is compared, "
                f"{', '.join(entries) or 'got none'}{did_you_mean(label, entries)}"
            )
    return entries


def list_file_policies(drafts: Sequence[Draft]) -> Iterator[tuple[str, DraftTable]]:
    """Yield the policy of each file, labeled with the name of the file."""
    files = [draft for draft in drafts if draft.file is not None]
    for draft in files:
        file, own = draft.file, draft.from_file.get("compare", {})
        if file is None or (len(files) == 1 and own.get("policies")):
            continue
        if own and len(files) > 1:
            raise ParameterError(
                f"[compare] must not be in one of several experiments, {file} has it"
            )
        yield label_file(file, files), draft.section("policy", path="name")


def label_file(file: Path, files: Sequence[Draft]) -> str:
    """Return the label of a file's policy: the file's name, with its folder if two share it."""
    alike = [each for each in files if each.file is not None and each.file.stem == file.stem]
    return file.stem if len(alike) == 1 else f"{file.parent.name}/{file.stem}"


FLAGS = (
    Key("compare", "policies", dict[str, Any], "--policy", POLICY,
        "NAME, FILE.py:ClassName, or LABEL=NAME to label it; repeat for each.", read_policy_flags),
    Key("compare", "policies", dict[str, Any], "--set", POLICY,
        "A parameter, LABEL.NAME=VALUE, or a field, account.NAME=VALUE; repeat for more.",
        read_setting_flags),
    *list_flags("compare"),
)  # fmt: skip


def compare(
    drafts: list[Draft], *, as_json: AsJson = False, save: Save = True, results: Results = RESULTS
) -> None:
    """Compare policies on one market, and report which differences are more than noise.

    Several files must share data, venue, account and signal: flags override all of them.
    """
    policies = build_policies(drafts)
    for draft in drafts:
        refuse_single_policies(draft)
    experiments = [build_experiment(draft) for draft in drafts]
    check_alike(drafts, experiments)
    market, _, terms = experiments[0]
    table = drafts[0].tables.get("compare", {})
    arguments = {name: entry for name, entry in table.items() if name != "policies"}
    found = {}
    with show_progress("running", "policies") as progress:
        for done, (label, policy) in enumerate(policies.items()):
            found[label] = run_policy(label, market, policy, terms)
            if progress is not None:
                progress(done + 1, len(policies))
    with show_progress("comparing", "steps") as progress:
        compared = backtest.compare(found, **arguments, progress=progress)
    print_comparison(compared, results if save else None, as_json=as_json)


def run_policy(label: str, market: Any, policy: Policy, terms: dict[str, Any]) -> Any:
    try:
        return backtest.run(market, policy, **terms)
    except BacktestError as error:
        raise type(error)(f"policy {label!r}: {error}") from error


def refuse_single_policies(draft: Draft) -> None:
    """Refuse policies of single instruments: a comparison runs each policy on all of them."""
    single = [*find_single(draft.tables.get("policy", {}))]
    if single:
        raise ParameterError(
            f"a comparison runs each of its policies on all instruments, policy.{single[0]} is for "
            "one; name it in [compare.policies]"
        )


def print_comparison(done: Comparison, results: Path | None, *, as_json: bool) -> None:
    def to_data(path: str | None) -> object:
        return from_plain({"path": path, **done.to_dict()})

    save_and_print(done, results, lambda: typer.echo(done.summary()), to_data if as_json else None)


def build_policies(drafts: Sequence[Draft]) -> dict[str, Policy]:
    """Build the policies, by label."""
    entries = list_policy_entries(drafts)
    if len(entries) < 2:
        found = f"got {', '.join(entries)} alone" if entries else "got none"
        raise ParameterError(
            f"a comparison needs two policies or more, {found}; `backtest policies` lists policies"
        )
    return {label: build_policy(each) for label, each in entries.items()}


def check_alike(drafts: Sequence[Draft], experiments: Sequence[Experiment]) -> None:
    """Check that experiments have the same market and terms, but for their policies."""
    first = experiments[0]
    for draft, other in zip(drafts[1:], experiments[1:], strict=True):
        differing = [name for name in first.terms if not is_alike(first, other, name)]
        if first.market.content_hash != other.market.content_hash:
            differing.insert(0, "market")
        if differing:
            raise ParameterError(
                f"experiments must share data, venue, account and signal, {draft.file} and "
                f"{drafts[0].file} differ in {', '.join(differing)}"
            )


def is_alike(first: Experiment, other: Experiment, name: str) -> bool:
    mine, theirs = (repr(each.terms.get(name)) for each in (first, other))
    return mine == theirs


COMMAND = take_experiment(compare, FLAGS)
