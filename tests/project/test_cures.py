"""A cure is tried before it is printed: every message that holds code or a command is listed.

A scan of the package finds the messages. Each has a row: words of it, what raises it, and the cure
as it prints it. The cure is run, with ``...`` and names in capitals filled in, on the input that
raised it; what makes a signal of longer bars is also checked for look-ahead.
"""

import ast
import functools
import json
import re
import shlex
import warnings
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.cli import main
from backtest.strategies import Constant, VolTarget
from tests.cli.test_books import FILE
from tests.options.listed_markets import make_surfaces
from tests.venue.test_listing import DAY, PNUT, TIERS

ROOT = Path(bt.__file__).parent
CODE = re.compile(r"`|\bbt\.|\bbacktest [a-z{]")


@functools.cache
def find_messages() -> dict[str, str]:
    """Return the texts of the package, without docstrings, that hold code, by file and line."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        said: set[int] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):  # parents come first
            if isinstance(node, ast.Expr):
                said.add(id(node.value))
            elif isinstance(node, ast.JoinedStr):
                said |= {*map(id, node.values)}
            elif not isinstance(node, ast.Constant):
                continue

            text = "" if id(node) in said else write_text(node)
            if " " in text.strip() and CODE.search(text):
                found[f"{path.relative_to(ROOT)}:{node.lineno}"] = text
    return found


def write_text(node: Any) -> str:
    """Return a constant text, or an f-string with {} for its values."""
    if isinstance(node, ast.JoinedStr):
        return "".join(write_text(part) or "{}" for part in node.values)
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text else ""


class Row(NamedTuple):
    """Code that raises a message with some words, the cure in it, and the cure filled in."""

    words: str
    cause: str
    cure: str = ""
    filled: str = ""


def sample(bars: int = 48, seed: int = 0) -> bt.Market:
    return bt.Market.sample(bars=bars, seed=seed)


MARKET, OTHER = sample(24 * 12), sample(24 * 12, 1)
MARKETS = bt.Markets({"A": MARKET, "B": OTHER})
VENUE = bt.Venue.preset("binance-usdm", "BTCUSDT")
CALL = bt.Option(kind="call", strike=3e4, expiry="2023-03-31", underlying="BTC")


def live(market: Any = MARKET, policy: Any = None, **terms: Any) -> bt.Result:
    given: dict[str, Any] = {"venue": VENUE, "account": bt.Account(), "compile": False, **terms}
    return bt.run(market, policy or Constant(1.0), **given)


def build_test(**terms: Any) -> bt.Backtest:
    return bt.Backtest(MARKET, venue=VENUE, account=bt.Account(**terms))


def cli(text: str) -> None:
    main(shlex.split(text))


def daily(market: bt.Market) -> pd.Series:
    return np.sign(market.bars()["close"].resample("1D").last().pct_change().dropna())


PLAIN = bt.Venue.simple(
    taker=0, slippage=0, maintenance_rate=0.01, max_leverage=9, liquidation_fee=0
)
SPOT = PLAIN.override({
    "contract": bt.Contract(kind="spot", haircut=0.05, borrow_rate=0.08),
    "brackets": [bt.Bracket(0.0, np.inf, 3.0, 0.0)],
})  # fmt: skip
NAMES = {
    "bt": bt, "np": np, "pd": pd, "Annotated": Annotated, "market": MARKET, "other": OTHER,
    "markets": MARKETS, "bars": MARKET.bars(), "signal": daily(MARKET), "live": live, "cli": cli,
    "frame": daily(MARKET).to_frame("A"), "VENUE": VENUE, "CALL": CALL, "Constant": Constant,
    "VolTarget": VolTarget, "test": build_test, "surfaces": make_surfaces, "SPOT": SPOT,
    "PLAIN": PLAIN,
}  # fmt: skip

BOOK = "bt.Accounts({'cex': test(), 'dex': test()}, transfer=bt.Never())"
READ = f"backtest venues read tiers.json --symbol {PNUT} --like binance-usdm --at {DAY}"
HELD = "bt.signals.from_{}(market{}, {}.shift(1), carry=True)"
ROWS = [
    Row("an account has one net position", "bt.Account(hedge_mode=True)",
        "bt.Markets({'long': market, 'short': market})"),
    Row("`backtest policies` lists them", "cli('run --policy nope')", "backtest policies"),
    Row("defines none; write class MyPolicy", "cli('run --policy none.py')",
        "class MyPolicy(bt.Policy)",
        "class MyPolicy(bt.Policy):\n    def leverage(self, bar, account): return 1.0"),
    Row("a comparison needs two policies", "cli('compare --policy vol-target')",
        "backtest policies"),
    Row("decide.snapshot is needed", "cli('decide')", "bt.AccountSnapshot"),
    Row("name a saved result, which", "cli('report')", "backtest results list"),
    Row("cannot read the result", "cli('results show bad')", "backtest results verify bad"),
    Row("not readable (see", "cli('results list')", "backtest results verify"),
    Row("an experiment has one baseline", "cli('regress record e.toml --out kept')",
        "backtest regress check kept --update --reason '...'"),
    Row("there is no baseline at", "cli('regress check baselines')",
        "backtest regress record EXPERIMENT --out FOLDER",
        "backtest regress record e.toml --out new"),
    Row("results must be two or more", "bt.compare({})",
        "{'calm': bt.run(...), 'bold': bt.run(...)}",
        "bt.compare({'calm': live(), 'bold': live()}, draws=99)"),
    Row("a volatility needs 3 bars", "bt.SquareRoot(1.0).curve(1e9, bt.Market.sample(bars=2), "
        "bt.Contract())", "bt.SquareRoot(1.0, volatility=0.03)"),
    Row("no mark prices: liquidations are", "live(bt.Market.from_frames(bars))",
        "bt.Market.from_frames(bars, mark=...)",
        "live(bt.Market.from_frames(bars, mark=market.mark()))"),
    Row("from_series(market, signal.shift(1), carry=True)", "live(signal=signal)",
        HELD.format("series", "", "signal"), f"live(signal={HELD.format('series', '', 'signal')})"),
    Row("; flat where it is unknown", "signal = signal.reindex(market.times).iloc[3:].fillna(1)\n"
        "live(signal=signal)", "bt.signals.from_series(market, signal)",
        "live(signal=bt.signals.from_series(market, signal))"),
    Row("from_frame(markets, frame.shift(1), carry=True)", "live(markets, signal=frame)",
        HELD.format("frame", "s", "frame"),
        f"live(markets, signal={HELD.format('frame', 's', 'frame')})"),
    Row("fills must have the columns", "bt.Backtest(market, venue=VENUE, account=bt.Account())"
        ".replay(pd.DataFrame({'x': [1]}))", "bt.read_fills"),
    Row("each market must have a name of its own", "bt.Markets.load('a/btc', 'b/btc')",
        "bt.Markets({name: Market.load(...), ...})",
        "bt.Markets({name: bt.Market.load(f'{name}/btc') for name in 'ab'})"),
    Row("venue must be of each instrument", "book = bt.Markets({'BTCUSDT': market, 'ETHUSDT': "
        "other})\nlive(book, venue='binance-usdm')", "bt.Venue.preset('binance-usdm', ['BTCUSDT', "
        "'ETHUSDT'])", "live(book, venue=bt.Venue.preset('binance-usdm', [*book]))"),
    Row("markets must be a Markets", "bt.allocate.equal(market)",
        'bt.Markets({"BTCUSDT": market, "ETHUSDT": other})'),
    Row("one column of times is needed", "cli('data import timeless.csv --out t')",
        "backtest data import --columns time=NAME,open=...",
        "backtest data import timeless.csv --timezone UTC --out t --columns "
        "time=day,open=open,high=high,low=low,close=close,volume=volume"),
    Row("a policy must not define __init__", "class P(bt.Policy):\n    def __init__(self): pass",
        "window: Annotated[int, bt.Range(1, 1000, 'bars')] = 24",
        "class P(bt.Policy):\n    window: Annotated[int, bt.Range(1, 1000, 'bars')] = 24"),
    Row("a parameter needs a type and a range", "class P(bt.Policy):\n    x: float = 1.0\n"
        "P.parameters()", "x: Annotated[float, bt.Range(low, high)]",
        "class P(bt.Policy):\n    x: Annotated[float, bt.Range(0, 2)] = 1.0\nP.parameters()"),
    Row("model must be a model of bt.paths", "bt.simulate_paths(market, 'nope')", "bt.paths",
        "bt.simulate_paths(market, bt.paths.GBM(volatility=0.5), paths=2, horizon='1d')"),
    Row("robust must be True, False", "bt.Backtest(market, venue=VENUE, account=bt.Account())"
        ".tune(VolTarget, space={'target': (0.1, 1.0)}, robust=2)", "bt.Robustness",
        "bt.Robustness()"),
    Row("contract.kind must be margined", "bt.margin.liquidation_price(SPOT, 1.0, 3e4, 1e3)",
        "bt.calculate_book"),
    Row("a preset is a venue, a colon", "live(venue='nope')", "'backtest venues' lists them",
        "backtest venues"),
    Row("symbol must be one that", "bt.Venue.preset('binance-usdm', 'NOPEUSDT')",
        "'backtest venues' lists them", "backtest venues"),
    Row("must have the methods requirement", "bt.Account(requirement=3)", "bt.Brackets()"),
    Row("must be a mapping of instruments", "bt.Markets({'A': market}, surfaces=3)",
        "bt.Surfaces"),
    Row("a deposit is of options", "bt.margin.strategy_deposit({}, {}, {}, options=[])",
        "bt.Strategy"),
    Row("or a list of them", "bt.margin.strategy_deposit({}, {}, {}, options=3)",
        "bt.OptionPosition"),
    Row("need venue.option_costs", "live(bt.Markets({'BTC': market, 'C': CALL}, surfaces={'BTC': "
        "surfaces(['2023-01-01'])}), venue=PLAIN)",
        "bt.OptionCosts(fee=, fee_cap=, delivery_fee=, delivery_cap=, tick=)",
        "bt.OptionCosts(fee=0, fee_cap=0.1, delivery_fee=0, delivery_cap=0.1, tick=0.1)"),
    Row("its columns were not known yet", "class Late(bt.Policy):\n"
        "    def observe(self, market):\n"
        "        return {'x': np.where(market.times < '2023-01-10', np.nan, 1.0)}\n"
        "    def leverage(self, bar, account):\n        return bar.x\n"
        "print(live(policy=Late()).summary())", "bt.run(start=...)", "live(start='2023-01-11')"),
    Row("accounts must be two tests or more", "bt.Accounts({}, transfer=bt.Never())",
        "{'cex': bt.Backtest(...), 'dex': bt.Backtest(...)}",
        "bt.Accounts({'cex': test(), 'dex': test()}, transfer=bt.Never())"),
    Row(" must be a bt.Backtest, got", "bt.Accounts({'cex': test(), 'dex': market}, "
        "transfer=bt.Never())", "a bt.Backtest",
        "bt.Accounts({'cex': test(), 'dex': test()}, transfer=bt.Never())"),
    Row("rules must be transfer rules by name", f"{BOOK}.compare(3, Constant(1.0))",
        "{'never': bt.Never()}",
        f"{BOOK}.compare({{'never': bt.Never()}}, Constant(1.0), compile=False)"),
    Row("must not be 'same_close' where money moves", "bt.Accounts({'cex': test(), 'dex': "
        "test(fill='same_close')}, transfer=bt.TopUp(0.5, 0.2))", "fill='next_open'",
        "bt.Accounts({'cex': test(), 'dex': test(fill='next_open')}, "
        "transfer=bt.TopUp(0.5, 0.2))"),
    Row("`backtest venues read` needs", "cli('venues read')",
        "backtest venues read tiers.json --symbol BTC/USDT:USDT", READ),
    Row("belongs to `backtest venues read`", "cli('venues binance-usdm:BTCUSDT --symbol BTC')",
        "backtest venues read", READ),
    Row("several accounts are run by", "cli('sweep accounts.toml')", "`backtest run`",
        "backtest run accounts.toml --no-save"),
]  # fmt: skip
SEEN_BY = {
    "needs bt.Brackets(): under another rule": "account/test_several.py",
    "other options and": "cli/test_cli_sets.py",
    "must hold whole lots, of": "cli/test_cli_data.py",
    "must be 0 with": "test_bad_values.py",
    " is a method: bt.Backtest(market, ...).": "engine/test_backtest.py",
    "bt.Backtest.of(result).replace(market=": "engine/test_backtest.py",
    "compiling the engine once on this": "account/test_compiled.py",
    "bt.Range(low, high)] =": "engine/test_contract.py",
    "must be a subclass of": "engine/test_contract.py",
    "surfaces must include": "options/test_options_in_runs.py",
    "trade options, got": "risk/test_liquidation_risk.py",
    "open_interest must be given where": "crowd/test_cascades.py",
    "no prices of options, got": "risk/test_liquidation_risk.py",
    "an account with limit orders: pass detail=": "risk/test_variations.py",
    "options need portfolio": "venue/test_margin_rules.py",
    "needs the volatility": "venue/test_margin_rules.py",
    "must be a rule of bt.margin_rules": "venue/test_margin_by_rule.py",
    "must be of volatility": "risk/test_margin_systems.py",
    "must be the ledger of": "live/test_shadow.py",
    "begins it with that fill": "live/test_shadow.py",
    "beside the bars of": "cli/test_venue_listing.py",
    "backtest data fetch --with metrics": "features/test_flows.py",
    "backtest data fetch --with premium": "features/test_flows.py",
    "must be a notional, ": "venue/test_listing.py",
    "--venue file:LISTING.json": "live/test_decide.py",
    "`backtest risk --find-leverage 0.01`, on": "judgement/test_next_step.py",
    "by `backtest compare`": "judgement/test_next_step.py",
    "`backtest decide` prints": "judgement/test_next_step.py",
    "backtest risk --policy constant": "judgement/test_next_step.py",
    "`result.measures_by()` has": "report/test_report.py",
    "`result.trades` has": "report/test_report.py",
}
"""Words of messages whose input is long or compiles, and the test that raises each."""
UNTRIED = (
    "a loaded result does not hold", "a list needs its length, and nothing else has one",
    "give bt.Markets({'BTC': market", "for options settled in coins", "needs a spread in volatil",
    "trades options must not be combined", "settles at a mark price of its underlying",
    "a snapshot must have a surface", "a market must be in the currency",
    "gave other numbers before", "A sweep has no holdout",     "every set failed in a group",
    "groups of instruments may be named", "unfinished writes",
)  # fmt: skip
"""Messages whose names and commands alone are checked."""
NOT_RAISED = (
    "backtest {}", "\n    backtest ", "backtest data import --repair \\1", "or TABLE.KEY=VALUE",
    "backtest data import --columns \\1high", "backtest data import --interval 1h",
    "as --snapshot of",
    "[bold]Examples[/bold]", "\nbacktest run {}",     "probability of backtest overfitting",
)  # fmt: skip
"""Words of docstrings, help and names, whose commands :mod:`tests.project.test_pages` reads."""


def hear(code: str, names: dict[str, Any], capsys: Any) -> str:
    """Run code; return what it raises, warns of and prints."""
    error = ""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            exec(code, names)
        except bt.BacktestError as raised:
            error = f"error: {raised}"
    printed = capsys.readouterr()
    warned = [str(warning.message) for warning in caught]
    told = " ".join([error, *warned, printed.out, printed.err])
    return re.sub(r"\s+", " ", told)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with files for the commands of rows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none.py").write_text("import backtest as bt\n")
    (tmp_path / "tiers.json").write_text(json.dumps(TIERS), encoding="utf-8")
    (tmp_path / "accounts.toml").write_text(FILE, encoding="utf-8")
    (tmp_path / "e.toml").write_text("[data]\npath = 'sample'\nto = 2023-01-03\n")
    MARKET.bars().rename_axis("day").reset_index().to_csv("timeless.csv", index=False)
    for name in "ab":
        OTHER.save(f"{name}/btc")

    bad = tmp_path / "results" / "bad"
    bad.mkdir(parents=True)
    (bad / "manifest.json").write_text("{}")


@pytest.mark.parametrize("row", [
    pytest.param(
        row, id=row.words[:30],
        marks=[pytest.mark.slow] * row.words.startswith(("an experiment has", "model must")),
    )
    for row in ROWS
])  # fmt: skip
def test_a_cure_works_on_what_raised_it(row, desk, capsys):
    names = dict(NAMES)
    if "one baseline" in row.words:
        cli("regress record e.toml --out kept")

    told = hear(row.cause, names, capsys)
    assert row.words in told, told
    assert row.cure in told, told

    filled = row.filled or row.cure
    if filled.startswith("backtest "):
        assert main(shlex.split(filled)[1:]) in (0, 1), capsys.readouterr().err
    else:
        again = hear(filled, names, capsys)
        assert "error: " not in again, again
        assert row.words not in again, again


@pytest.mark.slow
def test_every_message_with_code_is_listed():
    listed = [*(row.words for row in ROWS), *SEEN_BY, *UNTRIED, *NOT_RAISED]
    found = find_messages()

    def is_listed(text: str) -> bool:
        return any(words in text for words in listed)

    unlisted = {place: text for place, text in found.items() if not is_listed(text)}
    assert not unlisted

    gone = [words for words in listed if not any(words in text for text in found.values())]
    assert not gone


@pytest.mark.parametrize("words", SEEN_BY)
def test_a_message_of_a_long_input_is_raised_by_a_test(words):
    text = (Path(__file__).parents[1] / SEEN_BY[words]).read_text(encoding="utf-8")
    assert words in re.sub(r'"\s+f?"', "", text)


@pytest.mark.slow
def test_the_names_and_commands_of_messages_exist(capsys):
    for place, text in find_messages().items():
        for name in re.findall(r"\bbt((?:\.\w+)+)", text):
            value: Any = bt
            for part in name.split(".")[1:]:
                assert hasattr(value, part), (place, name)
                value = getattr(value, part)

        commands = re.findall(
            r"(?<!probability of )\bbacktest ((?:data|results|regress|options) \w+|[a-z]+)", text
        )
        for command in commands:
            assert main([*command.split(), "--help"]) == 0, (place, command)


@pytest.mark.parametrize("code", [row.cure for row in ROWS if ".shift(1)" in row.cure])
def test_a_cure_that_makes_a_signal_does_not_look_ahead(code):
    def hold(seen: Any) -> Any:
        if isinstance(seen, bt.Markets):
            frame = pd.concat({name: daily(market) for name, market in seen.items()}, axis=1)
            return eval(code, {"bt": bt, "markets": seen, "frame": frame})
        return eval(code, {"bt": bt, "market": seen, "signal": daily(seen)})

    given: Any = MARKETS if "markets" in code else MARKET
    assert bt.signals.from_function(given, hold).abs().to_numpy().any()
