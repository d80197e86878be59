"""Known results come out of our own runs, in the small; ``benchmarks/replications`` prints all.

A tolerance is what each file derives from standard errors, or from the rounding of what is printed.
"""

import math
from pathlib import Path
from typing import Any

import cppi_gap
import daily_funds
import grossman_zhou
import kelly_growth
import leveraged_funds
import moreira_muir
import moreira_muir_factors
import numpy as np
import pytest
import real_time_scale
import rebalancing_flows
import thorp_ruin
import volatility_targeting
from comparison import Row
from paths import Jumps, jump_walk, market_of, mirrored_walks

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
FACTORS = DATA / "fama-french" / "F-F_Research_Data_Factors_daily_192607-202111.CSV"
BITCOIN = DATA / "btc-usdm-1h"


def needs(path: Path) -> tuple[pytest.MarkDecorator, ...]:
    reason = f"needs {path.name} in ../shared/data"
    return pytest.mark.slow, pytest.mark.skipif(not path.exists(), reason=reason)


AFTER = "drawdown, after {} years, %, paper 68 to 93"
REPLICATIONS: dict[str, tuple[Any, dict[str, tuple[float, float]], Any]] = {
    # Table 1, market: alpha 4.86 (+-0.20), beta 0.61, R^2 0.37 (+-0.02), N 1065; ours is 4.87. The
    # same data in another vintage: the first three agree to the digits printed but for the last.
    "Moreira and Muir": (lambda: moreira_muir.replicate(FACTORS),
     {"Table 1: alpha": (4.86, 0.05), "Table 1: beta": (0.61, 0.005),
      "Table 1: R^2": (0.37, 0.005)}, needs(FACTORS)),
    # Table 2, FF3: alpha 4.99 (1.00), R^2 0.22, rmse 34.50; ours is 4.87 (1.01), 0.215, 35.1: one
    # account of three positions, whose leverage is that of the last month's variance
    "Moreira and Muir, three factors": (lambda: moreira_muir_factors.replicate(FACTORS),
     {"Table 2, FF3: alpha": (4.872, 0.005), "Table 2, FF3: rmse": (35.08, 0.05)}, needs(FACTORS)),
    # 2x and 3x the market since 1990, free and financed at 5 %, to 1e-9 at every close
    "daily funds": (lambda: daily_funds.replicate(FACTORS),
     {"3x, financed at 5%, growth a year": (0.1130, 1e-4)}, needs(FACTORS)),
    # a fund is its multiple less (L^2 - L) / 2 of the variance, whatever it pays besides
    "Avellaneda and Zhang": (lambda: leveraged_funds.replicate(years=5), {}, pytest.mark.slow),
    # half of Kelly grows by three quarters of the full rate, twice of it by nothing
    "Thorp": (lambda: kelly_growth.replicate(years=4), {}, pytest.mark.slow),
    # at 2.25 Kelly one walk of 60 years ends at 1e-9 of its capital: -0.35, the formula -0.56
    "Thorp, sixty years, not cut by ruin": (kelly_growth.replicate,
     {"growth at 2.25 Kelly / full": (-0.5625, 0.02)}, pytest.mark.slow),
    # wealth ever falls to half of its start with probability 1/2 at full Kelly
    "Thorp, ruin": (lambda: thorp_ruin.replicate(walks=60, years=3), {}, pytest.mark.slow),
    # without the months ahead the scale brings a fall of 68 to 93 %, unless it learns for long
    "Liu, Tang and Zhou": (lambda: real_time_scale.replicate(FACTORS),
     {AFTER.format(5): (80.5, 12.5), AFTER.format(10): (80.5, 12.5), AFTER.format(20): (60.7, 0.1)},
     needs(FACTORS)),
    # Sharpe ratio 0.40 to between 0.48 and 0.51, R^2 0.73; ours is 0.41, 0.49 to 0.50, 0.74
    "Harvey and others": (lambda: volatility_targeting.replicate(FACTORS),
     {"R^2, 20 days": (0.737, 0.001)}, needs(FACTORS)),
    # a gap's probability and size are those of the jumps that are worse than -1/m
    "Cont and Tankov": (lambda: cppi_gap.replicate(paths=300), {}, pytest.mark.slow),
    # growth under a drawdown limit is 1 - alpha of what it is without, and the limit holds
    "Grossman and Zhou": (lambda: grossman_zhou.replicate(years=8), {}, pytest.mark.slow),
    # a fund trades A L (L - 1) r at the close, whichever its sign
    "Cheng and Madhavan": (lambda: rebalancing_flows.replicate(days=60), {}, ()),
}  # fmt: skip


def replicate(rows: list[Row]) -> dict[str, Row]:
    """Fail on every row outside its tolerance; return the rows by name."""
    wrong = [row for row in rows if not row.agrees]
    assert not wrong, "\n".join(map(str, wrong))
    assert all(math.isfinite(row.ours) for row in rows)
    return {row.name: row for row in rows}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=marks) for name, (*_, marks) in REPLICATIONS.items()]
)
def test_what_was_published_comes_out(name):
    run, expected, _ = REPLICATIONS[name]
    rows = replicate(run())
    for row, (value, most) in expected.items():
        assert rows[row].ours == pytest.approx(value, abs=most)
    if name == "Moreira and Muir":
        assert sum(not math.isnan(row.tolerance) for row in rows.values()) == 21
    if name == "Avellaneda and Zhang":
        assert rows["3x"].tolerance < 0.01 * abs(rows["3x"].ours)
    if name == "Thorp":
        assert rows["growth at 0.5 Kelly / full"].tolerance < 0.01


@pytest.mark.slow
@pytest.mark.skipif(not BITCOIN.is_dir(), reason="needs btc-usdm-1h in ../shared/data")
def test_avellaneda_and_zhang_on_real_prices():
    """Over quarters of 2020 to 2023 the formula errs by less than a tenth of the drag it explains.

    But for 2x rebalanced daily, whose error is one day: 12 March 2020, a fall of 39 %.
    """
    rows = replicate(leveraged_funds.replicate(years=1, folder=str(BITCOIN)))
    for turns in (2.0, 3.0, -1.0, -2.0):
        name = f"{turns:g}x hourly on real prices"
        drag = rows[f"{name}, mean drag a quarter"].ours
        assert abs(rows[f"{name}, mean error of the formula"].ours) < 0.1 * drag


def test_the_gap_rate_is_that_of_the_jumps_drawn():
    """Share of jumps worse than -1/m among 400,000 drawn, within three standard errors."""
    jumps = Jumps(rate=1.0, down=0.5, mean_down=0.05, mean_up=0.04)
    rng = np.random.default_rng(1)
    down = rng.random(400_000) < jumps.down
    size = np.where(down, np.expm1(-rng.exponential(0.05, 400_000)), 0.0)
    for m in (4.0, 8.0):
        rate = cppi_gap.gap_rate(m, jumps)
        assert np.mean(size < -1.0 / m) == pytest.approx(rate, abs=3 * math.sqrt(rate / 400_000))
        worse = -(1.0 + m * size[size < -1.0 / m])
        mean = (m - 1.0) * 0.05 / 1.05
        assert worse.mean() == pytest.approx(mean, abs=3 * worse.std() / math.sqrt(len(worse)))


def test_the_shortfall_of_a_moment_is_the_gap_times_its_rate():
    for order, mean in ((1, 5.0 * (1 - 1 / 1.05)), (2, 25.0 * (1 - 2 / 1.05 + 1 / 1.1))):
        rate = cppi_gap.gap_rate(6.0, cppi_gap.JUMPS)
        short = cppi_gap.shortfall_moment(6.0, cppi_gap.JUMPS, 1e-6, order)
        assert short == pytest.approx(1e-6 * rate * mean, rel=1e-4)


def test_the_cushion_grows_as_its_jumps_on_average():
    """Mean of (1 + m Z) and of its square over jumps that are no gaps, within three errors."""
    jumps, m, n = cppi_gap.JUMPS, 6.0, 400_000
    rng = np.random.default_rng(2)
    logs = np.where(rng.random(n) < jumps.down, -rng.exponential(0.05, n), rng.exponential(0.04, n))
    factor = 1.0 + m * np.expm1(logs)
    kept = factor > 0.0
    for order in (1, 2):
        smooth = order * m * cppi_gap.MU + 0.5 * order * (order - 1) * (m * cppi_gap.SIGMA) ** 2
        values = np.where(kept, factor**order - 1.0, 0.0)
        rate = (cppi_gap.cushion_rate(m, jumps, order) - smooth) / jumps.rate
        assert values.mean() == pytest.approx(rate, abs=3 * values.std() / math.sqrt(n))


def test_simulated_prices_have_the_moments_asked_for():
    """Mirrored walks: the sum of their logarithms is twice the drift, to rounding."""
    up, down = mirrored_walks(1001, 0.3, 0.5, seed=1)
    drift = (0.3 - 0.125) * 1000 / 8760
    assert math.log(up[-1] * down[-1] / 1e4) == pytest.approx(2.0 * drift, rel=1e-9)
    none = Jumps(0.0, 0.5, 0.05, 0.05)
    calm = jump_walk(50, 0.0, 0.0, none, np.random.default_rng(0))
    assert (calm == 100.0).all()
    market = market_of(np.array([100.0, 110.0, 99.0]))
    assert market.open.tolist() == [100.0, 100.0, 110.0]
    assert market.low.tolist() == [100.0, 100.0, 99.0]


def test_a_row_outside_its_tolerance_differs():
    rows = [Row("one", 1.0, 1.005, 0.01), Row("two", 1.0, 2.0, 0.5), Row("said", 3.0, math.nan)]
    assert [row.agrees for row in rows] == [True, False, True]


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in (ROOT / "benchmarks" / "replications").glob("*.py"))
)
def test_every_replication_is_tested_here(name):
    assert name in globals() or name in ("paths", "comparison")
