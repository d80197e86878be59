"""Commands that nobody would type, made of a seed: flags, experiment files, expressions, data.

``python -m tests.fuzzing KIND NUMBER`` runs one of them again, in a folder of its own, and prints
its command. Flags are taken from the command line itself, so that new ones are part of it.
"""

import functools
import os
import random
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import backtest
from backtest.cli.app import app
from backtest.cli.experiment_keys import list_keys
from backtest.cli.lazy_commands import build_tree
from backtest.strategies import Constant
from tests.fuzz_data import damage, write_data, write_market
from tests.fuzz_runs import LONGEST, Case, HungError, Outcome, run
from tests.fuzz_words import LATER_FLAGS, TAILS, draw_entry, write_book, write_policy

COUNTS = {"flags": 900, "toml": 1_000, "expressions": 250, "data": 109}
MARKET = "small.csv"
POLICIES = ("vol-target", "constant", "cppi", "trend-vol", "capped", "VolTarget(target=0.3)")
NASTY = (
    *("", " ", "nan", "NaN", "inf", "-inf", "1e999", "-1", "0", "-0.0", "1e-320", "true", "None"),
    *("9" * 400, "0x10", "1_000", "1,5", "١٢", "½", "--", "-", "=", "a=b=c", "=1", "a=", ":", "::"),
    *("\x1b[31mred", "\x07\x08", "line\nbreak", "tab\t", "\u202eabc", "é" * 50, "🙂", "\ufeff1"),
    *("../..", "/", "/dev/null", "/proc/self/mem", "~", "C:\\x", "a" * 300, "x" * 5_000, "$(id)"),
    *("'", '"', "`", "{}", "[1", "(((", ")", "#", "%s%n", "{0.__class__}", "\\", "*", "?", "@"),
    *(
        "1970-01-01",
        "2024-13-45",
        "9999-12-31",
        "0000-00-00",
        "2024-01-01T25:00",
        "now",
        "1h",
        "0h",
    ),
    *("-" * 50 + "1", "1" + "0" * 30, "1e3000", "\u2212" + "1", "Infinity", "0b1", "1e", "e1"),
)
VALID = {
    "--data": (MARKET, "nothing.csv", "sample", "."),
    "--policy": POLICIES,
    "--set": ("target=0.2", "account.band=0.1", "half_life=5", "targt=0.2", "target="),
    "--vary": (
        "target=0.1:1:3",
        "half_life=2,5",
        "account.band=0.1,0.2",
        "target=1:0:3",
        "taget=1",
    ),
    "--space": ("target=0.1:1", "half_life=2:20:log", "target=1:1", "nope=0:1"),
    "--venue": ("binance-usdm:BTCUSDT", "binance-usdm:ETHUSDT@latest", "binance-usdm", "x:y@z"),
    "--objective": ("sharpe", "calmar", "sharp", "sharpe=1,cagr=0.5"),
    "--constraint": ("max_drawdown<=0.4", "sharpe>0", "max_drawdown<", "nope<=1"),
    "--where": ("sharpe>1", "max_drawdown<=0.4", "shape>1"),
    "--sort": ("saved", "sharpe", "sharp"),
    "--columns": ("id,name", "sharpe,kind", "ids"),
    "--from": ("2024-01-02", "2024-01-01T06:00", "2030-01-01"),
    "--to": ("2024-01-03", "2020-01-01"),
    "--start": ("2024-01-02", "2025-01-01"),
    "--end": ("2024-01-03",),
    "--resample": ("2h", "1d", "7m", "30s"),
    "--sampling": ("1h", "1d", "2h", "1w"),
    "--calendar": ("365", "252", "366"),
    "--margin": ("cross", "isolated", "crossed"),
    "--side": ("long", "short", "buy"),
    "--entry": ("100", "60000"),
    "--leverage": ("3", "200"),
    "--method": ("sobol", "lhs", "sobl"),
    "--sampler": ("auto", "grid", "tpe", "cmaes", "bogus"),
    "--metrics": ("all", "core", "some"),
    "--kind": ("run", "sweep", "rum"),
    "--format": ("html", "md", "json", "pdf"),
    "--host": ("127.0.0.1", "localhost", "256.1.1.1", "::1"),
    "--memory": ("1GiB", "100MB", "1", "0GiB"),
    "--cluster": ("local:2", "tcp://127.0.0.1:1", "local:0", "ftp://x"),
    "--holdout": ("25%", "0.2", "120%"),
    "--timezone": ("UTC", "Europe/Berlin", "Mars/Base"),
    "--source": ("binance", "binanc"),
    "--older-than": ("30d", "2024-01-01", "30x"),
    "--results": ("results", "other", MARKET),
    "--out": ("out", "out.zip", MARKET + "/x"),
    **LATER_FLAGS,
}
ARGUMENTS = {
    "symbol": ("BTCUSDT", "../x", "btc"),
    "policy": (*POLICIES, "mine.py", "mine.py:Mine", "nope.py"),
    "venue": VALID["--venue"],
    "name": ("constant", "voltarget", "0a1b", "results"),
    "names": ("constant", "a=constant", "voltarget"),
    "files": (MARKET, "nothing.csv"),
    "paths": (MARKET, "nothing.csv", "."),
    "experiment": ("mine.toml", "nothing.toml", MARKET, "."),
}
MORE = {
    "sweep": ("--vary", "target=0.1,0.2"),
    "compare": ("--policy", "constant", "--policy", "cppi"),
}
"""What makes a command small, or whole."""
PATHS = ("--paths", "20", "--horizon", "5h", "--model", "gbm")
CROWD = ("--open-interest", "1e6")
MORE |= {
    "paths": PATHS,
    "risk": PATHS,
    "stress": ("--shock", "price=-0.1"),
    "bounds": ("--depth", "4"),
    "sensitivity": ("--factors", "fees"),
    "cascade": (*CROWD, "--accounts", "50", "--shock", "-0.1"),
    "crowd": (*CROWD, "--shares", "0,0.05", "--starts", "0", "--horizon", "5h"),
    "walk-forward": ("--train", "9d", "--test", "3d", "--trials", "4"),
    "cross-validate": ("--groups", "2", "--test-groups", "1", "--trials", "4"),
    "schedules": ("--train", "9d", "--test", "3d", "--trials", "4"),
    "folds": ("--train", "9d", "--test", "3d"),
}
LATER = ("paths", "risk", "stress", "bounds", "sensitivity", "cascade", "crowd", "validate")
EXPERIMENTS = ("run", "sweep", "tune", "compare", *LATER)
LONG = "long.csv"
"""Bars enough for two folds."""
INTERNALS = re.compile(
    r"Traceback|site-packages|object at 0x|<class |NoneType|dtype\(|ufunc|positional argument"
    r"|unsupported operand|not subscriptable|numpy\.|pandas\.|pyarrow\.|numba\.|typer\.|click\."
)
MINE = """
from typing import Annotated

import backtest as bt

class Mine(bt.Policy):
    size: Annotated[float, bt.Range(0.0, 5.0)] = 1.0

    def leverage(self, bar, account):
        return self.size
"""


# --------------------------------------------------------------------------------------- generators


def make(kind: str, number: int) -> Case:
    """Return a case: the same for the same number, whatever was made before."""
    rng = random.Random(f"{kind} {number}")
    words, files = MAKERS[kind](rng)
    common = {MARKET: write_market(60), "mine.py": MINE.encode(), "mine.toml": b"[run]\n"}
    if LONG in words:
        common[LONG] = write_market(480)
    return Case([clean(word) for word in words], {**common, **files})


def clean(word: str) -> str:
    """Return a word that an operating system can hand to a program."""
    return word.replace("\0", "")


@functools.cache
def list_commands() -> list[tuple[list[str], Any]]:
    """Return every command with its path."""
    found = []
    queue: list[tuple[list[str], Any]] = [([], build_tree(app))]
    while queue:
        path, command = queue.pop(0)
        if hasattr(command, "commands"):
            queue += [([*path, name], each) for name, each in command.commands.items()]
        else:
            found.append((path, command))
    return found


def draw(rng: random.Random, name: str, annotation: Any) -> str:
    """Return a value for a flag: one that fits, one that nearly does, or none at all."""
    known = VALID.get(name, ())
    kind = rng.random()
    if known and kind < 0.5:
        return rng.choice(known)
    if kind < 0.7 and annotation in (int, float):
        number = rng.choice((0, 1, 2, 4, 30, 0.05, 0.5, 0.95, 1e-9, -3, 1e6, 10**18))
        return str(int(number) if annotation is int else number)
    if known and kind < 0.8:
        return mutate(rng, rng.choice(known))
    return rng.choice(NASTY)


def mutate(rng: random.Random, text: str) -> str:
    """Return a text with a letter or two changed, doubled, left out or put in."""
    for _ in range(rng.randint(1, 3)):
        place = rng.randint(0, len(text))
        cut = rng.randint(0, 2)
        text = (
            text[:place]
            + rng.choice(("", "x", ",", "=", "\x1b", "9", ".", *NASTY[:8]))
            + (text[place + cut :])
        )
    return text


def make_flags(rng: random.Random) -> tuple[list[str], dict[str, bytes]]:
    """Return a command with some of its flags."""
    path, command = rng.choice(list_commands())
    words = list(path)
    if path[0] in EXPERIMENTS:
        data = LONG if path[0] == "validate" else MARKET
        words += ["--data", data, "--no-compile", "--instrument", "BTCUSDT"]
        words += MORE.get(path[-1], ())
    flags = [each for each in command.params if each.opts[0].startswith("-")]
    for each in rng.sample(flags, min(len(flags), rng.choice((0, 1, 1, 2, 2, 3, 5)))):
        name = rng.choice([*each.opts, *each.secondary_opts])
        name = mutate(rng, name) if rng.random() < 0.04 else name
        is_flag = getattr(each, "is_flag", False)
        for _ in range(rng.choice((1, 1, 1, 2))):
            value = draw(rng, each.opts[0], find_type(each))
            words += [name] if is_flag else [name, value]
    for each in command.params:
        if not each.opts[0].startswith("-") and (each.required or rng.random() < 0.3):
            count = rng.choice((1, 1, 2)) if each.nargs == -1 else 1
            options = (*ARGUMENTS.get(each.name, ()), rng.choice(NASTY))
            words += [rng.choice(options) for _ in range(count)]
    if path == ["liq"] and rng.random() < 0.3:
        return ["liq", "--book", "book.toml", *words[1:]], {"book.toml": write_book(rng).encode()}
    is_about_results = path[0] in ("results", "report") and rng.random() < 0.8
    return words, save_run() if is_about_results else {}


@functools.cache
def save_run() -> dict[str, bytes]:
    """Return the files of a store that holds one run."""
    market = backtest.Market.sample(bars=48)
    venue = backtest.Venue.preset("binance-usdm", "BTCUSDT")
    terms = {"venue": venue, "account": backtest.Account(), "compile": False}
    with tempfile.TemporaryDirectory() as folder:
        path = backtest.run(market, Constant(), **terms).save(Path(folder) / "results")
        return {f"results/{path.name}/{each.name}": each.read_bytes() for each in path.iterdir()}


def find_type(parameter: Any) -> Any:
    """Return what a flag holds, as far as it says."""
    return getattr(getattr(parameter, "type_descriptor", None), "annotation", str)


TABLES = {
    "data": ("path", "instrument", "interval", "timezone", "mark_gaps", "funding_gaps", "sessions",
             "from", "to", "resample"),
    "policy": ("name", "settings"),
    "venue": ("preset", "fees", "brackets", "contract", "slippage", "liquidation", "borrow_rate"),
    "account": ("capital", "margin", "venue_leverage", "min_leverage", "max_leverage", "band",
                "stop_loss", "margin_call", "top_up_to", "reserve", "after_liquidation", "flows",
                "fill", "take_profit", "trailing_stop", "equity_stop"),
    "run": ("signal", "sampling", "calendar", "compile", "start", "end"),
    "sweep": ("values", "draws", "space", "method", "seed", "metrics", "full", "objective"),
    "tune": ("objective", "constraints", "trials", "seconds", "sampler", "space", "fix", "robust",
             "holdout", "seed"),
    "compare": ("policies", "baseline", "equal_risk", "confidence", "draws", "seed"),
}  # fmt: skip
LATER_TABLES = ("overlay", "validate", "paths", "risk", "stress",
                "bounds", "sensitivity")  # fmt: skip
TABLES |= {name: tuple(list_keys(name)) for name in LATER_TABLES}
TABLES_OF = {"risk": ("paths", "risk"), "paths": ("paths",)}
"""Tables that a command reads, if not the one of its name."""
COMMANDS = (*EXPERIMENTS[:4], "paths", "risk", "stress", "bounds", "sensitivity",
            "validate walk-forward", "validate cross-validate",
            "validate schedules")  # fmt: skip
"""Commands that are drawn for experiment files."""


def make_toml(rng: random.Random) -> tuple[list[str], dict[str, bytes]]:
    """Return a command with an experiment file."""
    path = rng.choice(COMMANDS).split()
    command = path[0]
    data = LONG if command == "validate" else MARKET
    lines = ["[data]", f'path = "{data}"', 'instrument = "BTCUSDT"', "[run]", "compile = false"]
    own = TABLES_OF.get(command, sorted(TABLES.keys() & {command}))
    shared = ("data", "policy", "venue", "account", "run", *own)
    for table in rng.sample(shared, rng.randint(1, 3)):
        name = mutate(rng, table) if rng.random() < 0.02 else table
        if f"[{name}]" not in lines or rng.random() < 0.05:
            lines.append(f"[{name}]")
        place = lines.index(f"[{name}]") + 1 if f"[{name}]" in lines else len(lines)
        for key in rng.sample(TABLES[table], min(len(TABLES[table]), rng.randint(1, 3))):
            key = mutate(rng, key) if rng.random() < 0.03 else key  # noqa: PLW2901
            value = draw_entry(rng, key)
            if not any(line.startswith(f"{key} =") for line in lines) or rng.random() < 0.05:
                lines.insert(place, f"{key} = {value}")
    content = "\n".join(lines).encode()
    if rng.random() < 0.03:
        place = rng.randrange(len(content))
        content = content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    more = MORE.get(path[-1], ())
    words = [*path, "fuzz.toml", "--no-compile", *(more if rng.random() < 0.8 else ())]
    return words, {"fuzz.toml": content, LONG: write_market(480)}


def make_expression(rng: random.Random) -> tuple[list[str], dict[str, bytes]]:
    """Return a run of a policy, or of data, that is written oddly."""
    if rng.random() < 0.15:
        text = mutate(rng, rng.choice((MARKET, "sample", f"{MARKET}:x", "*.csv", "mine.toml")))
        return ["run", "--no-compile", "--no-save", "--data", text or "x"], {}
    text = write_policy(rng, 3)
    text = mutate(rng, text) if rng.random() < 0.1 else text
    text += rng.choice(TAILS) * (rng.random() < 0.15)
    words = ["run", "--no-compile", "--data", MARKET, "--instrument", "BTCUSDT", "--no-save"]
    return [*words, "--policy", text], {}


def make_data(rng: random.Random) -> tuple[list[str], dict[str, bytes]]:
    """Return a command that reads a damaged file."""
    suffix = rng.choice(
        (".csv", ".csv", ".csv", ".json", ".parquet", ".feather", ".csv.gz", ".zip")
    )
    name = f"bars{suffix}"
    content = damage(rng, write_data(suffix, rng))
    run = ["run", "--no-compile", "--no-save", "--data", name]
    others = (["data", "inspect", name], ["data", "import", name, "--out", "out"])
    return rng.choice((run, [*run, "--sessions"], *others)), {name: content}


MAKERS: dict[str, Callable[[random.Random], tuple[list[str], dict[str, bytes]]]] = {
    "flags": make_flags,
    "toml": make_toml,
    "expressions": make_expression,
    "data": make_data,
}


# ------------------------------------------------------------------------------------------ running


def find_fault(case: Case) -> str:
    """Return what is wrong with how a command ended; nothing where it ended well."""
    try:
        done = run(case)
    except HungError:
        return f"hung for {LONGEST} s"
    except (Exception, SystemExit) as error:
        return f"raised {type(error).__name__}: {str(error)[:300]}"
    return judge(done)


def judge(done: Outcome) -> str:
    """Return what is wrong with the form of an ending."""
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    if done.code not in (0, 1, 2, 130):
        return f"exit code {done.code}"
    if done.code == 2 and "not measured: " in done.out and "\n  cure  " in done.out:
        return ""  # the verdict of a regression check, with what could not be measured
    if done.code == 2 and not (len(errors) == 1 and "\n  where: " in done.err):
        return f"no error of good form: {done.err[:300]!r}"
    if done.code == 2 and "\n  cure:  " not in done.err:
        return f"no cure: {done.err[:300]!r}"
    if found := INTERNALS.search(done.err):
        return f"{found[0]!r} in {done.err[:400]!r}"
    if found := re.search(r"[\x00-\x08\x0b-\x1f\x7f]", done.err):
        return f"{found[0]!r} is printed: {done.err[:300]!r}"
    return ""


def fuzz(kind: str, numbers: range) -> list[str]:
    """Return the cases that end badly, each with how to see it again."""
    faults = []
    here = Path.cwd()
    for number in numbers:
        case = make(kind, number)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            try:
                fault = find_fault(case)
            finally:
                os.chdir(here)
        if fault:
            again = f"python -m tests.fuzzing {kind} {number}"
            faults.append(f"{again}\n  {case.command[:300]}\n  {fault}")
    return faults


def show(kind: str, number: int) -> None:
    """Run one case in a new folder, and print all of it."""
    case = make(kind, number)
    os.chdir(tempfile.mkdtemp(prefix="fuzz-"))
    sys.stdout.write(f"in {Path.cwd()}: {case.command}\n")
    done = run(case)
    sys.stdout.write(f"{done.out}\n{done.err}\nexit code {done.code}: {judge(done) or 'well'}\n")


if __name__ == "__main__":
    show(sys.argv[1], int(sys.argv[2]))
