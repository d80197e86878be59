"""The files that keep compiled code: written by one process at a time, mended if damaged."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from numba import int64, njit
from numba.core.errors import NumbaError

from backtest.base import cache_folder, compiler, fast_link
from backtest.base.cache_folder import find_lasting_folder
from backtest.base.compiler import jit

TEXT = "def double(x):\n    return x + x\n"
DAMAGES = {
    "empty": lambda content: b"",
    "cut midway": lambda content: content[: len(content) // 2],
    "garbage": lambda content: b"\x80\x04garbage" * 50,
}


@pytest.fixture(autouse=True)
def _nothing_said_yet(monkeypatch):
    monkeypatch.setattr(cache_folder, "_damaged", [])


@pytest.fixture
def function(tmp_path, monkeypatch):
    """Return a function that stands in a file, as numba's cache wants it."""
    path = tmp_path / "small.py"
    path.write_text(TEXT)
    spec = importlib.util.spec_from_file_location("small", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "small", module)  # the cache refers to it by name
    spec.loader.exec_module(module)
    return module.double


def find_code(tmp_path) -> list[Path]:
    return sorted(tmp_path.rglob("*.nbc"))


@pytest.mark.parametrize("way", DAMAGES)
@pytest.mark.parametrize("end", ["nbc", "nbi"])
def test_damaged_code_is_compiled_again_with_one_warning(function, tmp_path, way, end):
    jit(function, cache=True)(2.0)
    (path,) = tmp_path.rglob(f"*.{end}")
    path.write_bytes(DAMAGES[way](path.read_bytes()))
    again = jit(function, cache=True)
    with pytest.warns(UserWarning, match="the compile cache is damaged") as told:
        assert again(2.0) == 4.0
    assert len(told) == 1
    assert sum(again.stats.cache_misses.values()) == 1
    healed = jit(function, cache=True)
    assert healed(2.0) == 4.0
    assert not healed.stats.cache_misses


def test_what_cannot_be_written_is_compiled_and_not_kept(function, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError("read-only")

    monkeypatch.setattr(compiler.FunctionCache, "save_overload", refuse)
    monkeypatch.setattr(compiler.FileLock, "acquire", refuse)
    assert jit(function, cache=True)(2.0) == 4.0
    assert find_code(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_none(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BACKTEST_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(cache_folder.tempfile, "gettempdir", lambda: str(tmp_path / "file"))
    assert find_lasting_folder() is None


def test_code_from_the_cache_is_linked_though_its_first_caller_dropped_the_call(function):
    """LLVM links none of it that nothing calls yet; the second caller then called address 0."""
    inner: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    jit(function, cache=True, **inner).compile((int64,))
    kept = jit(function, cache=True, **inner)
    idle = jit(lambda n: kept(n) if n - n != 0 else n, cache=False, **inner)
    busy = jit(lambda n: kept(n) + 1, cache=False, **inner)
    whole = jit(lambda n: idle(n) + busy(n), cache=False)
    assert whole(3) == 10
    assert sum(kept.stats.cache_hits.values()) == 1


class Terms(NamedTuple):
    """A record as the rules have them: a field is None if an account does not have it."""

    stop: float | None
    size: float


def test_what_an_account_lacks_is_not_compiled():
    """numba would refuse the line that it has no types for."""

    def compute(terms, x):
        if terms.stop is not None and x > terms.stop:
            return no_such_function(x)  # noqa: F821
        return x * terms.size

    assert jit(compute, cache=False)(Terms(None, 2.0), 3.0) == 6.0
    with pytest.raises(NumbaError, match="no_such_function"):
        jit(compute, cache=False)(Terms(1.0, 2.0), 3.0)


def test_without_fast_links_numba_compiles_by_itself(monkeypatch):
    monkeypatch.setattr(fast_link, "CAN_LINK", False)
    add = jit(lambda x, k: x + k, cache=False, no_cpython_wrapper=True)
    both = jit(lambda x: add(x, 1) * add(x, 2), cache=False)
    before = fast_link.CODEGEN._library_class
    assert both(3.0) == 20.0
    assert fast_link.CODEGEN._library_class is before
    assert type(next(iter(both.overloads.values())).library) is before
    assert njit(lambda x: x + 1.0)(1.0) == 2.0


TWO = """
import sys, time
from pathlib import Path
from backtest.base import compiler
sys.path.insert(0, sys.argv[1])
import small
compile_one = compiler.FunctionCache.save_overload
def save(*given):
    time.sleep(0.5)
    compile_one(*given)
compiler.FunctionCache.save_overload = save
double = compiler.jit(small.double, cache=True)
print(double(2.0), double(3), *double.stats.cache_misses.values())
"""


def test_one_of_two_processes_compiles_and_the_other_waits(function, tmp_path):
    """numba's index forgets one of two writers, and mixes up their code."""
    command = [sys.executable, "-c", TWO, str(tmp_path)]
    folder = Path(__file__).parents[2]
    two = [subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    said = [each.communicate()[0].split() for each in two]
    assert [each[:2] for each in said] == [["4.0", "6"]] * 2
    assert sum(len(each) - 2 for each in said) == 2
