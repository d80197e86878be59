"""``backtest compare``: which policies it takes, what it prints and saves, what it refuses."""

import json
from pathlib import Path

import pytest

import backtest as bt
from backtest.strategies import Constant, Cppi, VolTarget
from tests.kit import call

ROOT = Path(__file__).parents[2]
EXAMPLE = str(ROOT / "examples" / "btc-vol-target.toml")
SHORT = ("--to", "2023-02-05", "--set", "data.resample=4h", "--no-compile", "--draws", "99")
"""Five weeks in plain Python: nothing is compiled."""
TWO = ("--policy", "vol-target", "--policy", "constant")


def ask(capsys, *arguments):
    """Compare over five weeks, and return the JSON."""
    code, out, err = call(capsys, "compare", *arguments, *SHORT, "--json", "--no-save")
    assert code == 0, err
    return json.loads(out)


def texts(found):
    return {name: each["text"] for name, each in found["comparison"]["policies"].items()}


def write(folder, name, policy="constant", **tables):
    """Write an experiment of five weeks."""
    lines = [f'[policy]\nname = "{policy}"\n'] if policy else []
    lines += [f"[{table}]\n{content}\n" for table, content in tables.items()]
    (folder / name).write_text("\n".join(lines))


@pytest.mark.slow
def test_the_command_line_and_python_agree(capsys):
    found = ask(
        capsys, *TWO, "--set", "constant.leverage=2", "--baseline", "constant", "--seed", "3"
    )
    market = bt.Market.sample().between(None, "2023-02-05").resample("4h")
    venue = bt.Venue.preset("binance-usdm", "BTCUSDT")
    terms = {"venue": venue, "account": bt.Account(), "compile": False}
    policies = {"vol-target": VolTarget(), "constant": Constant(leverage=2.0)}
    results = {name: bt.run(market, each, **terms) for name, each in policies.items()}
    compared = bt.compare(results, baseline="constant", draws=99, seed=3)
    assert found["comparison"]["id"] == compared.manifest["id"]
    assert found["path"] is None
    assert [row["policy"] for row in found["table"]] == ["vol-target", "constant"]
    assert found["differences"][0]["against"] == "constant"
    assert found["differences"][0]["low"] == compared.differences["low"].iloc[0]


def test_policies_go_by_labels_and_have_settings_of_their_own(capsys):
    found = ask(
        capsys, "--policy", "calm=constant", "--policy", "bold=constant", "--policy", "cppi",
        "--set", "bold.leverage=2", "--set", "cppi.multiplier=5", "--set", "account.band=0.3",
    )  # fmt: skip
    assert texts(found) == {
        "calm": repr(Constant()),
        "bold": repr(Constant(leverage=2.0)),
        "cppi": repr(Cppi(multiplier=5.0)),
    }
    assert found["comparison"]["baseline"] == "calm"
    assert found["comparison"]["account"]["band"] == 0.3


@pytest.mark.slow
def test_a_table_says_it_all_and_flags_go_over_it(capsys, folder):
    write(
        folder, "c.toml", None, run="compile = false",
        compare='baseline = "bold"\nequal_risk = true\nseed = 7\nconfidence = 0.9\ndraws = 150',
        **{"compare.policies.calm": 'name = "constant"',
           "compare.policies.bold": 'name = "constant"\nsettings = {leverage = 2}'},
    )  # fmt: skip
    flags = ("--to", "2023-02-05", "--set", "data.resample=4h", "--json", "--no-save")
    code, out, err = call(capsys, "compare", "c.toml", *flags, "--set", "calm.leverage=0.5")
    assert code == 0, err
    facts = json.loads(out)["comparison"]
    kept = {name: facts[name] for name in ("baseline", "equal_risk", "seed", "confidence", "draws")}
    assert kept == {
        "baseline": "bold", "equal_risk": True, "seed": 7, "confidence": 0.9, "draws": 150,
    }  # fmt: skip
    assert {name: each["text"] for name, each in facts["policies"].items()} == {
        "calm": "Constant(leverage=0.5)",
        "bold": "Constant(leverage=2.0)",
    }


@pytest.mark.slow
def test_files_that_differ_in_more_than_their_policy_are_refused(capsys, folder):
    write(folder, "a.toml", account="capital = 700", data='to = "2023-02-05"')
    write(folder, "b.toml", "cppi", account="band = 0.1", run="signal = -1",
          data='to = "2023-02-06"', venue="fees = {taker = 0.001, maker = 0.0}")  # fmt: skip
    code, _, err = call(capsys, "compare", "a.toml", "b.toml", "--no-compile", "--draws", "99")
    assert code == 2
    assert "differs from" in err
    shared = (
        "--capital",
        "700",
        "--set",
        "account.band=0",
        "--signal",
        "1",
        "--venue",
        "binance-usdm:BTCUSDT",
    )
    assert texts(ask(capsys, "a.toml", "b.toml", *shared))["b"].startswith("Cppi(")
