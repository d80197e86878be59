"""The command line: what it prints, where it saves, how it ends."""

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import rich.markup
import typer
import typer.rich_utils  # keeps whether colors are forced when it is imported: here they are not

import backtest as bt
from backtest.baselines.policy_contract import Finding
from backtest.cli import app, experiment, main, policies, printing, terminal_screen
from backtest.cli.app import build_command
from backtest.cli.build import build_experiment
from backtest.cli.compiling import hold_options
from backtest.cli.experiment import (
    MODELS,
    SWITCHES,
    TABLES,
    draft_experiment,
    read_entry,
    read_keys,
)
from backtest.cli.first_screen import COMMANDS
from backtest.cli.terminal_screen import read_table
from backtest.experiments.tables import JOBS
from backtest.strategies import VolTarget
from tests.help_table import write_table
from tests.kit import AT_BINANCE, MY_POLICY, ask, call, run_python, slow

ROOT = Path(__file__).parents[2]
SHORT = ("--to", "2023-01-15")
PLAIN = ("--no-compile", "--no-save")
SPAN = ("--start", "2023-02-01", "--set", "run.end=2023-02-08")
FAST = ("--start", "2023-01-05", "--to", "2023-01-20", "--no-save")
COMMAND = (sys.executable, "-m", "backtest")


@pytest.mark.filterwarnings("ignore:.*print is not supported in compiled code")
def test_what_a_policy_prints_is_no_part_of_the_json(capsys, folder):
    """Compiled, it kept the lock of the interpreter at its first number, and stood still."""
    noisy = MY_POLICY.replace("return 1.0", 'print("at", bar.close); return 1.0')
    (folder / "noisy.py").write_text('print("imported")\n' + noisy)
    words = ("--policy", "noisy.py:Mine", "--json", "--no-save", "--to", "2023-01-02")

    code, out, err = call(capsys, "run", "--no-compile", *words)
    assert code == 0
    assert json.loads(out)["policy"] == "Mine()"
    assert err.startswith("imported\nat ")

    assert "imported" in call(capsys, "run", *words[:2], *words[3:])[1]


def test_json_is_one_object_with_null_for_nan_and_nothing_else(capsys):
    found = ask(capsys, "run", *SHORT, "--results", "there")

    assert found["metrics"]["ruin_time"] is None
    assert found["data"]["synthetic"] is True
    assert found["path"].startswith("there/")
    assert bt.Result.load(found["path"]).manifest["id"] == found["id"]


def test_what_a_summary_says_is_no_warning_too(capsys, folder):
    index = pd.date_range("2020-01-01", periods=60, freq="1h", tz="UTC")
    bars = pd.DataFrame(100.0, index=index, columns=["open", "high", "low", "close"])
    bars.rename_axis("time").to_csv(folder / "bars.csv")
    flat = ("--policy", "constant", "--instrument", "BTCUSDT", "--set", "leverage=0")

    _, out, err = call(capsys, "run", "--data", "bars.csv", "--no-compile", *flat)
    swept = call(capsys, "sweep", "--data", "bars.csv", "--vary", "leverage=0,1", *flat[:4])

    assert "".join(swept[1:]).count("filled no order") == 1
    for words in ("tested on last prices", "no order was filled", "the oldest margin table"):
        assert (out + err).casefold().count(words) == 1


def test_flags_reach_policy_venue_account_and_run(capsys):
    settings = [
        "target=0.6", "half_life=24", "venue.fees.taker=0.0003", "venue.slippage.rate=0.0002",
        "account.venue_leverage=7", "account.band=0.1", "account.stop_loss=0.2",
        "account.ruin_at=0.3", "run.sampling=12h", "account.auto_margin=true",
        "venue.fees.per_order=2", "venue.profit_counts=losses", "venue.liquidation.impact=0.1",
        "venue.liquidation.mode=close",
    ]  # fmt: skip

    flags = [word for each in settings for word in ("--set", each)]
    flags += ["--capital", "500", "--margin", "isolated", "--max-leverage", "4", "--signal", "-0.5"]
    code, _, err = call(capsys, "run", *SHORT, *flags, "--results", "r")
    assert code == 0, err

    result = bt.Result.load(next(Path("r").iterdir()))

    assert result.manifest["policy"]["settings"] == VolTarget(0.6, 24.0).settings()
    assert result.venue.fees.taker == pytest.approx(3e-4)
    assert result.venue.slippage.rate == pytest.approx(2e-4)
    account = {"capital": 500, "margin": "isolated", "venue_leverage": 7, "band": 0.1}
    account |= {"max_leverage": 4, "stop_loss": 0.2, "ruin_at": 0.3, "auto_margin": True}
    assert result.account == bt.Account(**account)

    assert result.venue.fees.per_order == 2.0
    assert result.venue.profit_counts == "losses"
    assert result.venue.liquidation.impact == 0.1
    assert result.manifest["signal"] == "constant -0.5"
    assert result.manifest["sampling"] == "12h"
    assert (result.bars["position"].iloc[-100:] <= 0).all()


@pytest.mark.parametrize(("encoding", "mark"), [
    ("utf-8", ""), ("utf-8-sig", ""), ("utf-16", ""), ("utf-8-sig", "\ufeff"),
])  # fmt: skip
def test_files_with_a_byte_order_mark_are_read(capsys, folder, encoding, mark):
    """Notepad and PowerShell write one, joined files two: in an experiment, a snapshot."""
    text = '[data]\npath = "sample"\nto = 2023-01-05\n[policy]\nname = "constant"\n'
    (folder / "it.toml").write_text(mark + text, encoding=encoding)
    assert ask(capsys, "run", "it.toml", *PLAIN)["policy"] == "Constant(leverage=1.0)"

    (folder / "it.json").write_text(mark + '{"equity": 10000}', encoding=encoding)
    decided = call(capsys, "decide", "it.toml", "--snapshot", "it.json", "--no-compile", "--json")
    assert json.loads(decided[1])["equity"]["before"] == 10_000


def test_an_experiment_may_hold_a_multiple(folder):
    text = 'account = {stop_loss = {multiple = 2, column = "atr"}, take_profit = "3*atr"}\n'
    (folder / "e.toml").write_text(text)
    account = build_experiment(draft_experiment(folder / "e.toml", [])).test.account
    expected = {"stop_loss": bt.Multiple(2.0, "atr"), "take_profit": bt.Multiple(3.0, "atr")}

    assert account == bt.Account(**expected)


def test_a_number_of_days_a_year_is_read_from_a_file_as_from_set(folder):
    (folder / "e.toml").write_text("run = {calendar = 365}\n")
    of_file = draft_experiment(folder / "e.toml", [])
    of_set = draft_experiment(None, [read_entry("run.calendar", "365")])

    assert [build_experiment(each).test.calendar for each in (of_file, of_set)] == ["365"] * 2


def test_a_list_is_given_whole_in_a_file_or_by_its_numbers(folder):
    file = folder / "e.toml"
    file.write_text('policy = {name = "ladder", settings = {levels = [3, 2, 1]}}\n')

    given = {"": (3, 2, 1), "levels.1=2.5": (3, 2.5, 1), "levels=4,1,0": (4, 1, 0)}
    for word, levels in given.items():
        entries = [read_entry(*word.split("="))] if word else []
        assert build_experiment(draft_experiment(file, entries)).policy.levels == levels

    typed = draft_experiment(None, [("policy.name", "Ladder(levels=(5, 2, 1))")])
    assert build_experiment(typed).policy.levels == (5, 2, 1)


def list_code(cache):
    """Return the objects of compiled rules: all but those of policies."""
    names = {path.name for path in cache.rglob("*.o")}
    return {name for name in names if not name.startswith(("portfolio_policy_", "lanes_"))}


@pytest.mark.slow
def test_after_compile_nothing_but_policies_is_compiled(folder):
    """A second kind of an argument would be a second kernel."""
    cache = folder / "cache"
    environment = {**os.environ, "BACKTEST_CACHE_DIR": str(cache)}
    environment.pop("BACKTEST_COMPILE", None)
    constant = ("--policy", "constant", "--no-save")
    short = ("--to", "2023-01-15")

    for words in (
        ("compile",),
        ("run", *constant, *short),
        ("sweep", *constant, *short, "--vary", "leverage=0.5,1,2,3"),
        ("risk", *constant, "--paths", "256", "--horizon", "1d", "--horizons", "1d"),
        ("bounds", *constant, *short),
        ("check", "constant"),
    ):
        program = "import sys; from backtest.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{words}: {done.stderr[-2000:]}"
        assert list_code(cache) == set(), words


@pytest.mark.slow
def test_the_account_with_options_that_a_wheel_compiles_runs():
    hold_options(plain=True)


def test_check_exits_with_1_where_a_check_fails(capsys, folder, monkeypatch):
    (folder / "mine.py").write_text(MY_POLICY)
    seen = []

    def find(policy, market, terms=None, progress=None):
        assert terms is None
        seen.append((policy.__name__, market))
        passed = policy.__name__ == "Mine"
        found = Finding("sees no future", passed, "" if passed else "column x looks ahead")
        if progress is not None:
            progress(found)
        return [found, Finding("trades", True, "", False)]

    monkeypatch.setattr(policies, "check_policy", find)
    code, out, _ = call(capsys, "check", "mine.py")
    assert code == 1
    assert "Mine: passes the policy checks, 1 of 2 not tried" in out
    assert "column x looks ahead" in out

    assert seen == [("Mine", None), ("Other", None)]

    assert call(capsys, "check", "mine.py:Mine")[0] == 0
    assert ask(capsys, "check", "mine.py:Other", code=1)["Other"][0]["passed"] is False


ISOLATED = ("--margin", "isolated", "--set", "account.venue_leverage=20", "--max-leverage", "7")


@pytest.mark.parametrize("is_file", [False, True])
def test_check_is_on_the_venue_and_the_account_that_a_run_takes(
    capsys, folder, monkeypatch, is_file
):
    """By flags, and by a file whose account flags change: as `run` takes them."""
    (folder / "mine.py").write_text(MY_POLICY)
    file = folder / "mine.toml"
    file.write_text('[policy]\nname = "mine.py:Mine"\n[account]\ncapital = 500.0\n')
    seen = []

    def find(policy, market, terms=None, progress=None):
        seen.append(terms)
        return [Finding("runs", True, "")]

    monkeypatch.setattr(policies, "check_policy", find)
    target = file if is_file else "mine.py:Mine"
    venue = ("--venue", "binance-usdm:ETHUSDT", "--set", "venue.fees.taker=0.001")

    code, _, err = call(capsys, "check", target, *ISOLATED, *venue)
    assert code == 0, err

    account = bt.Account(margin="isolated", venue_leverage=20.0, max_leverage=7.0)
    assert seen[0].account == (account.override({"capital": 500.0}) if is_file else account)
    preset = bt.Venue.preset("binance-usdm", "ETHUSDT")
    assert seen[0].venue == preset.override({"fees.taker": 0.001})


@pytest.mark.parametrize(("words", "said"), [
    (("--set", "target=0.4"), "--set accepts account.KEY and venue.KEY, got target"),
    (("--set", "run.start=2023-02-01"), "--set accepts account.KEY and venue.KEY, got run.start"),
    (("--margin", "isolate"), "did you mean 'isolated'"),
    (("--set", "account.stoploss=0.1"), "stop_loss"),
    (("--venue", "binance-usdm:NOPE"), "NOPE"),
])  # fmt: skip
def test_check_refuses_what_it_does_not_take(capsys, folder, words, said):
    (folder / "mine.py").write_text(MY_POLICY)
    code, _, err = call(capsys, "check", "mine.py:Mine", *words)
    assert code == 2
    assert said in " ".join(err.split())


@pytest.mark.slow
@pytest.mark.filterwarnings("always::UserWarning")  # it is what is looked at
def test_a_sweep_from_a_start_has_the_run_from_that_start(capsys, folder):
    words = ("--vary", "target=0.3,0.6", *SPAN, "--no-save", "--json")
    code, out, err = call(capsys, "sweep", *words)
    assert code == 0
    assert "warning" not in err

    found = json.loads(out)
    best = ("--set", f"target={found['top'][0]['target']}")
    again = ask(capsys, "run", *SPAN, *best, *PLAIN)
    assert again["metrics"]["sharpe"] == found["top"][0]["sharpe"]


@pytest.mark.slow
def test_flags_and_files_give_the_run_of_python(tmp_path, capsys):
    market = bt.Market.sample().between(None, "2023-01-20")
    terms = {**AT_BINANCE, "start": "2023-01-05"}
    identity = bt.run(market, VolTarget(), signal="breakout:24", **terms).manifest["id"]

    assert ask(capsys, "run", "--signal", "breakout:24", *FAST)["id"] == identity
    named = ask(capsys, "run", "--signal", "breakout", "--set", "signal.window=24", *FAST)
    assert named["id"] == identity

    file = tmp_path / "breakout.toml"
    file.write_text("[run]\nsignal = 'breakout'\nsignal_settings = {window = 24}\n")
    assert ask(capsys, "run", file, *FAST)["id"] == identity
    other = ask(capsys, "run", file, "--signal", "rsi:30:40:60", *FAST)
    assert other["id"] != identity  # the settings of the file belong to its rule


WIDTHS = [{"COLUMNS": width} for width in ("79", "80", "81", "83", "100", "117", "300")]


@pytest.mark.parametrize("is_terminal", [False, True], ids=["file", "terminal"])
@pytest.mark.parametrize(
    "environment",
    [*WIDTHS, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}, {"TERM": "dumb"},
     {"TTY_COMPATIBLE": "1", "COLUMNS": "70"}],
    ids=str,
)  # fmt: skip
def test_the_first_screen_is_that_of_all_commands(capsys, monkeypatch, environment, is_terminal):
    """It imports none of them; the bytes are those of the commands themselves."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)

    assert main(["--help"]) == 0
    early = capsys.readouterr().out
    assert app.main(["--help"]) == 0
    assert early == capsys.readouterr().out


@pytest.mark.parametrize(
    "environment", [{}, *slow([{"FORCE_COLOR": "1", "COLUMNS": "110"}])], ids=str
)
@pytest.mark.parametrize("name", terminal_screen.read_table()["commands"])
def test_the_help_of_a_command_is_that_of_the_command(capsys, monkeypatch, name, environment):
    """It is drawn from a table, without importing the command; the bytes are its own."""
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)

    assert main([*name.split(), "--help"]) == 0
    early = capsys.readouterr().out
    assert app.main([*name.split(), "--help"]) == 0
    assert early == capsys.readouterr().out


def test_the_jobs_that_files_may_hold_are_those_of_the_commands():
    assert {*JOBS} == {*experiment.OWN, *experiment.FUNCTIONS}


def test_the_table_of_helps_says_what_the_commands_say():
    written = terminal_screen.TABLE.read_text("utf-8")
    assert written == write_table(), "renew the table: python -m tests.help_table"


def test_the_first_screen_fits_eighty_columns_and_forty_lines(capsys, monkeypatch):
    """The commands of every day come first, each on a line; all others stand by subject."""
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = call(capsys)
    lines = out.splitlines()

    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    first = lines.index("Every day") + 1
    daily = ["judge", "run", "tune", "compare", "risk", "decide", "data", "report", "regress"]
    assert [line.split()[0] for line in lines[first : first + 9]] == daily

    rest = " ".join(lines[first + 9 :])
    assert all(f"{name} (" in rest for name in COMMANDS if name not in daily)


def test_the_first_screen_and_the_version_import_no_command():
    code = "import sys; from backtest.cli import main; main(['--version']); main([]); "
    code += "loaded = {'numpy', 'pandas', 'pydantic', 'typer', 'rich', 'backtest.cli.app'}; "
    code += "print(sorted(loaded & {*sys.modules}))"

    lines = run_python(code).splitlines()
    assert lines[0].split()[0] == "backtest"
    assert lines[-1] == "[]"


def test_the_help_of_a_command_loads_the_library_that_draws_it_alone():
    code = "import sys; from backtest.cli import main; main(['tune', '--help']); "
    code += "loaded = {'numpy', 'pandas', 'pydantic', 'backtest.cli.app', 'backtest.core'}; "
    code += "print(sorted(loaded & {*sys.modules}))"
    assert run_python(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples(capsys, name):
    code, out, _ = call(capsys, name, "--help")
    assert code == 0
    assert f"Usage: backtest {name}" in out
    if name != "validate":
        assert "Examples" in out


ACCOUNT = (bt.run, bt.Account)
DATA = (bt.Markets.load, bt.Market.load)
TEST = bt.Backtest
SIDES = {
    "run": ACCOUNT, "compare": (*ACCOUNT, bt.compare), "decide": (*ACCOUNT, TEST.decide),
    "replay": (*ACCOUNT, TEST.replay), "sweep": (*ACCOUNT, TEST.sweep, bt.Sweep.rank),
    "tune": (*ACCOUNT, TEST.tune), "validate walk-forward": (*ACCOUNT, TEST.walk_forward),
    "validate cross-validate": (*ACCOUNT, TEST.cross_validate),
    "validate folds": (*ACCOUNT, bt.folds),
    "risk": (*ACCOUNT, bt.simulate_paths, TEST.liquidation_risk, TEST.passing_probability),
    "paths": (*ACCOUNT, bt.simulate_paths), "stress": (*ACCOUNT, bt.stress),
    "bounds": (*ACCOUNT, bt.bounds), "bands": (*ACCOUNT, bt.Result.bands),
    "capacity": (*ACCOUNT, TEST.capacity),
    "sensitivity": (*ACCOUNT, TEST.sensitivity), "timing": (*ACCOUNT, bt.timing_test),
    "cascade": (*ACCOUNT, bt.cascade, bt.Crowd.from_leverage), "liq": (bt.calculate_liquidation,),
    "options surface": (bt.Chain.load, bt.Chain.select, bt.Surface.fit),
}  # fmt: skip
"""The functions of Python behind each command; those of experiments read data too."""
ONE_SIDED = {"--set", "--report", "--json", "--save", "--results", "--help", "--gate", "--timing"}
ONE_SIDED |= {"--frontier"}
"""Of the command line alone; ``--gate`` makes an exit code."""
WRITTEN = {
    "--data": "paths", "--from": "since", "--to": "until", "--vary": "sets", "--draws": "sets",
    "--shock": "scenarios", "--snapshot": "state", "--begin": "start", "--from-run": "result",
    "--ledger": "Replay.compare", "--find-leverage": "max_leverage",
    "--evaluations": "max_leverage",
}  # fmt: skip
"""Flags of another name: of what is an object in Python, and ``from``, which is a keyword there."""
OBJECTS = {
    "market", "results", "result", "progress", "store", "benchmark", "option_quantities", "crowd",
    "me", "data", "settings", "entries", "chain", "self", "path", "state", "sets", "correlation",
    "instruments", "paths", "price", "bridge", "columns", "repair",
}  # fmt: skip
"""Arguments that other flags make, that only Python has, or that are flags of `data import`."""


def list_flags(name: str) -> dict[str, str]:
    """Return the flags of a command, without ``no-``, with the names of their arguments."""
    command, _, subcommand = name.partition(" ")
    made = build_command(command)
    if subcommand:
        made = made.commands[subcommand]

    options = [each for each in made.params if each.param_type_name == "option"]
    flags = [max(option.opts, key=len).replace("--no-", "--") for option in options]
    return {flag: WRITTEN.get(flag, flag[2:].replace("-", "_")) for flag in flags}


@pytest.mark.parametrize("name", SIDES)
def test_each_flag_is_an_argument_and_each_argument_a_flag_or_a_key(name):
    flags = list_flags(name)
    functions = [*SIDES[name]]
    if "--data" in flags:
        functions += DATA
    if "--verbose" in flags:
        functions.append(bt.Result.summary)
    arguments = {each for function in functions for each in inspect.signature(function).parameters}

    tables = (*TABLES, *MODELS) if "--set" in flags else ()
    keys = {key for table in tables for key in read_keys(table)}

    elsewhere = ONE_SIDED | {each for each in WRITTEN if each in flags}
    assert {flag for flag, own in flags.items() if own not in arguments} <= elsewhere
    assert arguments - {*flags.values()} - keys - {*tables} <= OBJECTS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_switch_says_what_it_does(name):
    """What turns something off says what is done instead, not what it turns off."""
    made = build_command(name)
    for command in getattr(made, "commands", {"": made}).values():
        for each in command.params:
            if getattr(each, "is_flag", False):
                assert not each.help.startswith("Whether"), each.opts

            assert not each.opts[0].startswith("--no-")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_names_the_values_of_flags_as_the_docs_do(name):
    """DATE, PATH, N; a switch has none. The library's own names are <str> and <bool>."""
    made = build_command(name)
    for command in [made, *getattr(made, "commands", {}).values()]:
        context = typer.Context(command, help_option_names=["-h", "--help"])
        for each in command.get_params(context):
            if each.param_type_name == "option":
                assert each.metavar is not None, each.opts
                assert bool(each.metavar) is not getattr(each, "is_flag", False), each.opts
        assert not re.search(r"<[a-z]", command.get_help(context))


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("stress",), ("--shock NAME=VALUE", "--ladder NAME=VALUE", "--start DATE", "--data PATH")),
        (("cascade",), ("--shock X", "--recovery DURATION", "--capital X")),
        (("check",), ("--data PATH", "--set NAME=VALUE", "--capital X")),
        (("venues",), ("--at DATE",)),
        (("regress", "record"), ("--tolerance NAME=VALUE", "EXPERIMENT... Experiment files")),
        (("report",), ("RUN A saved result, or two", "--help -h Show this")),
    ],
)
def test_values_have_the_names_of_the_docs(capsys, command, named):
    shown = " ".join(call(capsys, *command, "--help")[1].replace("│", " ").split())
    for text in named:
        assert text in shown


def test_tables_in_a_help_are_no_styles(capsys):
    shown = call(capsys, "run", "--help")[1]
    assert "Tables [accounts.NAME] make several accounts" in shown
    assert "Usage: backtest run [OPTIONS] [EXPERIMENT.toml]" in shown
    shown = call(capsys, "options", "--help")[1]
    assert "deribit.parquet          # which quotes are" in shown


def test_no_robust_chooses_a_spike(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = " ".join(call(capsys, "tune", "--help")[1].replace("│", " ").split())
    assert SWITCHES["robust"] in shown
    assert all("(default), or " in text for text in SWITCHES.values())


def test_help_lists_every_key_of_a_table(capsys):
    assert {"tune", "venue", "account"} <= {*call(capsys, "help")[1].split()}
    for table, keys in (
        ("account", ("stop_loss", "max_holding", "trailing_stop")),
        ("venue", ("preset", "fees.taker", "slippage.impact")),
        ("tune", ("sampler", "robust")),
    ):
        out = call(capsys, "help", table)[1]
        assert all(f"\n{key} " in out for key in keys)

    shown = " ".join(call(capsys, "help", "account")[1].split())
    assert "10000.0" in shown
    assert "next_open, next_close, same_close, limit." in shown
    assert shown.count('"cross" (everything') == 1  # a sentence that has all words stays as it is
    assert "One of cross, isolated" not in shown

    code, _, err = call(capsys, "help", "acount")
    assert code == 2
    assert "did you mean 'account'?" in err


def test_every_key_of_a_model_has_a_whole_sentence():
    for table in MODELS:
        for key in read_keys(table).values():
            text = key.text
            assert text.endswith("."), key.place
            assert text.count("(") == text.count(")"), key.place
            assert not text.endswith(" Default."), key.place

    assert "Contract(expense=)" in read_keys("venue")["day_count"].text


def test_a_bracket_in_a_help_is_shown_and_no_style():
    for name, row in read_table()["parameters"].items():
        text = row["about"].get("help", "")
        assert rich.markup.render(text).plain == text.replace("\\[", "["), name


def start(*words, **how):
    how |= {"stderr": subprocess.PIPE, "text": True}
    return subprocess.run([*COMMAND, *words], check=False, cwd=ROOT, **how)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [("results", "list", "--json"), ("venues", "--help")])
def test_a_full_output_is_one_line_and_no_success(tmp_path, words):
    """Before: a traceback of OSError, and of `--help` exit code 0."""
    with Path("/dev/full").open("w") as full:
        done = start(*words, stdout=full)

    assert done.returncode == 2
    assert done.stderr.endswith("cannot write the output: No space left on device\n")


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_command_in_silence(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = start("results", "list", "--json", stdout=writer)
    os.close(writer)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.parametrize("words", [
    ("run", "\x1b[2J\x07" + "x" * 3_000),
    ("run", "--no-save", "--data", "a" * 5_000),  # before: a traceback of OSError
], ids=["control codes", "a path too long for the system"])  # fmt: skip
def test_messages_hold_no_control_codes_and_no_endless_lines(capsys, words):
    code, _, err = call(capsys, *words)
    assert code == 2
    assert "\x1b" not in err
    assert "\x07" not in err
    assert max(map(len, err.splitlines())) <= printing.MAX_MESSAGE
