"""What the commands refuse: exit code 2 and one error that names the value and its rule."""

import re
import shlex

import pandas as pd
import pytest

import backtest as bt
from backtest.cli import main
from backtest.cli.app import name_flags
from backtest.market import CARRY
from backtest.signals.directions import CARRY_SERIES
from tests.kit import MY_POLICY, call
from tests.layouts import own_files

REFUSED = [
    # words and values
    ("run --captal 3", "(Possible options: --capital, --data); see backtest run --help"),
    ("run --capital -3", "error: --capital: must be over 0, got -3"),
    ("run --capital=40,0", "error: --capital: must be a number, got '40,0'"),
    ("run --set account.capital=-3", "error: account.capital: must be over 0, got -3"),
    ("run account.toml --margin cross", "error: account.capital: must be over 0, got -3"),
    ("run --capital x --set account.band=y", "--capital: must be a number, got 'x'\naccount.band"),
    ("decide --at 25920,0", "error: --at: must be a number or a table, got '25920,0'"),
    ("decide --set decide.at=x", "error: decide.at: must be a number or a table, got 'x'"),
    ("decide --at BTCUSDT=1,x", "error: --at needs NAME=VALUE, BTCUSDT=30000 for example"),
    ("check vol-target --capital x", "error: --capital: must be a number, got 'x'"),
    ("run --margin isolated", "account.venue_leverage: is needed with isolated margin, 5 for exam"),
    ("run --set account.trailing_stop=2*nothing", "the market has no column 'nothing'"),
    ("tune --policy vol-target --space target=0.1-1",
     "must have a colon between the ends of a range, got '0.1-1'; give 0.1:1"),
    ("risk --policy constant --frontier", "give shrunk (of history, less its error), history, or"),
    ("run --venue binance-usdm:BTC", "did you mean 'BTCUSDT'"),
    ("run --set data.resample=7x", "got '7x'"),
    ("run --set x", "--set needs NAME=VALUE"),
    ("run --set account.bnd=1", "account.bnd: Account has no such field (did you mean 'band'?)"),
    ("run --set acount.band=0.1", "got 'acount.band' (did you mean 'account.band'?)"),
    ("run --set account.band=40%", "account.band: must be a number, 0.4 for 40 %, got '40%'"),
    ("run --set target=40%", "target must be a number, 0.4 for 40 %, got '40%'"),
    ("run --set venue.fees.taker=0.05%", "must be a number, 0.0005 for 0.05 %, a series by UTC"),
    ("risk --target 10%", "error: --target: must be a number, 0.1 for 10 %, got '10%'"),
    ("run --set target=9", "target must be 0.05 to 2 per sqrt(year), got 9"),
    ("run --data nope", "'nope'"),
    ("run --set options.contracts=BTC-27JAN23-30000-P", "options need contracts, and chains"),
    # spans
    ("run --from 2030-01-01", "2030-01-01"),
    ("run --to 2023-13-45", "error: --to must be a time such as"),
    ("run --start 2023-02-01 --from 2023-03-01", "which begin 2023-03-01"),
    # signals
    ("run --signal breakout --set signal.windw=3", "did you mean 'window'"),
    ("run --set signal.window=3", "run.signal_settings are of a rule"),
    # experiments
    ("run .", "'.' is not one; use --data for data"),
    ("run two.py", "'two.py' is not one; use --data for data and --policy for a policy"),
    ("run syntax.toml", "syntax.toml must be TOML: Expected ']' at the end of a table declaration "
     "(at line"),
    ("run deep.toml", "deep.toml must be TOML"),
    ("run table.toml", "polcy: an experiment has no such table (did you mean"),
    ("run key.toml", "data.intrval: no such key (did you mean 'interval'?)\nsweep.drws: no such"),
    ("run kind.toml", "run.compile: must be true or false, got 'yes'\nsweep.draws: must be a whol"),
    ("run settings.toml", "VolTarget.target must be a number, got [1]"),
    ("run quoted.toml", "VolTarget.target must be a number, got the text '2'; write 2 without"),
    ("run quoted_signal.toml", "Rsi.window must be a number, got the text '14'; write 14 without"),
    ("run nameless.toml", "policy.name: is needed"),
    ("run account.toml", "account.capital: must be over 0, got -3\naccount.bnd: "),
    ("run venue.toml", "venue.fees.takr: "),
    # policies
    ("run --policy vol-targt", "package.module:Class, got 'vol-targt' (did you"),
    ("run --policy raises.py", "raises.py:3 raised ZeroDivisionError"),
    ("run --policy leaves.py", "leaves.py:3 raised SystemExit"),
    ("run --policy range.py", "range.py:3: "),
    ("run --policy none.py", "none.py defines none; write class MyPolicy"),
    ("run --policy two.py", "two.py holds Mine, Other; name one: two.py:Mine"),
    ("run --policy two.py:Mne", "must be one of Mine, Other, got 'Mne' (did you mean 'Mine'?)"),
    ("run --policy 'Capped(Constant.__class__, cap=2)'", "written as calls of policies"),
    ("run --policy 'Capd(Constant())'", "got 'Capd' (did you mean 'capped'?)"),
    ("check table.toml --data x", "checked on its own data, got data.path"),
    ("run --policy a\0b", "arguments must be text in UTF-8 without NUL"),
    # comparisons
    ("compare", "a comparison needs two policies or more, got none"),
    ("compare --policy kelly --policy cppi --set leverage=2", "must name its policy"),
    ("compare --policy kelly --policy cppi --set x.leverage=2", "compare.policies.x must have"),
    # sets
    ("sweep --vary target", "--vary needs NAME=VALUE"),
    ("run --set run.allocate=equal", "run.allocate is for several instruments"),
    ("run --set run.carry_weights=true", "run.carry_weights needs run.weights"),
    ("run --set run.allocate_settings.window=5", "run.allocate_settings needs run.allocate"),
    ("sweep --vary target=1 --vary target=2", "--vary must have each entry once"),
    ("tune --constraints max_drawdown<=0.4 --constraints max_drawdown<=0.2",
     "--constraints must have each entry once, tune.constraints.max_drawdown was given twice"),
    ("sweep --vary target=0.1:1", "sweep.values.target must be LOW:HIGH:COUNT"),
    ("sweep --vary target=1,,2", "sweep.values.target must be values between commas"),
    ("sweep --vary target=1 --draws 3", "a sweep needs either values or draws, got both"),
    ("sweep --vary target=1 --seed 3", "--seed is only for sets that are drawn"),
    ("tune --holdout none --timing", "--timing tests the holdout"),
    ("tune --objective cagr --objective max_drawdown --timing", "and take no --timing"),
    ("sweep --objective sharpe=x", "a weight of an objective must be a number, got 'x' for sharpe"),
    ("sweep --constraints sharpe", "one bound for a measure"),
    ("sweep --set sweep.memory=much", "'much'"),
    ("tune --space target=1:0.1", "LOW <= HIGH"),
    ("tune --resume", "there is no study of VolTarget"),
    # risk and live accounts
    ("risk --model gbm --paths 5 --horizon 2h --drift up", "drift"),
    ("risk --model gbm --paths 5 --horizon 2h --funding fited", "did you mean 'fitted'"),
    ("risk --signal rsi", "signal must be a number on simulated paths"),
    ("risk --find-leverage 0.1 --set paths.bridge=4", "a new account, got paths.bridge"),
    ("stress --scenarios 2020-03-13", "did you mean '2020-03-12'"),
    ("stress --set stress.scenarios=[['2020-03-12']]", "stress.scenarios must be"),
    ("stress --ladder price=a:b:c", "stress.ladder.price must be LOW:HIGH:COUNT"),
    ("cascade --open-interest 1e9", "cascade.shock is needed"),
    ("cascade --shock -0.1 --open-interest 1e9 --impact cubic:1", "got 'cubic:1'"),
    ("cascade --shock -0.1 --open-interest 1e9 --leverage much", "got 'much'"),
    ("replay", "replay.fills is needed"),
    # calculators
    ("liq --side long", "Missing option '--entry'"),
    # venues
    ("venues x:Y", "known preset, got 'x'"),
    ("venues binance-usdm:BTCUSD", "'BTCUSD' (did you mean 'BTCUSDT'?)"),
    ("venues binance-usdm:BTCUSDT --at maybe", "'maybe'"),
    ("venues okx:BTC", "that okx has a table for"),
    # data
    ("run --from 2023-06-01 --to 2023-03-01", "the start must lie before the end"),
    ("data import bars.csv --out full", "a market is saved to a new or empty folder"),
    ("data import bars.csv --out x --repair srt", "did you mean 'sort'"),
    ("data import bars.csv --out x --from 2022", "must lie in the days of the bars"),
    ("data fetch A A --from 2024-01-01 --out x", "each symbol is fetched once"),
    ("data fetch BTCUSDT --from 2024-01-01 --interval 7m --out x", "interval must divide a day"),
    *((f"data fetch {request} --interval 1h --out x", words) for request, words in [
        ("BTCUSDT --from 2024-01-01T05:00", "start must be a midnight"),
        ("BTCUSDT --from 2024-01-01 --to 2023-12-01", "end must be after the start"),
        ("BTCUSDT --from 2024-01-01 --to 2199-01-01", "stored when it is over"),
        ("BTCUSDT --from 2024-01-01 --base-url ftp://x", "base_url must begin with http"),
        ("../../etc --from 2024-01-01", "symbol must have capital letters"),
    ]),
    # results
    ("results list --kind runs", "did you mean 'run'"),
    ("results show nothing", "no saved result is called 'nothing'"),
    ("results prune --yes", "needs a flag that chooses what to delete"),
    ("results prune --keep 1 --json", "--json has no prompt"),
    ("report", "name a saved result"),
    ("report x --all", "--all writes HTML of every result"),
    ("report --all --results nowhere", "must hold a result"),
    ("results list --where shrpe>1", "did you mean 'sharpe'"),
    ("results list --where sharpe>nan", "must be a number after <=, >=, ==, < or >"),
    ("regress check --update", "--update needs a --reason"),
    ("regress check --reason x", "it needs --update"),
]  # fmt: skip

CARRIED = (
    "values of longer bars hold from the close of theirs: stamp each row with that time, and give "
    "--set run.carry_weights=true"
)
UNKNOWN = "write 0 where it is unknown, which is flat"


@pytest.mark.parametrize(("cure", "named"), [
    ("venue.override({'funding_jitter': ...})", "--set venue.funding_jitter=..."),
    ("venue.override({'contract.settles': 'USDT'})", "--set venue.contract.settles=USDT"),
    ("venue.override(brackets=...) uses", "[[venue.brackets]] of an experiment file uses"),
    ("venue.override(brackets=[bt.Bracket(...)])", "[[venue.brackets]] of an experiment file"),
    ("market.between(end='2023-01-01')", "--to '2023-01-01'"),
    ("bt.Markets(..., currency='USDT')", "--set data.currency=USDT"),
    ("bt.OptionCosts(lot=)", "venue.option_costs.lot"),
    ("bt.Option(lot=) of one contract", "lot in its table of options.contracts"),
    ("bt.Markets({'long': market, 'short': market})", "--data long/ --data short/"),
    ("bt.Markets({name: Market.load(...), ...}) names them",
     "folders of different names name them"),
    ("AccountSnapshot(peak_equity=...)", '"peak_equity" in the JSON of the snapshot'),
    ("from_ccxt(..., total='wallet'), or 'equity'",
     '"total": "wallet" or "equity" in the JSON of the snapshot'),
    ("fill='next_open', or transfer=bt.Never()",
     "--set account.fill=next_open, or --set transfer.rule=never"),
    (CARRY_SERIES, CARRIED),
    (CARRY, CARRIED),
    ("np.clip(signal, -1, 1)", "--signal needs a column of such values"),
    ("flat where it is unknown: np.nan_to_num(signal)", UNKNOWN),
    ("flat where it is unknown: bt.signals.from_series(market, signal)", UNKNOWN),
])  # fmt: skip
def test_cures_in_python_are_flags_or_keys_of_an_experiment(cure, named):
    assert name_flags(f"; give {cure}", ["run"]) == f"; give {named}"


def test_cures_name_the_flags_of_commands():
    text = "since='2019', until='2024'; or mark_gaps='last'"
    named = "--from '2019', --to '2024'; or "
    assert name_flags("since and until must lie", ["run"]) == "--from and --to must lie"
    assert name_flags(text, ["run"]) == f"{named}--set data.mark_gaps=last"
    assert name_flags(text, ["data", "import"]) == f"{named}--repair mark-gaps=last"


def spoil(change) -> pd.DataFrame:
    """Return two days of bars with one fault."""
    frame = bt.Market.sample(bars=48).bars().rename_axis("time").reset_index()
    return change(frame)


@pytest.mark.parametrize("change", [
    lambda frame: frame.iloc[[0, 1, 1, *range(2, 48)]],
    lambda frame: frame.iloc[[0, 2, 1, *range(3, 48)]],
    lambda frame: frame.assign(low=frame["low"].where(frame.index != 9, 0.0)),
    lambda frame: frame.assign(close=frame["close"].where(frame.index != 9)),
    lambda frame: frame.assign(
        **dict.fromkeys(frame.columns[1:6], frame["open"].where(frame.index != 9))
    ),
    lambda frame: frame.drop(index=9),
    lambda frame: frame.rename(columns={"high": "low", "low": "high"}),
])  # fmt: skip
def test_an_import_names_its_own_flags_alone(tmp_path, capsys, change):
    """Its cures were those of Python: since= and until=, frame.dropna(...)."""
    spoil(change).to_csv(tmp_path / "bars.csv", index=False)
    words = ["data", "import", str(tmp_path / "bars.csv"), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert not re.search(r"frame[.\[]|since=|until=|repair=|columns=|interval=|sessions=", told), (
        told
    )
    assert re.search("--(repair|from|columns)", told), told


@pytest.mark.parametrize(("typed", "words"), REFUSED, ids=[typed for typed, _ in REFUSED])
def test_a_mistake_is_refused_in_one_sentence(capsys, folder, typed, words):
    for name, text in {
        "syntax.toml": "[account\n",
        "deep.toml": "x = " + "[" * 3_000,
        "table.toml": "[polcy]\nname = 'x'\n",
        "key.toml": "[data]\nintrval = '1h'\n[sweep]\ndrws = 3\n",
        "kind.toml": "[run]\ncompile = 'yes'\n[sweep]\ndraws = '3'\n",
        "settings.toml": "[policy]\nname = 'vol-target'\nsettings = {target = [1]}\n",
        "quoted.toml": "[policy]\nname = 'vol-target'\nsettings = {target = '2'}\n",
        "quoted_signal.toml": (
            "[run]\nsignal = 'rsi'\nsignal_settings = {window = '14'}\n"
            "[policy]\nname = 'constant'\n"
        ),
        "nameless.toml": "[policy]\nsettings = {target = 1}\n",
        "account.toml": "[account]\ncapital = -3\nbnd = 1\n",
        "venue.toml": "[venue]\npreset = 'binance-usdm:BTCUSDT'\nfees = {takr = 0.1}\n",
        "raises.py": "import backtest as bt\n\n1 / 0\n",
        "leaves.py": "import sys\n\nsys.exit(3)\n",
        "range.py": "import backtest as bt\n\nx = bt.Range(3, 1)\n",
        "none.py": "import backtest as bt\n",
        "two.py": MY_POLICY,
    }.items():
        (folder / name).write_text(text)

    own_files(folder, ("bars",))
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").touch()
    before = sorted(folder.rglob("*"))

    command, *rest = shlex.split(typed)
    plain = ["--no-compile"] if command in ("run", "sweep", "tune", "compare", "risk") else []
    code, out, err = call(capsys, command, *plain, *rest)

    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert "Traceback" not in err
    assert words in err

    after = [each for each in sorted(folder.rglob("*")) if "__pycache__" not in each.parts]
    assert after == before


@pytest.mark.parametrize("command", ["run --to 2023-01-03 --no-save", "compile", "results list"])
def test_an_unknown_way_to_compile_is_refused_wherever_it_is_read(command, capsys, monkeypatch):
    """Before: it was read only where something had to be compiled."""
    monkeypatch.setenv("BACKTEST_COMPILE", "never")
    code, out, err = call(capsys, *command.split())
    assert code == 2
    assert out == ""
    assert err == (
        "error: the environment variable BACKTEST_COMPILE must be one of auto, now, got 'never'\n"
    )
