"""The command that made a saved result, or the call if it was made in Python."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base.provenance import Making
from backtest.base.saved_result import KINDS


class Origin(NamedTuple):
    """How a result was made.

    Attributes
    ----------
    command : str
        The command line, quoted for a shell; empty if it is not known.
    remarks : tuple of str
        Further facts needed to make the result again, one sentence each.
    """

    command: str
    remarks: tuple[str, ...]


def describe_origin(manifest: Mapping[str, Any], making: Making | None) -> Origin:
    """Return how a result was made, from its manifest (or study description) and provenance."""
    argv = making.argv if making else ()
    if not argv:
        return Origin("", (describe_call(manifest),))
    files = [word for word in argv if Path(word.partition(":")[0]).suffix in (".toml", ".py")]
    remarks = (f"it reads {', '.join(files)} as it is now",) if files else ()
    return Origin(shlex.join(argv), remarks)


def describe_call(manifest: Mapping[str, Any]) -> str:
    """Describe the call, the policies and the data of a result without a recorded command.

    Examples
    --------
    >>> manifest = {"data": {"source": "Market.sample()"}, "policy": {"text": "Cppi()"}}
    >>> describe_call({**manifest, "policy_module": "strategies.cppi"})
    'made in Python, or by an earlier version: bt.run, Cppi() of strategies.cppi, Market.sample()'
    """
    is_study = "objectives" in manifest
    kind = KINDS.get(str(manifest.get("kind")))
    call = "bt.tune" if is_study else "bt.run" if kind is None else kind.call
    one = {"": manifest["policy"]} if "policy" in manifest else {}
    policies = manifest.get("policies") or one
    names = ", ".join(str(each.get("text") or each["name"]) for each in policies.values())
    module = f" of {manifest['policy_module']}" if "policy_module" in manifest else ""
    source = manifest["data"].get("source") or manifest.get("source", "data of no known source")
    parts = [call, f"{names}{module}", str(source)]
    return f"made in Python, or by an earlier version: {', '.join(filter(None, parts))}"
