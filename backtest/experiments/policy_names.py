"""Read the policies that a text names: built-in ones, of files and modules, and calls of them."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import math
import pkgutil
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from backtest import core
from backtest.policies import Policy, check_settings, format_title

GROUP = "backtest.policies"
"""The entry points by which an installed package says which policies it has."""
OF_MODULE = re.compile(r"((?:[^\W\d]\w*\.)*[^\W\d]\w*):([^\W\d]\w*)")
"""``package.module:Class``."""


def built_in_policies() -> list[type[Policy]]:
    from backtest import strategies  # noqa: PLC0415 - they stand on the public names

    policies = (getattr(strategies, name) for name in strategies.__all__)
    return sorted(policies, key=lambda policy: policy.title())


def find_shipped(name: str) -> type[Policy] | None:
    """Return the policy of a class name, None if there is none; no other policy is loaded."""
    from backtest import strategies  # noqa: PLC0415 - they stand on the public names

    if name not in strategies.__all__:
        return None
    policy: type[Policy] = getattr(strategies, name)
    return policy


def list_installed() -> dict[str, str]:
    """Return what installed packages declare, by name, as ``--policy`` takes it; import nothing."""
    declared = importlib.metadata.entry_points(group=GROUP)
    return {entry.name: entry.value.partition("[")[0].strip() for entry in sorted(declared)}


def load_policies(text: str) -> list[type[Policy]]:
    """Return the policy of a name, an expression or ``PLACE:Class``, or all of ``FILE.py``.

    A place is ``FILE.py`` or ``package.module``.
    """
    if "(" in text:
        return [type(read_policy(text, {}))]
    if text.endswith(".py"):
        return load_from_file(Path(text), name="")
    stem, _, name = text.partition(".py:")
    if name:
        return load_from_file(Path(f"{stem}.py"), name)

    match = OF_MODULE.fullmatch(text)
    if match:
        return load_from_module(match[1], match[2])
    return [find_built_in(text)]


def load_from_file(file: Path, name: str) -> list[type[Policy]]:
    """Return the policy of a name that a file defines, or all of them if ``name`` is empty."""
    if not file.is_file():
        near = core.did_you_mean(file.stem, (other.stem for other in file.parent.glob("*.py")))
        raise core.ParameterError(f"a policy's file must exist, {str(file)!r} does not{near}")

    module = import_file(file)
    defined = {}  # not what it imports
    for key, policy in find_policies(module).items():
        is_own = policy.__module__ == module.__name__
        if is_own:
            defined[key] = policy
    return pick_policies(defined, "file", str(file), name)


def load_from_module(place: str, name: str) -> list[type[Policy]]:
    known = find_policies(import_named(place))
    return pick_policies(known, "module", place, name)


def find_policies(module: ModuleType) -> dict[str, type[Policy]]:
    """Return the policies among the names of a module, imported ones too."""
    return {name: value for name, value in vars(module).items() if is_policy_class(value)}


def is_policy_class(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Policy) and value is not Policy


def pick_policies(
    known: Mapping[str, type[Policy]], noun: str, place: str, name: str
) -> list[type[Policy]]:
    """Return the policy of a name among those of a place, or all if ``name`` is empty."""
    if not known:
        raise core.ParameterError(
            f"a policy's {noun} must define a policy, {place} defines none; write class "
            "MyPolicy(bt.Policy) with leverage(self, bar, account)"
        )
    if not name:
        return [*known.values()]
    return [known[core.Choice(*known).check(f"the policy of {place}", name)]]


def load_policy(text: str) -> type[Policy]:
    """Return the one policy that a text names; raise a ParameterError if there are several."""
    policies = load_policies(text)
    if len(policies) > 1:
        names = [policy.__name__ for policy in policies]
        raise core.ParameterError(
            f"one policy is run at a time, {text} holds {', '.join(names)}; name one: "
            f"{text}:{names[0]}"
        )
    return policies[0]


PLACES = re.compile(rf"(?P<text>'[^']*'|\"[^\"]*\")|[^\s(),=]+\.py:\w+|{OF_MODULE.pattern}")
"""Classes of files and modules in calls of policies, and texts, in which a colon is none."""


def read_policy(text: str, settings: Mapping[str, object]) -> Policy:
    """Read a policy, or calls of policies with numbers and texts; nothing else is evaluated."""
    if "(" not in text:
        return load_policy(text).from_settings(settings)
    refused = core.ParameterError(
        "a policy must be written as calls of policies with numbers, Capped(VolTarget(target=0.6), "
        f"cap=3) for example, got {text!r:.200}"
    )
    # A class of a file or module is no name of Python: a word stands for it while the call is read.
    classes: dict[str, type[Policy]] = {}

    def replace_place(match: re.Match[str]) -> str:
        if match["text"]:
            return match[0]
        word = f"_{len(classes)}"
        classes[word] = load_policy(match[0])
        return word

    def find_class(name: str) -> type[Policy]:
        return classes.get(name) or find_built_in(name)

    call = PLACES.sub(replace_place, text)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Python warns of is an error below
            policy = build_node(ast.parse(call.strip(), mode="eval").body, find_class)
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise refused from error
    if not isinstance(policy, Policy):
        raise refused
    return type(policy).from_settings({**policy.settings(), **settings})


def find_built_in(name: str) -> type[Policy]:
    """Return the policy of the package by its title or its class; raise with near names."""
    from backtest import strategies  # noqa: PLC0415 - they stand on the public names

    by_title = {format_title(class_name): class_name for class_name in strategies.__all__}
    policy = find_shipped(by_title.get(name, name))
    if policy is not None:
        return policy

    installed = list_installed()
    near = core.did_you_mean(name.lower(), by_title)
    cure = "`backtest policies` lists them"
    if name in installed:
        cure = f"an installed package has it as {installed[name]}"
    raise core.ParameterError(
        "policy must be a known name, FILE.py:Class or package.module:Class, got "
        f"{name!r:.200}{near}; {cure}"
    )


def import_named(name: str) -> ModuleType:
    """Import a module that is installed, or stands in the working directory."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if missing != name and not name.startswith(f"{missing}."):
            raise refuse_import("module", name, find_source(name), error) from error
    except core.RAISED as error:
        raise refuse_import("module", name, find_source(name), error) from error

    # Near names among the modules that stand beside it.
    parent, _, last = missing.rpartition(".")
    paths = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    beside = [found.name for found in pkgutil.iter_modules(paths)]
    near = core.did_you_mean(last, beside)
    raise core.ParameterError(
        "a policy's module must be installed, or in the working directory, "
        f"{missing!r:.200} is not{near}"
    )


def find_source(name: str) -> Path | None:
    """Return the file of a module that raised, None where its package did already."""
    try:
        spec = importlib.util.find_spec(name)
    except core.RAISED:
        return None
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin)


def import_file(file: Path) -> ModuleType:
    """Import a file of policies under a name that no installed module has.

    Its folder is left in ``sys.path``: what the file imports later may stand beside it.
    """
    name = f"_file_{file.stem}"
    spec: Any = importlib.util.spec_from_file_location(name, file.resolve())
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(file.resolve().parent))

    try:
        spec.loader.exec_module(module)
    except core.RAISED as error:
        del sys.modules[name]
        raise refuse_import("file", str(file), file, error) from error
    return module


def refuse_import(noun: str, place: str, file: Path | None, error: BaseException) -> Exception:
    """Return the error of a file or module of policies that raised one, with its last line."""
    text = str(error)
    line = None
    if isinstance(error, SyntaxError):
        text = error.msg
        line = error.lineno
    elif file is not None:
        line = find_last_line(error, file)

    where = place
    if line is not None:
        where = f"{place}:{line}"
    if isinstance(error, core.BacktestError):
        return core.PolicyError(f"{where}: {error}")
    return core.PolicyError(
        f"a policy's {noun} must be importable, {where} raised {type(error).__name__}: {text}"
    )


def find_last_line(error: BaseException, file: Path) -> int | None:
    """Return the last line of a file in a traceback, None if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == file.resolve()]
    if not lines:
        return None
    return lines[-1]


def build_node(node: ast.AST, find_class: Callable[[str], type[Any]]) -> Any:
    """Return the value of calls of known classes with numbers and texts; nothing else is called."""
    match node:
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(number))]):
            return float(number)
        case ast.Call(func=ast.Name(id=name)):
            return build_call(node, find_class(name), find_class)
        case ast.Name(id="inf"):
            return math.inf
        case ast.Name(id=name):
            return find_class(name)()
        case ast.Constant(value=bool() | int() | float() | str() as value):
            return value
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return tuple(build_node(element, find_class) for element in elements)
        case ast.UnaryOp(op=ast.USub()):
            return -build_node(node.operand, find_class)
    raise ValueError(node)


def build_call(node: ast.Call, cls: type[Any], find_class: Callable[[str], type[Any]]) -> Any:
    """Return an object of a class, with the arguments of a call; a name may stand once."""
    arguments = [build_node(argument, find_class) for argument in node.args]
    named = {str(word.arg): build_node(word.value, find_class) for word in node.keywords}
    if len(named) < len(node.keywords):
        raise ValueError(node)
    if issubclass(cls, Policy):
        check_settings(cls, named)
    return cls(*arguments, **named)
