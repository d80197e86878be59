"""True figures of the benchmark of validations equal closed forms and real accounts."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import backtest as bt

PATH = Path(__file__).parents[2] / "benchmarks" / "known_truth.py"


@pytest.fixture(scope="module")
def truth():
    spec = importlib.util.spec_from_file_location("known_truth", PATH)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "known_truth", module)  # its annotations are read by name
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("leverage", [0.1, 0.5, 1.0, 2.0])
def test_a_constant_leverage_grows_as_the_closed_form_says(truth, leverage):
    """Drift 0.2, volatility 0.6: 1x gives 0.2 - 0.18 = 0.02 per year, 2x gives 0.4 - 0.72."""
    returns = truth.draw_long("gbm")[1]
    growth = float(np.log1p(leverage * returns).mean()) * 365
    assert growth == pytest.approx(0.2 * leverage - 0.18 * leverage**2, abs=0.006)
    assert truth.gbm_growth(leverage) == pytest.approx(0.2 * leverage - 0.18 * leverage**2)
    assert returns.mean() / returns.std() * np.sqrt(365) == pytest.approx(1 / 3, abs=0.005)


def test_an_account_gains_size_times_h_times_r_in_a_day(truth):
    """The true figures take this for granted: h = 1 after a rise over the window, else 1/2."""
    market = truth.simulate("gbm", 300, np.random.default_rng(3))
    policy = truth.Lever(size=2.0, window=20)
    account = bt.run(market, policy, **truth.FREE, compile=False)
    close = market.close
    is_up = np.append(np.zeros(20, dtype=bool), close[20:] > close[:-20])
    moves = np.where(is_up, 2.0, 1.0)[:-1] * (close[1:] / close[:-1] - 1.0)
    assert account.metrics["total_return"] == pytest.approx(np.prod(1.0 + moves) - 1.0, rel=1e-9)
