"""``backtest run`` of several accounts in a file."""

import json

import pytest

import backtest as bt
from tests.kit import ask, call

FILE = """
[data]
path = "sample"
to = 2023-01-06

[policy]
name = "constant"
settings = { leverage = 6 }

[accounts.cex.account]
capital = 6_000

[accounts.dex.account]
capital = 4_000

[accounts.dex.run]
signal = -1.0

[run]
compile = false

[transfer]
rule = "keep-shares"
every = "1h"
delay = "30min"
fee = 5.0

[transfer.settings]
band = 0.05
shares = { cex = 0.6, dex = 0.4 }
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "desk.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_a_file_of_several_accounts_runs_as_they_do_in_python(file, tmp_path, capsys):
    data = ask(capsys, "run", file, "--results", tmp_path / "results")
    assert data["settings"]["transfer"] == "KeepShares(shares={'cex': 0.6, 'dex': 0.4}, band=0.05)"

    market = bt.Market.sample().slice(None, "2023-01-06")
    test = bt.Backtest(market, venue="binance-usdm:BTCUSDT", account=bt.Account(capital=6e3))
    short = test.replace(account=bt.Account(capital=4e3), signal=-1.0)
    rule = bt.KeepShares({"cex": 0.6, "dex": 0.4}, band=0.05)

    book = bt.Accounts(
        {"cex": test, "dex": short}, transfer=rule, every="1h", delay="30min", fee=5.0
    ).run(bt.strategies.Constant(leverage=6.0), compile=False)
    assert len(book.transfers) > 0

    loaded = bt.AccountsResult.load(data["path"])
    assert loaded.bars["equity"].tolist() == book.bars["equity"].tolist()
    assert json.loads(json.dumps(data["transfers"])) == data["transfers"]


REFUSED = [
    (["--set", "transfer.delay=-1h"], "delay must be a duration"),
    (["--set", "transfer.rule=topup"], "did you mean 'top-up'?"),
    (["--set", "transfer.evry=1h"], "transfer.evry: no such key"),
    (["--set", "transfer.settings.shares.spot=1"], "together"),
    (["--set", "accounts.cex.account.capital=-3"], "accounts.cex: account.capital"),
    (["--capital", "500"], "give --set accounts.cex.account.capital=VALUE"),
]


@pytest.mark.parametrize(("flags", "words"), REFUSED, ids=range(len(REFUSED)))
def test_what_makes_no_sense_is_refused_with_its_place(flags, words, file, capsys):
    code, _, err = call(capsys, "run", file, "--no-save", *flags)
    assert code == 2
    assert words in err


def test_other_commands_refuse_several_accounts(file, capsys):
    code, _, err = call(capsys, "tune", file, "--no-save")
    assert code == 2
    assert "accounts: several accounts are run by `backtest run`" in err


def test_a_page_has_the_command_that_made_the_accounts(file, tmp_path, capsys):
    page = tmp_path / "page.md"
    data = ask(capsys, "run", file, "--results", tmp_path / "results", "--report", page)
    text = page.read_text("utf-8")
    assert f"backtest run {file}" in text
    assert "made in Python" not in text

    making = json.loads((tmp_path / "results" / data["path"] / "provenance.json").read_text())
    assert making["made"]["argv"][:2] == ["backtest", "run"]
    assert making["made"]["seconds"] > 0.0


def test_a_page_of_a_result_without_seconds_has_its_command(tmp_path, capsys):
    page = tmp_path / "page.md"
    words = ("stress", "--policy", "constant", "--data", "sample", "--to", "2023-01-06")
    ask(capsys, *words, "--no-save", "--report", page)
    text = page.read_text("utf-8")
    assert "backtest stress --policy constant" in text
    assert "made in Python" not in text
