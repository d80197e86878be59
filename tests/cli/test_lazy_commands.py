"""Each command is imported when it is used, and its help fits a screen or two."""

import pytest

from backtest.cli.app import MODULES
from tests.kit import call, run_python


@pytest.mark.parametrize("name", MODULES)
def test_each_command_has_help_with_examples(capsys, name):
    code, out, _ = call(capsys, name, "--help")
    assert code == 0
    assert f"Usage: backtest {name}" in out
    assert "Examples" in out or name == "validate"


def test_the_help_of_a_run_and_of_a_search_is_short(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert len(call(capsys, "run", "--help")[1].splitlines()) <= 45
    assert len(call(capsys, "tune", "--help")[1].splitlines()) <= 60


def test_help_lists_every_key_of_a_table(capsys):
    assert {"tune", "venue", "account"} <= {*call(capsys, "help")[1].split()}
    for table, keys in (
        ("account", ("stop_loss", "max_holding", "trailing_stop")),
        ("venue", ("preset", "fees.taker", "slippage.impact")),
        ("tune", ("sampler", "robust")),
    ):
        out = call(capsys, "help", table)[1]
        assert all(f"\n{key} " in out for key in keys)
    code, _, err = call(capsys, "help", "acount")
    assert code == 2
    assert "did you mean 'account'?" in err


def test_only_the_module_of_the_typed_command_is_imported():
    code = "import sys; from backtest.cli import main; main(['venues']); print(*sys.modules)"
    loaded = run_python(code).splitlines()[-1].split()
    assert "backtest.cli.venues" in loaded
    assert not {"backtest.cli.searches", "backtest.cli.regress"} & {*loaded}
