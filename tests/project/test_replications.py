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
import pytest
import real_time_scale
import rebalancing_flows
import thorp_ruin
import volatility_targeting
from comparison import Row

DATA = Path(__file__).parents[2].parent / "shared" / "data"
FACTORS = DATA / "fama-french" / "F-F_Research_Data_Factors_daily_192607-202111.CSV"
BITCOIN = DATA / "btc-usdm-1h"


def needs(path: Path) -> tuple[pytest.MarkDecorator, ...]:
    reason = f"needs {path.name} in ../shared/data"
    return pytest.mark.slow, pytest.mark.skipif(not path.exists(), reason=reason)


AFTER = "drawdown, after {} years, %, paper 68 to 93"
REPLICATIONS: dict[str, tuple[Any, dict[str, tuple[float, float]], Any]] = {
    # what is run, rows with the value and how far ours may be from it, marks
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
    But for 2x rebalanced daily, whose error is one day: 12 March 2020, a fall of 39 %."""
    rows = replicate(leveraged_funds.replicate(years=1, folder=str(BITCOIN)))

    for turns in (2.0, 3.0, -1.0, -2.0):
        name = f"{turns:g}x hourly on real prices"
        drag = rows[f"{name}, mean drag a quarter"].ours
        assert abs(rows[f"{name}, mean error of the formula"].ours) < 0.1 * drag
