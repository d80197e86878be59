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
from backtest.base import BacktestError, ParameterError, PolicyError, did_you_mean
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
NODES = (ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.UnaryOp,
         ast.USub)  # fmt: skip
"""What an expression may be made of: calls of policies, numbers and texts."""
NUMBERS = {"inf": math.inf, "float": float}

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
            tree = ast.parse(plain.strip(), mode="eval")
            check_nodes(tree, classes, text)
            code = compile(ast.fix_missing_locations(Defaults(classes).visit(tree)), "", "eval")
            names = {name: checked_class(each) for name, each in classes.items()}
            policy = eval(code, {"__builtins__": {}, **NUMBERS, **names})
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
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


def check_nodes(tree: ast.AST, classes: Mapping[str, type[Policy]], text: str) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id not in {**classes, **NUMBERS}:
            named = [each for each in classes if not each.startswith("_")]
            raise ParameterError(
                f"a policy must be known by its class, {node.id!r} is not"
                + did_you_mean(node.id, named)
            )
        is_call = not isinstance(node, ast.Call) or isinstance(node.func, ast.Name)
        is_value = not isinstance(node, ast.Constant) or isinstance(
            node.value, (bool, int, float, str)
        )
        is_named = not isinstance(node, ast.keyword) or node.arg is not None
        if not (isinstance(node, NODES) and is_call and is_value and is_named):
            raise expression_error(text)


class Defaults(ast.NodeTransformer):
    """Reads a class that is not called as the policy with its defaults."""

    def __init__(self, classes: Mapping[str, type[Policy]]) -> None:
        self.classes = classes

    def visit_Call(self, node: ast.Call) -> ast.Call:
        node.args = [self.visit(each) for each in node.args]
        node.keywords = [self.visit(each) for each in node.keywords]
        return node

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Call(node, [], []) if node.id in self.classes else node


def checked_class(cls: type[Policy]) -> Callable[..., Policy]:
    def build(*given: Any, **named: Any) -> Policy:
        check_settings(cls, named)
        return cls(*given, **named)

    return build


def expression_error(text: str) -> ParameterError:
    return ParameterError(
        "a policy must be written as calls of policies with numbers, each name once, "
        f"{EXAMPLE} for example, got {text!r:.200}"
    )
