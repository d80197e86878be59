"""Read the policies that a text names: built-in ones, those of files, and calls of them."""

from __future__ import annotations

import ast
import importlib.util
import math
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import backtest
from backtest import core
from backtest.policies import Policy, check_settings, format_title


def built_in_policies() -> list[type[Policy]]:
    found = (getattr(backtest.strategies, name) for name in backtest.strategies.__all__)
    return sorted(found, key=lambda policy: policy.title())


def load_policies(text: str) -> list[type[Policy]]:
    """Return the policy of a name, an expression or ``FILE.py:Class``, or all of ``FILE.py``."""
    if "(" in text:
        return [type(read_policy(text, {}))]
    path, _, name = text.partition(".py:") if ".py:" in text else (text, "", "")
    if not (name or text.endswith(".py")):
        return [find_built_in(text)]
    file = Path(f"{path}.py" if name else text)
    if not file.is_file():
        near = core.did_you_mean(file.stem, (each.stem for each in file.parent.glob("*.py")))
        raise core.ParameterError(f"a policy's file must exist, {str(file)!r} does not{near}")
    module = import_file(file)
    classes = [each for each in vars(module).values() if isinstance(each, type)]
    own = [each for each in classes if each.__module__ == module.__name__]
    known = {each.__name__: each for each in own if issubclass(each, Policy)}
    if not known:
        raise core.ParameterError(
            f"a policy's file must define a policy, {file} defines none; write class "
            "MyPolicy(bt.Policy) with leverage(self, bar, account)"
        )
    if not name:
        return [*known.values()]
    return [known[core.Choice(*known).check(f"the policy of {file}", name)]]


def load_policy(text: str) -> type[Policy]:
    found = load_policies(text)
    if len(found) > 1:
        names = [policy.__name__ for policy in found]
        raise core.ParameterError(
            f"one policy is run at a time, {text} holds {', '.join(names)}; name one: "
            f"{text}:{names[0]}"
        )
    return found[0]


def read_policy(text: str, settings: Mapping[str, object]) -> Policy:
    """Read a policy, or calls of policies with numbers and texts; nothing else is evaluated."""
    if "(" not in text:
        return load_policy(text).from_settings(settings)
    refused = core.ParameterError(
        "a policy must be written as calls of policies with numbers, Capped(VolTarget(target=0.6), "
        f"cap=3) for example, got {text!r:.200}"
    )
    classes: dict[str, type[Policy]] = {}  # those of files, by the word that stands for them

    def name_class(found: re.Match[str]) -> str:
        classes[f"_{len(classes)}"] = load_policy(found[0])
        return f"_{len(classes) - 1}"

    def find_class(name: str) -> type[Policy]:
        return classes.get(name) or find_built_in(name)

    plain = re.sub(r"[^\s(),=]+\.py:\w+", name_class, text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python warns of is an error below
            policy = build_node(ast.parse(plain.strip(), mode="eval").body, find_class)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise refused from error
    if not isinstance(policy, Policy):
        raise refused
    return type(policy).from_settings({**policy.settings(), **settings})


def find_built_in(name: str) -> type[Policy]:
    known = {format_title(each): each for each in backtest.strategies.__all__}
    if name not in (*known, *backtest.strategies.__all__):
        near = core.did_you_mean(name.lower(), known)
        raise core.ParameterError(
            f"policy must be a known name or a file, got {name!r:.200}{near}; `backtest policies` "
            "lists them"
        )
    found: type[Policy] = getattr(backtest.strategies, known.get(name, name))
    return found


def import_file(file: Path) -> ModuleType:
    name = f"_file_{file.stem}"
    spec: Any = importlib.util.spec_from_file_location(name, file.resolve())
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except core.RAISED as error:
        del sys.modules[name]
        frames, text = traceback.extract_tb(error.__traceback__), str(error)
        lines = [frame.lineno for frame in frames if Path(frame.filename) == file.resolve()]
        if isinstance(error, SyntaxError):
            lines, text = [error.lineno], error.msg
        where = f"{file}:{lines[-1]}" if lines else str(file)
        reason = f"{where}: {error}"
        if not isinstance(error, core.BacktestError):
            kind = type(error).__name__
            reason = f"a policy's file must be importable, {where} raised {kind}: {text}"
        raise core.PolicyError(reason) from error
    return module


def build_node(node: ast.AST, find_class: Callable[[str], type[Any]]) -> Any:
    """Return the value of calls of known classes with numbers and texts; nothing else is called."""
    match node:
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(number))]):
            return float(number)
        case ast.Call(func=ast.Name(id=name)):
            named = {str(each.arg): build_node(each.value, find_class) for each in node.keywords}
            cls = find_class(name)
            if len(named) < len(node.keywords):
                raise ValueError(node)
            if issubclass(cls, Policy):
                check_settings(cls, named)
            return cls(*(build_node(each, find_class) for each in node.args), **named)
        case ast.Name(id="inf"):
            return math.inf
        case ast.Name(id=name):
            return find_class(name)()
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return tuple(build_node(each, find_class) for each in elements)
        case ast.UnaryOp(op=ast.USub()):
            return -build_node(node.operand, find_class)
    raise ValueError(node)
