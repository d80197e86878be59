"""Calls of the public API that nobody would write, made of a seed.

``python -m tests.api_fuzzing NUMBER`` makes one of them again. Callables are taken from the package
itself, so that new ones are part of it: functions and classes of ``bt.__all__`` and of the public
modules, the class methods, and the methods of some objects. A call has valid arguments, of which
some are spoiled.
"""

import contextlib
import functools
import inspect
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import backtest as bt
from backtest import features, strategies
from tests.api_values import FORMULAS, NASTY, build_objects, draw_valid
from tests.fuzz_runs import HungError, bounded, expire

COUNT = 5_000
MOST_SECONDS = 60.0
"""Processor time after which a call counts as hung: it does not depend on the load."""
MOST_BYTES = 6 << 30
"""Memory of the process beyond which an allocation fails."""
MODULES: dict[str, types.ModuleType] = {"": bt, "features": features, "strategies": strategies}
OUTSIDE = {"math", "options"}
"""Modules whose functions compile inside policies, or that still trust their arguments."""
SKIPPED = {"Folds", "RequirementRule", "held_leverage"}
"""A frame of pandas, an abstract class, and a part of formulas that compile."""


class Call(NamedTuple):
    """A call: the name of the callable, and its arguments by name."""

    name: str
    arguments: dict[str, Any]
    spoiled: tuple[str, ...]


def is_ours(found: object) -> bool:
    """Return whether a callable was written in this package."""
    return str(getattr(found, "__module__", "")).startswith("backtest")


def list_public(module: types.ModuleType) -> dict[str, Any]:
    """Return the public names of a module."""
    own = [name for name, each in vars(module).items() if name[0] != "_" and is_ours(each)
           and each.__module__ == module.__name__]  # fmt: skip
    return {name: getattr(module, name) for name in getattr(module, "__all__", own)}


@functools.cache
def list_callables() -> dict[str, Callable[..., Any]]:
    """Return every public callable by its name."""
    found: dict[str, Any] = {}
    modules = dict(MODULES)
    inner = {name: each for name, each in list_public(bt).items() if inspect.ismodule(each)}
    modules |= {name: each for name, each in inner.items() if name not in OUTSIDE}
    for prefix, module in modules.items():
        for name, each in list_public(module).items():
            if callable(each) and is_ours(each) and name not in SKIPPED:
                found[f"{prefix}.{name}".lstrip(".")] = each
    for name, each in [*found.items()]:
        if inspect.isclass(each):
            found |= {f"{name}.{k}": v for k, v in list_class_methods(each).items()}
    for each in build_objects().values():
        found |= {f"{type(each).__name__}().{k}": v for k, v in list_methods(each).items()}
    return {name: each for name, each in found.items() if find_parameters(each)}


def list_class_methods(cls: type) -> dict[str, Any]:
    """Return the class methods and static methods of a class that are ours."""
    names = [name for name in dir(cls) if name[0] != "_"]
    kinds = (classmethod, staticmethod)
    ours = {k: getattr(cls, k) for k in names if isinstance(inspect.getattr_static(cls, k), kinds)}
    return {name: each for name, each in ours.items() if is_ours(each)}


def list_methods(owner: object) -> dict[str, Any]:
    """Return the public methods of an object that are ours."""
    names = [name for name in dir(type(owner)) if name[0] != "_" and name not in FORMULAS]
    plain = [k for k in names if inspect.isfunction(inspect.getattr_static(type(owner), k))]
    return {name: getattr(owner, name) for name in plain if is_ours(getattr(owner, name))}


def find_parameters(call: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that have a name of their own."""
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):
        return []
    return list(signature.parameters.values())


def make(number: int) -> Call:
    """Return a call: the same for the same number, whatever was made before."""
    rng = random.Random(f"api {number}")
    callables = list_callables()
    name = rng.choice(sorted(callables))
    parameters = find_parameters(callables[name])
    arguments = {}
    for each in parameters:
        is_needed = each.default is inspect.Parameter.empty
        if each.kind is each.VAR_POSITIONAL or each.kind is each.VAR_KEYWORD:
            if each.kind is each.VAR_POSITIONAL:
                arguments[each.name] = (draw_valid(rng, name, each),)
            continue
        valid = draw_valid(rng, name, each)
        if is_needed or (valid is not ... and rng.random() < 0.3) or each.name in ALWAYS:
            arguments[each.name] = rng.choice(NASTY)() if valid is ... else valid
    names = [each.name for each in parameters if each.kind is not each.VAR_KEYWORD]
    spoiled = rng.sample(names, min(len(names), rng.choice((1, 1, 1, 1, 2, 3))))
    for each in spoiled:
        bad = rng.choice(NASTY)()
        is_open = inspect.signature(callables[name]).parameters[each].kind
        arguments[each] = (bad,) if is_open is inspect.Parameter.VAR_POSITIONAL else bad
    return Call(name, arguments, tuple(spoiled))


ALWAYS = {"trials", "compile", "paths", "horizon", "sampler", "robust", "train", "test", "groups",
          "test_groups", "space", "fix", "steps", "bars", "depth", "starts", "draws", "threads",
          "accounts", "store", "signal", "embargo"}  # fmt: skip
"""Arguments without which a call would take long."""


def do(call: Call) -> object:
    """Make a call."""
    target = list_callables()[call.name]
    before, named, rest = [], {}, ()
    for each in find_parameters(target):
        if each.name not in call.arguments:
            continue
        if each.kind is each.POSITIONAL_ONLY:
            before.append(call.arguments[each.name])
        elif each.kind is each.VAR_POSITIONAL:
            rest = call.arguments[each.name]
        else:
            named[each.name] = call.arguments[each.name]
    return target(*before, *rest, **named)


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Let a call take neither much processor time nor much memory."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGPROF, expire)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGPROF, before)


def find_fault(call: Call) -> str:
    """Return what is wrong with how a call ended; nothing where it ended well."""
    try:
        with guarded(), bounded(), mock.patch("sys.stdout"), mock.patch("sys.stderr"):
            warnings.simplefilter("ignore")
            do(call)
    except bt.AccountingError as error:
        return f"the books: {error}"
    except bt.BacktestError:
        return ""
    except HungError:
        return f"hung for {MOST_SECONDS} s"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-8:]
        places = [f"{Path(each.filename).name}:{each.lineno}" for each in last]
        return f"{type(error).__name__}: {str(error)[:160]}\n    at {' '.join(places)}"
    return ""


def describe(call: Call) -> str:
    """Return a call as text, as far as its arguments can be written."""
    written = [f"{name}={write(value)}" for name, value in call.arguments.items()
               if name in call.spoiled]  # fmt: skip
    return f"{call.name}({', '.join(written)}, ...)"


def write(value: object) -> str:
    """Return a value as a short text."""
    try:
        return repr(value)[:80].replace("\n", " ")
    except Exception as error:
        return f"<{type(value).__name__}: {type(error).__name__}>"


def fuzz(numbers: range) -> list[str]:
    """Return the calls that end badly, each with how to make it again."""
    faults, here = [], Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            for number in numbers:
                call = make(number)
                if fault := find_fault(call):
                    again = f"python -m tests.api_fuzzing {number}"
                    faults.append(f"{again}\n  {describe(call)}\n  {fault}")
        finally:
            os.chdir(here)
    return faults


if __name__ == "__main__":
    chosen = make(int(sys.argv[1]))
    sys.stdout.write(f"{describe(chosen)}\n")
    os.chdir(tempfile.mkdtemp(prefix="fuzz-"))
    with guarded():
        sys.stdout.write(f"{write(do(chosen))}\n")
