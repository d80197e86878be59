"""The policies of a comparison and their settings, as flags and files give them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from backtest.base import ParameterError, did_you_mean
from backtest.cli.experiment_draft import Draft, DraftTable, GivenFlag, overlay
from backtest.cli.experiment_keys import RULE_TABLES
from backtest.cli.policy_expression import is_expression
from backtest.cli.typed_values import parse_typed, split_pair
from backtest.policy import format_title

_LABELLED = re.compile(r"\s*([A-Za-z_][\w-]*)\s*=\s*(.+)", re.DOTALL)
_CLASS = re.compile(r"(\w+)\s*\(")
RESERVED = ("account", "venue", *RULE_TABLES)
"""Prefixes that ``--set`` uses for tables other than a policy's."""


def read_policy_flags(name: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
    """Yield the entry that each ``NAME`` or ``LABEL=NAME`` sets."""
    seen: dict[str, str] = {}
    for text in texts:
        match = _LABELLED.fullmatch(text)
        label, policy = (match[1], match[2]) if match else (make_label(text), text.strip())
        if label in seen or label in RESERVED:
            why = f"two are called {label!r}" if label in seen else f"one is called {label!r}"
            raise ParameterError(
                f"the names of policies must be different, {why}",
                where=f"{name} {text}",
                cure=f"give it a name: {name} 'bold={policy}'",
            )
        seen[label] = policy
        yield GivenFlag(name, "compare", f"policies.{label}.name", policy)


def make_label(text: str) -> str:
    """Return the default label of a policy.

    Examples
    --------
    >>> make_label("vol-target"), make_label("mine.py:MyPolicy")
    ('vol-target', 'my-policy')
    >>> make_label("Capped(VolTarget(target=0.6), cap=3)")
    'capped-vol-target'
    """
    if is_expression(text):
        return "-".join(map(format_title, _CLASS.findall(text)))
    path, _, name = text.strip().partition(".py:")
    return format_title(name) if name else Path(path).name.removesuffix(".py")


def read_setting_flags(name: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
    """Yield the entry that each ``LABEL.NAME=VALUE`` sets in a policy, the account or the venue."""
    for text in texts:
        key, value = split_pair(name, text, "cppi.multiplier=5")
        whose, dot, field = key.partition(".")
        if not (dot and field):
            raise ParameterError(
                f"a setting must name its policy, got {text!r}",
                where=f"{name} {text}",
                cure=f"write for example {name} vol-target.{text}",
            )
        if whose in RULE_TABLES:
            yield GivenFlag(name, "run", f"{whose}_settings.{field}", parse_typed(value))
        elif whose in RESERVED:
            yield GivenFlag(name, whose, field, parse_typed(value))
        else:
            yield GivenFlag(name, "compare", f"policies.{whose}.settings.{field}", value)


def list_policy_entries(drafts: Sequence[Draft]) -> dict[str, DraftTable]:
    """Return the policies by label, those of files first, then those of flags.

    A file gives the policies of its table ``[compare.policies]``, or else the one of ``[policy]``,
    labeled with the name of the file.
    """
    entries = dict(list_file_policies(drafts))
    first = drafts[0]
    for label, table in first.tables.get("compare", {}).get("policies", {}).items():
        where = locate_policy(first, label)
        if "name" in table:
            folder = first.find_base("compare", f"policies.{label}.name")
            entries[label] = DraftTable(table, where, folder)
        elif label in entries:
            merged = overlay(entries[label].entries, table)
            entries[label] = entries[label]._replace(entries=merged, where=where)
        else:
            raise ParameterError(
                f"a setting must be of a policy that is compared, {label!r} is none"
                + did_you_mean(label, entries),
                where=where,
                cure=f"use {', '.join(entries) or 'the name of one'}, or add --policy {label}",
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
                "[compare] must not be in one of several experiments, one has it",
                where=f"{file}, [compare]",
                cure="leave that table out and use flags, or give this file alone",
            )
        yield label_file(file, files), draft.section("policy", path="name")


def label_file(file: Path, files: Sequence[Draft]) -> str:
    """Return the label of a file's policy: the file's name, with its folder if two share it."""
    alike = [each for each in files if each.file is not None and each.file.stem == file.stem]
    return file.stem if len(alike) == 1 else f"{file.parent.name}/{file.stem}"


def locate_policy(draft: Draft, label: str) -> str:
    """Return the file and flags that gave a policy, for messages."""
    prefix = f"policies.{label}."
    flags = [flag.name for flag in draft.flags if flag.key.startswith(prefix)]
    in_file = label in draft.from_file.get("compare", {}).get("policies", {})
    places = [f"{draft.file}, [compare.policies.{label}]"] if in_file else []
    return ", ".join([*places, *(f"{name} {label}" for name in dict.fromkeys(flags))])
