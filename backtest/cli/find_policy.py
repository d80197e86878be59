"""Find policies: built-in ones by name, others in users' files, or written as an expression."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
import sys
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from backtest import strategies
from backtest.base import BacktestError, ParameterError, PolicyError, did_you_mean
from backtest.policy import Policy, check_settings, find_policies

LONGEST = 4_000
"""Most characters of a policy expression."""
EXAMPLE = "Capped(VolTarget(target=0.6), cap=3)"


def built_in_policies() -> list[type[Policy]]:
    return sorted(find_policies(strategies), key=lambda policy: policy.title())


def load_policies(text: str) -> list[type[Policy]]:
    """Return the policy of a name, an expression or ``FILE.py:Class``, or all of ``FILE.py``."""
    if "(" in text:
        return [type(read_policy(text, {}))]
    path, _, name = text.partition(".py:") if ".py:" in text else (text, "", "")
    if not (name or text.endswith(".py")):
        return [find_built_in(text)]
    file = Path(f"{path}.py" if name else text)
    found = load_file_policies(file)
    known = [policy.__name__ for policy in found]
    if name and name not in known:
        raise ParameterError(
            f"{file} must hold the policy asked for, {name!r} is not in it"
            f"{did_you_mean(name, known)}; it has {', '.join(known)}"
        )
    return [found[known.index(name)]] if name else found


def load_policy(text: str) -> type[Policy]:
    found = load_policies(text)
    if len(found) > 1:
        names = [policy.__name__ for policy in found]
        raise ParameterError(
            f"one policy is run at a time, {text} holds {', '.join(names)}; name one: "
            f"{text}:{names[0]}"
        )
    return found[0]


def read_policy(text: str, settings: Mapping[str, object]) -> Policy:
    if "(" not in text:
        return load_policy(text).from_settings(settings)
    policy = parse_policy(text)
    return type(policy).from_settings({**policy.settings(), **settings})


def find_built_in(name: str) -> type[Policy]:
    known = {policy.title(): policy for policy in built_in_policies()}
    classes = {policy.__name__: policy.title() for policy in known.values()}
    title = classes.get(name, name)
    if title not in known:
        near = did_you_mean(name.lower(), known)
        raise ParameterError(
            f"policy must be a known name or a file, got {name!r:.200}{near}; `backtest policies` "
            "lists them"
        )
    return known[title]


def load_file_policies(file: Path) -> list[type[Policy]]:
    if not file.is_file():
        near = did_you_mean(file.stem, (each.stem for each in file.parent.glob("*.py")))
        raise ParameterError(f"a policy's file must exist, {str(file)!r} does not{near}")
    module = import_file(file)
    found = [each for each in find_policies(module) if each.__module__ == module.__name__]
    if not found:
        raise ParameterError(
            f"a policy's file must define a policy, {file} defines none; write class "
            "MyPolicy(bt.Policy) with leverage(self, bar, account)"
        )
    return found


def import_file(file: Path) -> ModuleType:
    name = f"_file_{file.stem}"
    spec: Any = importlib.util.spec_from_file_location(name, file.resolve())
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise import_error(file, error) from error
    return module


def import_error(file: Path, error: BaseException) -> PolicyError:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == file.resolve()]
    text = str(error)
    if isinstance(error, SyntaxError):
        lines, text = [error.lineno], error.msg
    where = f"{file}:{lines[-1]}" if lines else str(file)
    if isinstance(error, BacktestError):
        return PolicyError(f"{where}: {error}")
    return PolicyError(
        f"a policy's file must be importable, {where} raised {type(error).__name__}: {text}"
    )


# -------------------------------------------------------------------------------- expressions


def parse_policy(text: str) -> Policy:
    """Read calls of policies with numbers and texts; nothing else is evaluated."""
    refused = ParameterError(
        "a policy must be written as calls of policies with numbers, "
        f"{EXAMPLE} for example, got {text!r:.200}"
    )
    classes: dict[str, type[Policy]] = {each.__name__: each for each in built_in_policies()}

    def name_class(found: re.Match[str]) -> str:
        classes[f"_{len(classes)}"] = load_policy(found[0])
        return f"_{len(classes) - 1}"

    if len(text) > LONGEST:
        raise refused
    plain = re.sub(r"[^\s(),=]+\.py:\w+", name_class, text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python warns of is an error below
            policy = build_node(ast.parse(plain.strip(), mode="eval").body, classes)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise refused from error
    if not isinstance(policy, Policy):
        raise refused
    return policy


def build_node(node: ast.AST, classes: Mapping[str, type[Policy]]) -> Any:
    match node:
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(number))]):
            return float(number)
        case ast.Call(func=ast.Name(id=name)):
            named = {str(each.arg): build_node(each.value, classes) for each in node.keywords}
            cls = find_class(name, classes)
            if len(named) < len(node.keywords):
                raise ValueError(node)
            check_settings(cls, named)
            return cls(*(build_node(each, classes) for each in node.args), **named)
        case ast.Name(id="inf"):
            return math.inf
        case ast.Name(id=name):
            return find_class(name, classes)()
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub()):
            return -build_node(node.operand, classes)
    raise ValueError(node)


def find_class(name: str, classes: Mapping[str, type[Policy]]) -> type[Policy]:
    if name not in classes:
        named = [each for each in classes if not each.startswith("_")]
        raise ParameterError(
            f"a policy must be known by its class, {name!r} is not{did_you_mean(name, named)}"
        )
    return classes[name]
