"""The inputs of a run as facts (data, policy, venue, account, engine), and their changes."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.base import to_plain
from backtest.engine import Result
from backtest.policy import written_formulas

if TYPE_CHECKING:
    from backtest.policy import Policy

WINGS = ("account", "engine", "features", "measures", "policy", "venue")

SHARED = (
    *("base/fields.py", "base/ranges.py", "base/units.py", "base/values.py"),
    *("market/market.py", "market/markets.py", "market/settlements.py", "market/reshape.py"),
    "market/weight_frame.py",
)

NOT_OF_THE_ENGINE = frozenset(
    {
        "engine/compile/plain_or_compiled.py",
        *("engine/contract_runs.py", "engine/policy_contract.py", "engine/result_files.py"),
        "engine/result_tables.py",
        *("measures/ranking.py", "policy/formula_reads.py"),
        "venue/imported_tiers.py",
    }
)

POLICY = ("text", "name", "settings", "source_hash", "by_instrument")
SWITCHES = ("switches",)
OF_FILES = frozenset({"policy.file_hash"})
RUN = ("signal", "sampling", "calendar", "resumed_from")
LONGEST = 64
"""The length up to which lists are kept; longer ones are replaced by a hash."""
REPEATED = frozenset({"policy.text", "data.flows_after_the_end"})


class FactChange(NamedTuple):
    kind: str
    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name}: {shorten_value(self.was)} -> {shorten_value(self.now)}"


def gather_facts(result: Result) -> dict[str, Any]:
    manifest, policy = result.manifest, result.manifest["policy"]
    facts: dict[str, Any] = {
        "data": drop_sources(manifest["data"]),
        "policy": {
            **{name: policy[name] for name in (*POLICY, *SWITCHES) if name in policy},
            "file_hash": hash_files(list_policies(result)),
        },
        **({"overlay": manifest["overlay"]} if manifest.get("overlay") else {}),
        "venue": manifest["venue"],
        "account": manifest["account"],
        "run": {name: manifest[name] for name in RUN},
        "engine": {
            "version": manifest["versions"]["leverage-backtest"],
            "source_hash": hash_engine(),
        },
    }
    plain: dict[str, Any] = to_plain(shorten_lists(facts))
    return plain


def list_engine(root: Path) -> list[str]:
    files = [path for wing in WINGS for path in (root / wing).rglob("*.py")]
    files += [root / name for name in SHARED]
    names = (path.relative_to(root).as_posix() for path in files)
    return sorted(
        name for name in names if name not in NOT_OF_THE_ENGINE and not name.endswith("__init__.py")
    )


@functools.cache
def hash_wings(wings: tuple[str, ...]) -> str:
    root = Path(__file__).parents[1]
    files = sorted(path for wing in wings for path in (root / wing).rglob("*.py"))
    return hash_texts(files)


def hash_texts(files: Iterable[Path]) -> str:
    texts = (file.read_bytes().replace(b"\r\n", b"\n") for file in files)
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


@functools.cache
def hash_engine() -> str:
    root = Path(__file__).parents[1]
    return hash_texts(root / name for name in list_engine(root))


def drop_sources(data: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in data.items() if name != "source"}
    if "instruments" in kept:
        kept["instruments"] = {
            name: drop_sources(each) for name, each in data["instruments"].items()
        }
    return kept


def list_policies(result: Result) -> list[Policy]:
    found = [*result.policies.values(), result.overlay]
    return [each for each in found if each is not None]


def hash_files(policies: Sequence[Policy]) -> str | None:
    formulas = [formula for each in policies for formula in written_formulas(type(each))]
    try:
        files = sorted({Path(each.__code__.co_filename) for each in formulas})
        return hash_texts(files) if files else None
    except OSError:  # typed into a notebook or a console
        return None


def hash_facts(facts: Mapping[str, Any]) -> dict[str, str]:
    walk = {"walk": hash_data(facts["walk"])} if "walk" in facts else {}
    return {
        **walk,
        "data": str(facts["data"]["content_hash"]),
        "policy_source": str(facts["policy"]["source_hash"]),
        "venue": hash_data(facts["venue"]),
        "account": hash_data(facts["account"]),
        "engine": str(facts["engine"]["source_hash"]),
    }


def hash_data(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shorten_lists(value: Any) -> Any:
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if len(value) > LONGEST:
        return f"{len(value)} entries, sha256:{hash_data(to_plain(value))}"
    if isinstance(value, Mapping):
        return {str(key): shorten_lists(item) for key, item in value.items()}
    return [shorten_lists(item) for item in value]


def list_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[FactChange]:
    found = [
        FactChange(re.split(r"[.\[]", name, maxsplit=1)[0], name, one, other)
        for name, one, other in _walk(was, now, "")
        if name not in REPEATED and not (name in OF_FILES and None in (one, other))
    ]
    is_code = any(each.name == "policy.source_hash" for each in found)
    return [each for each in found if not (is_code and each.name in OF_FILES)]


def _walk(was: Any, now: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in sorted({*was, *now}):
            name = f"{prefix}.{key}" if prefix else key
            yield from _walk(was.get(key), now.get(key), name)
    elif _is_list(was) and _is_list(now) and len(was) == len(now):
        for place, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _walk(one, other, f"{prefix}[{place}]")
    elif was != now:
        yield prefix, was, now


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def shorten_value(value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    if is_hash:
        return text[:8]
    return text if len(text) <= 60 else f"{text[:57]}..."
