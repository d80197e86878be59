"""Several policies as words: the flags and files that name them, and whose setting is whose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base.errors import ParameterError, did_you_mean
from backtest.cli.draft import Draft, GivenFlag, flatten
from backtest.cli.experiment import DEFAULT_POLICY
from backtest.cli.find_policy import read_policy
from backtest.cli.policy_expression import is_expression
from backtest.cli.typed_values import read_word, split_pair
from backtest.policy.policy import Policy

_LABELLED = re.compile(r"\s*([A-Za-z_][\w-]*)\s*=\s*(.+)", re.DOTALL)
_CLASS = re.compile(r"(\w+)\s*\(")
RESERVED = ("account", "venue")
"""What ``--set`` speaks of otherwise."""


class Entry(NamedTuple):
    """A policy as it was said: its name or text, its settings, where it was said."""

    text: str
    settings: dict[str, Any]
    where: str
    folder: Path

    def build(self) -> Policy:
        """Return the policy."""
        return read_policy(self.text, self.settings, where=self.where, folder=self.folder)


# ---------------------------------------------------------------------------------- from flags


def read_named(name: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
    """Yield the entry of each ``NAME`` or ``LABEL=NAME``.

    Raises
    ------
    ParameterError
        If two go by one label, or a label cannot be used.
    """
    seen: dict[str, str] = {}
    for text in texts:
        match = _LABELLED.fullmatch(text)
        label, policy = (match[1], match[2]) if match else (write_label(text), text.strip())
        if label in seen or label in RESERVED:
            why = f"two are called {label!r}" if label in seen else f"one is called {label!r}"
            raise ParameterError(
                f"policies must go by names of their own, {why}",
                where=f"{name} {text}",
                cure=f"give it a name: {name} 'bold={policy}'",
            )
        seen[label] = policy
        yield GivenFlag(name, "compare", f"policies.{label}.name", policy)


def write_label(text: str) -> str:
    """Return what a policy goes by where nothing is said.

    Examples
    --------
    >>> write_label("vol-target"), write_label("mine.py:MyPolicy")
    ('vol-target', 'my-policy')
    >>> write_label("Capped(VolTarget(target=0.6), cap=3)")
    'capped-vol-target'
    """
    if is_expression(text):
        return "-".join(map(in_title, _CLASS.findall(text)))
    path, _, name = text.strip().partition(".py:")
    return in_title(name) if name else Path(path).name.removesuffix(".py")


def in_title(name: str) -> str:
    """Return the title of a class by its name."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()


def read_own_settings(name: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
    """Yield the entry of each ``LABEL.NAME=VALUE``, of a policy, the account or the venue.

    Raises
    ------
    ParameterError
        If one does not say whose it is.
    """
    for text in texts:
        key, value = split_pair(name, text, "cppi.multiplier=5")
        whose, dot, field = key.partition(".")
        if not (dot and field):
            raise ParameterError(
                f"a setting must say of which policy, was {text!r}",
                where=f"{name} {text}",
                cure=f"write for example {name} vol-target.{text}",
            )
        if whose in RESERVED:
            yield GivenFlag(name, whose, field, read_word(value))
        else:
            yield GivenFlag(name, "compare", f"policies.{whose}.settings.{field}", value)


# ---------------------------------------------------------------------------------- all of them


def list_entries(drafts: Sequence[Draft]) -> dict[str, Entry]:
    """Return the policies of files and flags by label, those of files first.

    A file has the policies of its table ``[compare.policies]``, or else that of ``[policy]``,
    called as the file is.

    Raises
    ------
    ParameterError
        If a setting is of none of them, or one of several files has a table ``[compare]``.
    """
    entries = dict(list_files(drafts))
    first = drafts[0]
    for label, table in first.tables.get("compare", {}).get("policies", {}).items():
        where = place(first, label)
        settings = flatten(table.get("settings", {}))
        if "name" in table:
            folder = first.resolve("compare", f"policies.{label}.name")
            entries[label] = Entry(table["name"], settings, where, folder)
        elif label in entries:
            known = entries[label]
            entries[label] = known._replace(settings={**known.settings, **settings}, where=where)
        else:
            raise ParameterError(
                f"a setting must be of a policy that is compared, {label!r} is none"
                + did_you_mean(label, entries),
                where=where,
                cure=f"use {', '.join(entries) or 'the name of one'}, or add --policy {label}",
            )
    return entries


def list_files(drafts: Sequence[Draft]) -> Iterator[tuple[str, Entry]]:
    """Yield the policy of each file under the file's name."""
    files = [draft for draft in drafts if draft.file is not None]
    for draft in files:
        file, own = draft.file, draft.from_file.get("compare", {})
        if file is None or (len(files) == 1 and own.get("policies")):
            continue
        if own and len(files) > 1:
            raise ParameterError(
                "one of several experiments cannot say how all are compared, one has [compare]",
                where=f"{file}, [compare]",
                cure="leave that table out and use flags, or give this file alone",
            )
        table: Mapping[str, Any] = draft.tables.get("policy", {})
        settings = flatten(table.get("settings", {}))
        name = table.get("name", DEFAULT_POLICY)
        where, folder = draft.place("policy"), draft.resolve("policy", "name")
        yield label_file(file, files), Entry(name, settings, where, folder)


def label_file(file: Path, files: Sequence[Draft]) -> str:
    """Return what the policy of a file goes by: the file's name, with its folder if need be."""
    alike = [each for each in files if each.file is not None and each.file.stem == file.stem]
    return file.stem if len(alike) == 1 else f"{file.parent.name}/{file.stem}"


def place(draft: Draft, label: str) -> str:
    """Return where a policy was said, for messages."""
    prefix = f"policies.{label}."
    flags = [flag.name for flag in draft.flags if flag.key.startswith(prefix)]
    in_file = label in draft.from_file.get("compare", {}).get("policies", {})
    places = [f"{draft.file}, [compare.policies.{label}]"] if in_file else []
    return ", ".join([*places, *(f"{name} {label}" for name in dict.fromkeys(flags))])
