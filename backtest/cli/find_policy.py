"""Find policies: built-in ones by name, others in users' files, or written as an expression."""

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

from backtest import strategies
from backtest.base import BacktestError, ParameterError, PolicyError, did_you_mean, to_float
from backtest.policy import Policy, check_settings, find_policies


def built_in_policies() -> list[type[Policy]]:
    return sorted(find_policies(strategies), key=lambda policy: policy.title())


def load_policies(text: str, folder: Path = Path()) -> list[type[Policy]]:
    check_length(text)
    if is_expression(text):
        return [type(read_policy(text, {}, folder))]
    path, _, name = text.partition(".py:") if ".py:" in text else (text, "", "")
    if not (name or text.endswith(".py")):
        return [find_built_in(text)]
    file = folder / (f"{path}.py" if name else text)
    found = load_file_policies(file)
    if not name:
        return found
    known = [policy.__name__ for policy in found]
    if name in known:
        return [found[known.index(name)]]
    raise ParameterError(
        f"{file} must hold the policy asked for, {name!r} is not in it{did_you_mean(name, known)}; "
        f"it has {', '.join(known)}"
    )


def load_policy(text: str, folder: Path = Path()) -> type[Policy]:
    found = load_policies(text, folder)
    if len(found) > 1:
        names = [policy.__name__ for policy in found]
        raise ParameterError(
            f"one policy is run at a time, {text} holds {', '.join(names)}; name one: "
            f"{text}:{names[0]}"
        )
    return found[0]


def read_policy(text: str, settings: Mapping[str, object], folder: Path = Path()) -> Policy:
    if not is_expression(text):
        return load_policy(text, folder).from_settings(settings)
    known = {policy.__name__: policy for policy in built_in_policies()}
    policy = parse_policy(text, known, lambda name: load_policy(name, folder))
    return type(policy).from_settings({**policy.settings(), **settings})


def find_built_in(name: str) -> type[Policy]:
    known = {policy.title(): policy for policy in built_in_policies()}
    classes = {policy.__name__: policy.title() for policy in known.values()}
    if classes.get(name, name) in known:
        return known[classes.get(name, name)]
    near = did_you_mean(name.lower(), known) or did_you_mean(classes.get(name, name), known)
    raise ParameterError(
        f"policy must be a known name or a file, got {name!r}{near}; `backtest policies` lists them"
    )


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
    spec = importlib.util.spec_from_file_location(name, file.resolve())
    if spec is None or spec.loader is None:
        raise PolicyError(f"a policy's file must be Python and end in .py, got {file}")
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
    where = str(file)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == file.resolve()]
    if isinstance(error, SyntaxError) and error.filename == str(file.resolve()):
        lines = [error.lineno]
    if lines:
        where = f"{file}:{lines[-1]}"
    if isinstance(error, BacktestError):
        return PolicyError(f"{where}: {error}")
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return PolicyError(
        f"a policy's file must be importable, {where} raised {type(error).__name__}: {text}"
    )


EXAMPLE = "Capped(VolTarget(target=0.6), cap=3)"
LONGEST = 4_000
"""Most characters of a policy expression."""
LARGEST = 2**63
"""Larger whole numbers become floats."""

Find = Callable[[str], type[Policy]]


def is_expression(text: str) -> bool:
    return "(" in text


def parse_policy(text: str, known: Mapping[str, type[Policy]], find: Find) -> Policy:
    check_length(text)
    classes = dict(known)

    def replace_file(found: re.Match[str]) -> str:
        classes[f"_{len(classes)}"] = find(found[0])
        return f"_{len(classes) - 1}"

    plain = re.sub(r"[^\s(),=]+\.py:\w+", replace_file, text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python warns of is an error below
            node = ast.parse(plain.strip(), mode="eval").body
        policy = build_node(node, classes, text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise expression_error(text) from error
    if not isinstance(policy, Policy):
        raise expression_error(text)
    return policy


def check_length(text: str) -> None:
    if len(text) > LONGEST:
        raise ParameterError(
            f"a policy must have at most {LONGEST:,} letters, got {len(text):,}; "
            "write it as a class in a file"
        )


def build_node(node: ast.expr, classes: Mapping[str, type[Policy]], text: str) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        given = [build_node(each, classes, text) for each in node.args]
        words = [word.arg for word in node.keywords]
        if None in words or len(set(words)) < len(words):
            raise expression_error(text)
        named = {str(w.arg): build_node(w.value, classes, text) for w in node.keywords}
        if node.func.id == "float" and given == ["inf"]:
            return math.inf
        cls = find_class(node.func.id, classes)
        check_settings(cls, named)
        return cls(*given, **named)
    if isinstance(node, ast.Name):
        return math.inf if node.id == "inf" else find_class(node.id, classes)()
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = build_node(node.operand, classes, text)
        if isinstance(number, (int, float)):
            return -number
    if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str)):
        is_huge = isinstance(node.value, int) and abs(node.value) > LARGEST
        return to_float(node.value) if is_huge else node.value
    raise expression_error(text)


def find_class(name: str, classes: Mapping[str, type[Policy]]) -> type[Policy]:
    if name in classes:
        return classes[name]
    named = [each for each in classes if not each.startswith("_")]
    raise ParameterError(
        f"a policy must be known by its class, {name!r} is not{did_you_mean(name, named)}"
    )


def expression_error(text: str) -> ParameterError:
    return ParameterError(
        "a policy must be written as calls of policies with numbers, each name once, "
        f"{EXAMPLE} for example, got {text!r:.200}"
    )
