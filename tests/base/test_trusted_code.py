"""Machine code is loaded only from files and folders that are the user's own."""

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from backtest._compile import COMPILER_LOCK, cache_folders, object_code
from backtest._compile.object_code import ObjectFile, name_symbol
from backtest._compile.trusted_files import UntrustedError, check_folder, check_owner, read_own_file

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no owners to check")
OTHER_USER = 65534


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return a cache folder of the user's, with an object in it."""
    folder = tmp_path / "cache"
    objects = folder / "objects-here"
    objects.mkdir(parents=True, mode=0o755)
    folder.chmod(0o755)
    path = objects / "double.o"
    path.write_bytes(make_object().pack())
    path.chmod(0o644)

    monkeypatch.setenv("BACKTEST_CACHE_DIR", str(folder))
    monkeypatch.setattr(cache_folders, "name_target", lambda: "here")
    cache_folders.find_object_folder.cache_clear()
    cache_folders.warn_once.cache_clear()

    yield folder
    cache_folders.find_object_folder.cache_clear()
    cache_folders.warn_once.cache_clear()


def make_object() -> ObjectFile:
    return ObjectFile(name_symbol("double"), "d", (), b"machine code")


def read_double() -> ObjectFile | None:
    return ObjectFile.read(cache_folders.find_object_folder() / "double.o")


def test_an_object_in_a_folder_of_the_user_is_read(cache):
    assert cache_folders.find_object_folder() == cache / "objects-here"
    assert ObjectFile.read(cache / "objects-here" / "double.o") == make_object()


def test_a_build_keeps_what_its_process_has_loaded_before(cache, monkeypatch):
    """It would not look for that again; an object that nothing looked for is of older sources."""
    monkeypatch.setattr(object_code.BUILD, "used", set())
    objects = cache / "objects-here"
    (objects / "older.o").write_bytes(b"")

    assert object_code.find_object("double") == make_object()

    with object_code.building(objects):
        pass

    assert [path.name for path in objects.glob("*.o")] == ["double.o"]


@pytest.mark.parametrize("place", ["", "objects-here", "objects-here/double.o"])
@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o757, 0o722])
def test_what_others_may_write_to_is_not_loaded_and_the_cure_is_told(cache, place, mode):
    path = cache / place
    path.chmod(mode)

    with pytest.warns(UserWarning, match="others may write to .* \\(chmod go-w .*\\)$"):
        assert read_double() is None

    path.chmod(path.stat().st_mode & ~0o022)
    cache_folders.find_object_folder.cache_clear()
    assert read_double() == make_object()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_loaded(cache, make):
    """Before: a folder was compiled for anew in every process, and a pipe waited for a writer."""
    path = cache / "objects-here" / "double.o"
    path.unlink()
    make(path, 0o600)

    with pytest.warns(UserWarning, match="double.o is no file \\(rm -r .*\\)$"):
        assert read_double() is None


@pytest.mark.parametrize("place", ["", "objects-here", "objects-here/double.o"])
def test_what_belongs_to_another_user_is_not_loaded(cache, place):
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(cache / place, OTHER_USER, -1)

    with pytest.warns(UserWarning, match="belongs to another user \\(chown 0 "):
        assert read_double() is None


def test_members_of_another_group_are_others():
    # a row of os.stat: mode at 0, owner at 4, group at 5
    own = list(Path(__file__).stat())
    own[0] = 0o100664
    own[4] = os.getuid()
    own[5] = os.getgid()
    check_owner(os.stat_result(own), Path("file"))

    own[5] = os.getgid() + 1
    with pytest.raises(UntrustedError, match="others may write"):
        check_owner(os.stat_result(own), Path("file"))


def test_links_are_not_followed_below_the_cache_nor_in_the_temporary_directory(cache, tmp_path):
    real = cache / "objects-here"
    link = cache / "objects-link"
    link.symlink_to(real)

    with pytest.raises(OSError, match="objects-link"):
        read_own_file(link / "double.o")

    (real / "link.o").symlink_to(real / "double.o")
    with pytest.raises(OSError, match=r"link\.o"):
        read_own_file(real / "link.o")

    with pytest.raises(UntrustedError, match="is a link"):
        check_folder(link, follows_links=False)

    other = tmp_path / "elsewhere"
    other.symlink_to(cache)  # of the user's own choice
    assert read_own_file(other / "objects-here" / "double.o").endswith(b"machine code")


def test_a_link_in_the_temporary_directory_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / f"leverage-backtest-{os.getuid()}").symlink_to(tmp_path / "mine")
    monkeypatch.setenv("BACKTEST_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(cache_folders.tempfile, "gettempdir", lambda: str(tmp_path))
    cache_folders.warn_once.cache_clear()

    with pytest.warns(UserWarning, match="is a link \\(rm "):
        assert cache_folders.find_lasting_folder() is None


def test_every_changed_byte_and_another_name_are_found(cache):
    path = cache / "objects-here" / "double.o"
    content = path.read_bytes()
    for k in range(len(content)):
        path.write_bytes(content[:k] + bytes([content[k] ^ 1]) + content[k + 1 :])
        assert ObjectFile.read(path) is None, k

    path.write_bytes(content)
    assert ObjectFile.read(path.rename(path.with_name("other.o"))) is None


def test_nothing_is_written_where_code_is_compiled_in_memory():
    with pytest.raises(OSError, match="null"):
        cache_folders.IN_MEMORY.mkdir(parents=True)


def test_a_function_that_is_not_found_is_never_called(monkeypatch):
    class Loader:
        def add_object_file(self, _):
            """Take an object without the function."""

        finalize_object = get_function_address = lambda *_: 0

    class References:
        from_data = staticmethod(lambda code: code)

    monkeypatch.setattr(object_code, "start_loader", Loader)
    monkeypatch.setattr(object_code.binding.object_file, "ObjectFileRef", References)

    with pytest.raises(LookupError, match="lacks its function"):
        object_code.load(make_object()._replace(symbol="call_nothing"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_waits_until_no_thread_compiles():
    """The child has no thread that would release the lock."""
    compiles = threading.Event()
    may_end = threading.Event()

    def compile_long() -> None:
        with COMPILER_LOCK:
            compiles.set()
            may_end.wait()

    thread = threading.Thread(target=compile_long)
    thread.start()
    compiles.wait()
    threading.Timer(0.1, may_end.set).start()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
        child = os.fork()
    if child == 0:
        os._exit(0 if COMPILER_LOCK.acquire(timeout=30) else 1)

    thread.join()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert COMPILER_LOCK.acquire(blocking=False)
    COMPILER_LOCK.release()


FORK_WHILE_COMPILING = """
import os, threading, warnings
from backtest._compile import COMPILER_LOCK, object_code

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
compiles = threading.Event()
may_end = threading.Event()

def compile_long():
    with COMPILER_LOCK, object_code.one_process("long"):
        compiles.set()
        may_end.wait()

threading.Thread(target=compile_long).start()
compiles.wait()
threading.Timer(0.1, may_end.set).start()
if os.fork() == 0:
    os._exit(0 if COMPILER_LOCK.acquire(timeout=30) else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_lets_the_compiling_thread_release_its_file(tmp_path):
    """filelock keeps its locks while a fork has begun, so that a fork waits for them before."""
    done = subprocess.run(
        [sys.executable, "-c", FORK_WHILE_COMPILING],
        env={**os.environ, "BACKTEST_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.stdout == "0\n", done.stderr[-2000:]


@pytest.mark.slow
def test_the_command_line_runs_without_docstrings(tmp_path):
    command = [sys.executable, "-OO", "-m", "backtest", "run", "--no-save"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)

    assert done.returncode == 0, done.stderr[-2000:]
    assert "KeyError" not in done.stderr, done.stderr[-2000:]
