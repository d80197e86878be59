"""The fresh process: safe, sure of the code it runs, started once per code, whoever asks."""

import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import backtest as bt
from backtest.engine.lookahead import code_origin, fresh_check, fresh_process
from backtest.engine.lookahead.code_origin import NoSourceError, find_origin, select_statements
from backtest.engine.lookahead.fresh_process import FreshProcess, FreshProcessError
from backtest.strategies import Capped, Constant, VolTarget
from tests.hidden_peeks import Hidden, HiddenRule, forget, hidden_direction, hidden_weights
from tests.honest_columns import HonestZoo
from tests.markets import free_venue
from tests.peeks import MARKET

TERMS: dict[str, Any] = {"venue": free_venue(), "account": bt.Account(), "compile": False}
PANEL = bt.Markets({"A": MARKET, "B": bt.Market.sample(bars=3000, seed=6)})
KEEPS = "keeps something between calls"
MEMO = Hidden(kind="memo by length")


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    forget()
    yield
    forget()


# --------------------------------------------------------------------------------- whoever asks

WINGS = {
    "run of several": lambda: bt.run(PANEL, MEMO, **TERMS),
    "overlay": lambda: bt.run(PANEL, Constant(), overlay=MEMO, **TERMS),
    "combination": lambda: bt.run(MARKET, Capped(MEMO, cap=2.0), **TERMS),
    "rule": lambda: bt.run(MARKET, Constant(), signal=HiddenRule(), **TERMS),
    "rule of several": lambda: bt.run(PANEL, Constant(), signal=HiddenRule(), **TERMS),
    "function": lambda: bt.signals.from_function(MARKET, hidden_direction),
    "function of several": lambda: bt.signals.from_function(PANEL, hidden_weights),
    "sweep": lambda: bt.sweep(MARKET, Hidden, {"kind": [MEMO.kind]}, **TERMS),
    "walk": lambda: bt.walk_forward(
        MARKET, Hidden, fix={"kind": MEMO.kind}, space={"size": (1.0, 3.0)}, trials=4,
        train="60d", test="20d", robust=False, **TERMS,
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.fresh
@pytest.mark.filterwarnings("ignore::UserWarning")  # short spans
@pytest.mark.parametrize("name", WINGS)
def test_what_is_kept_between_calls_is_refused_everywhere(name: str):
    with pytest.raises(bt.PolicyError, match=KEEPS):
        WINGS[name]()


@pytest.mark.slow
@pytest.mark.fresh
def test_honest_columns_are_the_same_in_a_fresh_process_and_once_is_enough(monkeypatch):
    first = bt.run(MARKET, HonestZoo(), **TERMS).manifest["causality"]
    assert first.endswith(f"; {fresh_check.SAME}")

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("code was compared twice")

    monkeypatch.setattr(fresh_check, "FreshProcess", refuse)
    assert bt.run(MARKET, HonestZoo(), **TERMS).manifest["causality"] == first
    fresh_check._NOTES.clear()  # as another process, which reads the note
    assert bt.run(MARKET, HonestZoo(), **TERMS).manifest["causality"] == first
    bt.sweep(MARKET, HonestZoo, {"account.band": [0.0, 0.1]}, **TERMS)


# ---------------------------------------------------------------------------- whose code, and which


class Plain(bt.Policy):
    """Hold what the close says."""

    def observe(self, market: Any) -> Any:
        return {"x": market.close}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0


@pytest.mark.fresh
def test_code_of_ours_starts_no_process(monkeypatch):
    monkeypatch.setattr(fresh_check, "FreshProcess", None)
    policy = Capped(VolTarget(half_life=20.0), cap=2.0)
    assert find_origin(policy) is None
    run = bt.run(MARKET.prefix(300), Capped(Constant(), cap=2.0), **TERMS)
    assert "fresh" not in run.manifest["causality"]


@pytest.mark.fresh
def test_code_inside_a_function_is_not_compared_and_says_so():
    class Inside(Plain):
        """Another one."""

    said = bt.run(MARKET.prefix(300), Inside(), **TERMS).manifest["causality"]
    assert said.endswith(f"; {fresh_check.NOT_COMPARED}: Inside is defined inside a function")


def test_the_key_of_code_covers_helpers_and_constants_but_not_what_is_stored():
    text = """
        import backtest as bt
        SIZE, COUNT = 2, 0

        def help(x):
            return SIZE * x

        class Own(bt.Policy):
            def observe(self, market):
                global COUNT
                COUNT += 1
                return {"x": help(market.close)}
    """
    keys = []
    for old, new in (("", ""), ("COUNT = 2, 0", "COUNT = 2, 9"), ("2, 0", "3, 0"), ("* x", "+ x")):
        module = ModuleType("own_code")
        exec(textwrap.dedent(text).replace(old, new), vars(module))
        keys.append(find_origin(module.Own()).key)
    assert keys[0] == keys[1]
    assert len({*keys}) == 3


def test_a_note_holds_until_a_file_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(fresh_check, "find_lasting_folder", lambda: tmp_path)
    monkeypatch.setattr(fresh_check, "_NOTES", {})
    origin, file = find_origin(Plain()), tmp_path / "helper.py"
    file.write_text("x = 1")
    fresh_check.remember(origin, "said", {str(file): code_origin.hash_file(str(file))})
    fresh_check._NOTES.clear()
    assert fresh_check.recall(origin) == "said"
    fresh_check._NOTES.clear()
    file.write_text("x = 2")
    assert fresh_check.recall(origin) is None
    fresh_check.find_place(origin).write_text("{")
    assert fresh_check.recall(origin) is None


SCRIPT = """
    from __future__ import annotations
    import numpy as np
    try:
        import missing
    except ImportError:
        missing = None
    TABLE = {}
    TABLE["a"] = 1
    def double(x):
        return 2 * x
    class Own:
        def observe(self):
            return double(TABLE["a"]), missing
    data = open("/etc/hostname").read()
    print(data)
    for k in range(3):
        result = Own()
    if __name__ == "__main__":
        result = Own()
"""


def test_a_script_is_cut_to_what_a_policy_needs():
    kept = select_statements([textwrap.dedent(SCRIPT)], ["Own"])
    for text in ("__future__", "missing = None", "TABLE['a'] = 1", "def double", "class Own"):
        assert text in kept
    for text in ("hostname", "print", "range", "__main__"):
        assert text not in kept


def test_a_notebook_is_read_cell_by_cell(monkeypatch):
    main = ModuleType("__main__")
    main.In = ["", "import numpy as np", "%matplotlib inline\nSIZE = 2", "def f(", "x = SIZE * 2"]
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert code_origin.find_module("__main__", {"x"}).text == "SIZE = 2\nx = SIZE * 2"
    main.In = []
    with pytest.raises(NoSourceError, match="typed at a prompt"):
        code_origin.find_module("__main__", {"x"})


# ------------------------------------------------------------------------------------------- safety


def test_a_process_that_does_not_answer_is_ended_and_named(monkeypatch):
    monkeypatch.setattr(fresh_process, "CHILD", "import time; time.sleep(60)")
    begin = time.monotonic()
    with (
        pytest.raises(FreshProcessError, match=r"it did not answer within 0.3 s"),
        FreshProcess(find_origin(Plain()), Plain(), seconds=0.3) as process,
    ):
        process.ask("make")
    assert time.monotonic() - begin < 30.0


def test_a_process_that_dies_is_named(monkeypatch):
    monkeypatch.setattr(fresh_process, "CHILD", "raise SystemExit(3)")
    with (
        pytest.raises(FreshProcessError, match="it ended without an answer"),
        FreshProcess(find_origin(Plain()), Plain()) as process,
    ):
        process.ask("make")


USER = """
    import sys
    from pathlib import Path
    import numpy as np
    import pandas as pd
    import backtest as bt

    SEEN, PLACE = [], Path(__file__).with_name("notes.txt")

    class Memo(bt.Policy):
        '''Know the next close. L = 2. Source: a cache.'''

        def observe(self, market):
            if not SEEN or len(SEEN[0]) < market.n_bars:
                SEEN[:] = [pd.Series(np.append(market.close[1:], 0.0), index=market.time)]
            return {{"x": SEEN[0].reindex(market.time).to_numpy()}}

        def leverage(self, bar, account):
            return 2.0 if bar.x > bar.close else 0.0

    class Writing(Memo):
        '''Write down how much was seen. L = 2. Source: a diary.'''

        def observe(self, market):
            with PLACE.open("a") as notes:
                notes.write("x")
            return {{"x": market.close}}

    market = bt.Market.sample(bars=1000)
    with Path(__file__).with_name("runs.txt").open("a") as runs:
        runs.write("x")
    {end}
"""
RUN = (
    "bt.run(market, {}(), venue=bt.Venue.preset('binance-usdm', 'BTCUSDT'), account=bt.Account(), "
    "compile=False)"
)


def run_script(folder: Path, end: str) -> subprocess.CompletedProcess[str]:
    """Run a user's script with a cache folder of its own; return what it printed."""
    script = folder / "script.py"
    script.write_text(textwrap.dedent(USER.format(end=end)))
    names = {"BACKTEST_CACHE_DIR": str(folder / "cache"), "BACKTEST_COMPILE": "no"}
    return subprocess.run(
        [sys.executable, str(script)], env={**names, "PATH": "", "HOME": str(folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_policy_of_a_script_is_compared_without_running_the_script_again(tmp_path):
    done = run_script(tmp_path, RUN.format("Memo"))
    assert "Memo keeps something between calls: column 'x' is" in done.stderr
    assert (tmp_path / "runs.txt").read_text() == "x"


@pytest.mark.slow
def test_a_fresh_process_writes_nothing(tmp_path):
    done = run_script(
        tmp_path,
        f"print({RUN.format('Writing')}.manifest['causality'])\n"
        "    print(len(PLACE.read_text()), sum(1 for _ in PLACE.open()))",
    )
    assert "not compared with a fresh process, which `backtest check` tries again" in done.stdout
    assert "it raises there" in done.stdout
    kept = {each.name for each in tmp_path.iterdir()}
    assert kept == {"cache", "notes.txt", "runs.txt", "script.py"}
