"""Chains of quotes, SVI smiles, fitted surfaces, and their columns for policies."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest import options
from backtest.options import SVI
from backtest.options.chain import write_sample
from backtest.options.smile_fits import minimize
from backtest.options.smiles import build_ssvi
from tests.kit import ask, call, check_refused, market_of

NOW = pd.Timestamp("2026-01-01 12:00", tz="UTC")
CHAINS = Path(__file__).parents[3] / "shared" / "data" / "deribit-chains"
VOGT = SVI(a=-0.041, b=0.1331, rho=0.306, m=0.3586, sigma=0.4153)
WINGS = {"v": 0.01742625, "psi": -0.1752111, "p": 0.6997381}
K = np.linspace(-1.5, 1.5, 3001)


def make_rows(
    days: tuple[float, ...] = (7.0, 30.0, 90.0),
    spot: float = 100.0,
    time: pd.Timestamp = NOW,
    settlement: str = "coin",
    spread: float = 0.01,
    volatility=lambda k: 0.6 + 0.2 * k * k - 0.1 * k,
) -> pd.DataFrame:
    """Return quotes around a volatility by ln(K / F), with forwards of spot (1 + T / 20)."""
    parts = []
    for days_left in days:
        years = days_left / 365.0
        forward = spot * (1.0 + years / 20.0)
        k = np.linspace(-2.5, 2.5, 13) * 0.6 * math.sqrt(years)
        strike = np.round(forward * np.exp(k), 6)
        iv = volatility(np.log(strike / forward)) + 0.0 * strike
        table = pd.DataFrame({"strike": strike, "iv": iv, "forward": forward, "index": spot})
        expiry = time + pd.Timedelta(days=days_left)
        rows = table.assign(time=time, expiry=expiry, underlying="BTC")

        for kind in ("call", "put"):
            place = (kind, forward, strike, years)
            bid = options.price(*place, iv - spread, 0.0, settlement)
            mark = options.price(*place, iv, 0.0, settlement)
            ask = options.price(*place, iv + spread, 0.0, settlement)
            parts.append(rows.assign(kind=kind, bid=bid, ask=ask, mark=mark))
    return pd.concat(parts, ignore_index=True)


def make_chain(settlement: str = "coin", **given: object) -> bt.Chain:
    rows = make_rows(settlement=settlement, **given)  # type: ignore[arg-type]
    return bt.Chain.from_frame(rows, settlement=settlement)


def hours(n: int, start: str = "2026-01-01") -> bt.Market:
    return market_of(100.0 + np.sin(np.arange(n)), start=start, terms={"instrument": "BTCUSD"})


def test_the_least_squares_rest_at_a_bound():
    """Rosenbrock's valley, whose lowest point (1, 1) lies beyond x <= 1/2: there y = x^2."""

    def valley(points: np.ndarray) -> np.ndarray:
        x, y = points.T
        return np.stack([10.0 * (y - x * x), 1.0 - x], axis=1)

    start = np.array([-1.2, 1.0])
    low = np.array([-2.0, -2.0])
    assert minimize(valley, start, low, np.array([2.0, 2.0])) == pytest.approx([1.0, 1.0])
    assert minimize(valley, start, low, np.array([0.5, 2.0])) == pytest.approx([0.5, 0.25])


ROWS = make_rows(days=(30.0,))


def test_a_sound_chain_has_no_defects():
    chain = make_chain()
    inspection = chain.inspect()
    assert inspection.rows.empty
    assert "no defect found" in repr(inspection)
    assert inspection.table[["quotes", "two_sided"]].iloc[0].tolist() == [78, 78]

    implied = chain.implied()
    np.testing.assert_allclose(implied["mark_iv"], implied["iv"], atol=1e-9)


def test_each_defect_is_counted_and_named():
    rows = make_rows(days=(30.0,))
    rows["quoted"] = rows["time"]
    rows.loc[0, "bid"] = rows.loc[0, "ask"] * 1.1  # crossed
    rows.loc[1, "mark"] += 2e-4  # disagrees with the volatility
    rows.loc[3, "ask"] = 0.5 * (1.0 - rows.loc[3, "strike"] / rows.loc[3, "forward"])
    rows.loc[3, "bid"] = np.nan  # outside its bounds
    rows.loc[5, "quoted"] -= pd.Timedelta("6min")  # stale
    rows.loc[9, "forward"] *= 1.0002  # its forward differs
    rows = pd.concat([rows, rows.iloc[[7]]])  # duplicated
    late = rows.iloc[[8]].assign(expiry=rows["time"].iloc[0])  # expired
    inspection = bt.Chain.from_frame(pd.concat([rows, late]), settlement="coin").inspect()

    once = (
        "crossed", "outside_bounds", "stale", "forward_differs", "duplicated", "expired",
        "disagrees",
    )  # fmt: skip
    expected = dict.fromkeys(inspection.total.index, 0) | dict.fromkeys(once, 1)
    assert inspection.total.to_dict() == expected
    assert "bid is above the ask" in repr(inspection)
    crossed = inspection.rows.set_index("check").loc["crossed"]
    assert crossed["name"].startswith("BTC-31JAN26-")


@pytest.mark.parametrize("settlement", ["cash", "coin"])
def test_forwards_by_parity_and_by_the_index(settlement: str):
    rows = make_rows(days=(30.0, 60.0), settlement=settlement)
    expected = rows["forward"].iloc[0]
    rows["future"] = "BTC-X"
    rows.loc[rows.index, "forward_known"] = rows["forward"]
    is_first = rows["expiry"] == rows["expiry"].min()
    rows.loc[:, "future"] = None
    rows.loc[~is_first & (rows["kind"] == "put"), "bid"] = np.nan  # no pair in the second expiry

    table = bt.Chain.from_frame(rows, settlement=settlement).table
    by_expiry = table.groupby("expiry")[["forward", "forward_source"]].first()
    assert by_expiry["forward_source"].tolist() == ["parity", "index"]
    assert by_expiry["forward"].iloc[0] == pytest.approx(expected, rel=1e-9)
    assert by_expiry["forward"].iloc[1] == 100.0


def test_files_of_both_layouts_give_one_table(tmp_path: Path):
    rows = make_rows()
    rows.to_parquet(tmp_path / "plain.parquet")
    rows.astype({"time": str, "expiry": str}).to_csv(tmp_path / "plain.csv", index=False)
    deribit = rows.rename(columns={
        "time": "timestamp", "expiry": "expiry_datetime", "kind": "option_type",
        "bid": "bid_price", "ask": "ask_price", "mark": "mark_price",
        "iv": "implied_volatility", "forward": "underlying", "index": "index_price",
        "underlying": "currency",
    }).assign(instrument_name="BTC-X", futures_instrument_name="BTC-F")  # fmt: skip
    deribit.to_parquet(tmp_path / "deribit.parquet")

    plain = bt.Chain.load(tmp_path / "plain.parquet", settlement="coin")
    text = bt.Chain.load(tmp_path / "plain.csv", settlement="coin")
    venue = bt.Chain.load(tmp_path / "deribit.parquet")
    assert venue.settlement == "coin"
    assert set(venue.table["forward_source"]) == {"future"}

    names = ["strike", "kind", "bid", "ask"]
    for other in (venue, text):
        pd.testing.assert_frame_equal(plain.table[names], other.table[names])

    # A future whose name begins with SYN is none that trades.
    deribit["futures_instrument_name"] = ["SYN.BTC-F", *["BTC-F"] * (len(deribit) - 1)]
    sources = bt.Chain.from_frame(deribit).table["forward_source"]
    assert sources.value_counts().to_dict() == {"future": len(deribit) - 1, "synthetic": 1}


def test_a_folder_is_one_chain_of_all_snapshots(tmp_path: Path):
    later = make_rows(time=NOW + pd.Timedelta(days=1))
    later.to_parquet(tmp_path / "day-0.parquet")
    make_rows(time=NOW).to_parquet(tmp_path / "day-1.parquet")

    chain = bt.Chain.load(tmp_path, settlement="coin")
    assert chain.times.tolist() == [NOW, NOW + pd.Timedelta(days=1)]
    assert "156 quotes in 2 snapshots" in repr(chain.inspect())


def test_a_folder_without_quotes_is_refused(tmp_path: Path):
    with pytest.raises(bt.DataError, match="needs files that end in"):
        bt.Chain.load(tmp_path)


def from_jump_wings(v, psi, p, c, v_tilde, years):
    """Return the smile of jump wings (Gatheral and Jacquier 2014, lemma 3.2)."""
    root = math.sqrt(v * years)
    b = 0.5 * root * (c + p)
    rho = 1.0 - p * root / b
    beta = rho - 2.0 * psi * root / b
    alpha = math.copysign(math.sqrt(1.0 / beta**2 - 1.0), beta)
    drop = -rho + math.copysign(math.sqrt(1.0 + alpha**2), alpha)
    m = (v - v_tilde) * years / (b * (drop - alpha * math.sqrt(1.0 - rho**2)))
    a = v_tilde * years - b * alpha * m * math.sqrt(1.0 - rho**2)
    return SVI(a, b, rho, m, alpha * m)


def test_vogts_smile_has_butterfly_arbitrage():
    """Gatheral and Jacquier (2014), figure 2: negative density in spite of sound wings."""
    variances = [VOGT.total_variance(k) for k in (-0.8, 0.0, 0.4)]
    assert variances == pytest.approx([0.0756291293, 0.01742625256, 0.01623656962], abs=1e-11)

    densities = [VOGT.density(k) for k in (0.0, 0.9)]
    assert densities == pytest.approx([1.038649731, -0.03268513071], abs=1e-9)
    assert VOGT.least_density == pytest.approx(-0.03286354386, abs=1e-6)

    negative = K[VOGT.density(K) < 0.0]
    assert (negative[0], negative[-1]) == pytest.approx((0.643, 1.256), abs=1e-3)


@pytest.mark.parametrize(
    ("c", "v_tilde", "variance"),
    [(0.3493158, 0.01548182, None), (0.8564763, 0.0116249, 0.01514407736)],
)
def test_the_published_repairs_have_none(c: float, v_tilde: float, variance: float | None):
    repaired = from_jump_wings(**WINGS, c=c, v_tilde=v_tilde, years=1.0)
    assert repaired.density(K).min() > 0.0
    assert repaired.least_density > 0.0
    assert repaired.total_variance(0.0) == pytest.approx(WINGS["v"], rel=1e-9)
    if variance is not None:
        assert repaired.total_variance(0.4) == pytest.approx(variance, abs=1e-6)


def test_ssvi_is_raw_svi():
    """theta .04, rho -.4, eta 1.2 of at most 2 / 1.4, gamma .4."""
    (smile,) = build_ssvi(np.array([-0.4, 1.2 * 1.4 / 2.0, 0.4, math.log(0.04)]))
    phi = 1.2 / (0.04**0.4 * 1.04**0.6)

    expected = 0.02 * (1.0 - 0.4 * phi * K + np.sqrt((phi * K - 0.4) ** 2 + 1.0 - 0.16))
    np.testing.assert_allclose(smile.total_variance(K), expected, rtol=1e-12)
    assert smile.least_density > 0.0


@pytest.fixture(scope="module")
def surface() -> bt.Surface:
    return bt.Surface.fit(make_chain())


@pytest.mark.parametrize("model", ["svi", "ssvi"])
def test_a_fit_has_no_arbitrage_and_lies_inside_the_quotes(model: str):
    fitted = bt.Surface.fit(make_chain(spread=0.02), model)

    arbitrage = fitted.arbitrage()
    assert not arbitrage["butterfly"].any()
    if model == "ssvi":
        assert (arbitrage["crossings"] == 0.0).all()
        assert (arbitrage["quoted_crossings"][1:] == 0.0).all()
    else:
        assert (fitted.fits["inside"] == 1.0).all()
        assert (fitted.fits["median_error"] < 0.003).all()


def test_a_fit_is_sound_between_the_points_of_its_grid():
    """Quotes on Vogt's smile have arbitrage; the density is examined at 100 points for each."""

    def volatility(k):
        return np.sqrt(VOGT.total_variance(k))

    fitted = bt.Surface.fit(make_chain(days=(365.0,), spread=0.002, volatility=volatility))
    density = fitted.smiles[0].density(np.linspace(-1.5, 1.5, 120_001))

    assert density.min() >= -1e-9
    assert fitted.fits["least_density"].iloc[0] <= density.min() + 1e-9


def test_beyond_twice_the_last_expiry_there_is_no_skew(surface: bt.Surface):
    assert surface.longest_tenor == pytest.approx(180.0 / 365.0)
    assert math.isfinite(surface.skew("179d") + surface.vix("179d"))
    assert math.isnan(surface.skew("181d"))
    assert math.isnan(surface.vix("181d"))
    assert surface.atm("181d") == pytest.approx(surface.atm("90d"))


def test_volatility_between_and_outside_expiries(surface: bt.Surface):
    """Total variance is linear in time at constant log-moneyness; volatility is flat outside."""
    first, second = surface.smiles[:2]
    years = surface.years
    middle = 0.5 * (years[0] + years[1])
    expected = 0.5 * (first.total_variance(0.1) + second.total_variance(0.1))
    assert surface.total_variance(0.1, middle) == pytest.approx(expected, rel=1e-14)

    for inside, outside in ((years[0], 0.1 * years[0]), (years[-1], 3.0 * years[-1])):
        variance = surface.total_variance(0.1, np.array([inside, outside])) / [inside, outside]
        assert variance[0] == pytest.approx(variance[1], rel=1e-14)

    forward = surface.forward(years[1])
    assert forward == pytest.approx(100.0 * (1.0 + 30.0 / 365.0 / 20.0), rel=1e-9)
    assert surface.volatility(forward, years[1]) == pytest.approx(surface.atm("30d"), rel=1e-12)


def make_surface(smiles: tuple[SVI, ...], years: object) -> bt.Surface:
    """Return a surface of given smiles, at a forward of 100."""
    fits = pd.DataFrame({"years": years, "forward": 100.0})
    none = make_chain().inspect()
    return bt.Surface(NOW, "", "svi", smiles, fits, fits, 100.0, "cash", fits, none)


def test_money_skew_and_model_free_volatility(surface: bt.Surface):
    assert surface.atm("30d") == pytest.approx(0.6, abs=0.003)
    assert surface.skew("30d") == pytest.approx(0.1 * 2 * 0.117, abs=0.004)
    assert surface.vix("30d") == pytest.approx(surface.atm("30d"), abs=0.01)

    flat = SVI(a=0.04, b=0.0, rho=0.0, m=0.0, sigma=0.1)
    assert make_surface((flat,), [1.0]).vix(1.0) == pytest.approx(0.2, rel=1e-7)


@pytest.mark.parametrize(("minutes", "variances", "expected", "error"), [
    ((12_960.0, 53_280.0), (0.4727679, 0.366818), 61.22, 0.005),
    ((35_924.0, 46_394.0), (0.01846292, 0.01882101), 13.685821, 1e-4),
])  # fmt: skip
def test_the_published_vix_interpolates_total_variance(minutes, variances, expected, error):
    """Cboe, VIX white paper, 2009 and 2015: variances of the near and the next term."""
    times = np.array(minutes) / 525_600.0
    smiles = tuple(SVI(v * t, 0.0, 0.0, 0.0, 1.0) for v, t in zip(variances, times, strict=True))

    vix = 100.0 * make_surface(smiles, times).atm("30d")
    assert vix == pytest.approx(expected, abs=error)


def test_a_crossing_between_strikes_quoted_in_both_expiries_is_named_with_its_depth():
    """At 30 days 60 %, at 60 days 40 %: w falls from .36 / 12 to .16 / 6, .6 sqrt(.5) - .4."""
    near = make_rows(days=(30.0,), spread=0.005, volatility=lambda k: 0.6)
    far = make_rows(days=(60.0,), spread=0.005, volatility=lambda k: 0.4)
    fitted = bt.Surface.fit(bt.Chain.from_frame(pd.concat([near, far]), settlement="coin"))

    crossing = fitted.arbitrage().iloc[1]
    assert crossing["quoted_crossings"] == 1.0
    assert crossing["deepest_crossing"] == pytest.approx(0.6 * math.sqrt(0.5) - 0.4, abs=1e-3)

    text = " ".join(fitted.summary().split())
    assert "in both in 1 of 1 pair of expiries, up to 2.4 points" in text
    assert "within 2.5 standard deviations contain the fit between bid and ask" in text


def test_what_a_fit_leaves_out_is_listed():
    rows = make_rows()
    rows.loc[0, "bid"] = np.nan
    rows.loc[1, "bid"] = 1.0
    is_last = rows["expiry"] == rows["expiry"].max()
    is_kept = ~is_last | (rows.groupby("expiry").cumcount() < 4)
    fitted = bt.Surface.fit(bt.Chain.from_frame(rows[is_kept], settlement="coin"))

    reasons = fitted.left_out["reason"].value_counts().to_dict()
    assert reasons == {"fewer than 5 two-sided strikes": 4, "no bid": 1, "crossed": 1}
    assert len(fitted.fits) == 2


@pytest.fixture(scope="module")
def surfaces() -> bt.Surfaces:
    """Three days at 12:00, whose volatility rises with the spot price."""
    days = [make_rows(spot=100.0 + 10.0 * k, time=NOW + pd.Timedelta(days=k)) for k in range(3)]
    return bt.Surfaces.fit(bt.Chain.from_frame(pd.concat(days), settlement="coin"))


def test_columns_come_from_the_last_surface_before_the_close(surfaces: bt.Surfaces):
    """The bar from 11:00 closes at 12:00, when the snapshot of 12:00 is not known yet."""
    market = surfaces.attach(hours(72), tenors=("7d", "30d"))
    iv = market.columns["iv_30d"]
    age = market.columns["surface_age"]

    assert np.isnan(iv[:12]).all()
    assert iv[12] == surfaces.surfaces[0].atm("30d")
    assert iv[35] == surfaces.surfaces[0].atm("30d")
    assert iv[36] == surfaces.surfaces[1].atm("30d")
    assert age[12] == pytest.approx(1.0 / 24.0)
    assert (market.columns["implied_volatility"][12:] == market.columns["vix_7d"][12:]).all()

    assert surfaces.at("2026-01-02 12:00") is surfaces.surfaces[1]
    assert surfaces.at("2026-01-02 11:59") is surfaces.surfaces[0]


def test_a_later_snapshot_changes_no_earlier_value(surfaces: bt.Surfaces):
    cut = bt.Surfaces(surfaces.surfaces[:2], surfaces.skipped)
    whole = surfaces.attach(hours(72))
    part = cut.attach(hours(72))

    known = 60  # the bar that opens with the third snapshot
    for name in whole.columns:
        assert whole.columns[name][:known].tobytes() == part.columns[name][:known].tobytes()


class Foresight(bt.Policy):
    """Interpolate towards the next snapshot."""

    def observe(self, market):
        fresh = market.columns["surface_age"] < 1.5 / 24.0
        series = pd.Series(np.where(fresh, market.columns["iv_30d"], np.nan))
        return {"sigma": series.interpolate(limit_area="inside").to_numpy()}

    def leverage(self, bar, account):
        return 0.3 / bar.sigma


def test_the_check_catches_interpolation_towards_a_later_snapshot(surfaces: bt.Surfaces):
    days = []  # of a volatility that moves, so that interpolating shows
    for k, level in enumerate((0.5, 0.7, 0.5)):
        time = NOW + pd.Timedelta(days=k)
        days.append(make_rows((30.0,), time=time, volatility=lambda _, level=level: level))
    moving = bt.Surfaces.fit(bt.Chain.from_frame(pd.concat(days), settlement="coin"))
    terms = {"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account()}
    market = moving.attach(hours(72))

    check_refused(lambda: bt.run(market, Foresight(), **terms), "sigma", bt.PolicyError)

    result = bt.run(market, bt.strategies.ImpliedVolTarget(target=0.3), **terms)
    expected = 0.3 / moving.vix("30d").iloc[0]
    assert result.bars["leverage"].iloc[20] == pytest.approx(expected, rel=0.05)


def refuse_chain(frame: pd.DataFrame, settlement: str | None = "coin") -> object:
    return lambda *_: bt.Chain.from_frame(frame, settlement=settlement)


@pytest.mark.parametrize(("make", "words"), [
    (refuse_chain(ROWS.drop(columns="strike")), "needs the columns strike"),
    (refuse_chain(ROWS.iloc[:0]), "at least one row"),
    (refuse_chain(ROWS, None), "settlement must be"),
    (refuse_chain(ROWS.assign(strike=-1.0)), "strike must be positive"),
    (refuse_chain(ROWS.assign(expiry=pd.NaT)), "expiry"),
    (refuse_chain(ROWS.assign(ask=np.inf)), "must be finite"),
    (lambda *_: bt.Surface.fit(refuse_chain(ROWS.assign(bid=np.nan))()), "5 strikes with bid and"),
    (lambda s, c, p: s.volatility(100.0, -1.0), "years must be"),
    (lambda s, c, p: p.attach(hours(5)), "bars must close after a surface"),
    (lambda s, c, p: p.attach(hours(5, "2026-01-18")), "at most 14 days after the last"),
    (lambda s, c, p: s.skew("30d", delta=0.7), "delta must be"),
    (lambda s, c, p: c.select(time="2020-01-01"), "no snapshot"),
    (lambda *_: SVI(-1.0, 0.1, 0.0, 0.0, 0.1), "must not be negative"),
    (lambda *_: SVI(math.nan, 0.1, 0.0, 0.0, 0.1), "a must be"),
])  # fmt: skip
def test_bad_chains_and_calls_get_one_clear_error(surface, surfaces, make, words):
    check_refused(lambda: make(surface, make_chain(), surfaces), words)


@pytest.mark.skipif(not CHAINS.is_dir(), reason="needs ../shared/data/deribit-chains")
def test_quotes_without_a_zone_need_one(tmp_path):
    naive = write_sample()
    for name in ("time", "expiry"):
        naive[name] = naive[name].astype(str).str[:19]
    file = tmp_path / "quotes.csv"
    naive.to_csv(file, index=False)

    for read in (bt.Chain.load, bt.Surfaces.load):
        with pytest.raises(bt.DataError, match="timezone='UTC' reads them as UTC"):
            read(file, settlement="coin")
    check_refused(
        lambda: bt.Chain.from_frame(naive, settlement="coin"), "tz_localize", bt.DataError
    )

    chain = bt.Chain.load(file, settlement="coin", timezone="UTC")
    assert chain.times[0] == bt.Chain.sample().times[0]


@pytest.mark.slow
@pytest.mark.skipif(not CHAINS.is_dir(), reason="needs ../shared/data/deribit-chains")
def test_every_real_snapshot_agrees_and_fits():
    """Truth 3: marks within 1e-4 coins in 91 % of all rows and 1e-3 in 99 %; every 22nd fits."""
    errors = []
    fits = []
    for number, file in enumerate(sorted(CHAINS.glob("*.parquet"))):
        chain = bt.Chain.load(file)
        rows = chain.table
        kinds = rows["kind"].to_numpy(dtype=str)
        model = options.price(
            kinds, rows["forward"], rows["strike"], chain.years, rows["iv"], settlement="coin"
        )
        errors.append(np.abs(rows["mark"].to_numpy() - model))
        if number % 22 != 0:
            continue

        for name in chain.underlyings:
            fitted = bt.Surface.fit(chain, underlying=name)
            assert not fitted.arbitrage()["butterfly"].any()
            fits.append(fitted.fits)

    error = np.concatenate(errors)
    assert (error <= 1e-4).mean() >= 0.91
    assert (error <= 1e-3).mean() >= 0.99

    table = pd.concat(fits)
    judged = table[(table["years"] >= 2.0 / 365.0) & (table["strikes"] >= 8)]
    assert np.average(judged["inside"], weights=judged["quotes"]) > 0.99
    assert judged["median_error"].median() < 0.003


def test_chains_and_surfaces_at_the_command_line(capsys, tmp_path: Path):
    """Of two snapshots of two underlyings, one quote is crossed."""
    first = make_rows(time=NOW, days=(7.0, 30.0))
    first.loc[0, "bid"] = 1.0
    second = make_rows(time=NOW + pd.Timedelta(days=1), days=(7.0, 30.0))
    for k, rows in enumerate((first, second)):
        both = pd.concat([rows, rows.assign(underlying="ETH")])
        both.to_parquet(tmp_path / f"{k}.parquet")

    flags = (tmp_path, "--settlement", "coin", "--underlying", "ETH")
    code, text, _ = call(capsys, "options", "chain", *flags)
    assert code == 0
    assert "104 quotes in 2 snapshots" in text
    assert "1 (1.0 %): the bid is above the ask" in text
    assert ask(capsys, "options", "chain", *flags)["defects"][0]["check"] == "crossed"

    code, text, error = call(capsys, "options", "surface", *flags)
    assert (code, text) == (2, "")
    assert "a surface is of one snapshot, got 2: choose one with --time" in error
    assert len(ask(capsys, "options", "surface", *flags, "--time", NOW)["fits"]) == 2

    code, _, error = call(capsys, "options", "chain", "nowhere.parquet")
    assert code == 2
    assert "error: " in error
    assert "'nowhere.parquet' does not" in error


def test_fits_are_kept_and_equal_those_made(tmp_path, monkeypatch):
    """Another model, quote or text of the code is another entry; a damaged one is made again."""
    monkeypatch.setenv("BACKTEST_CACHE_DIR", str(tmp_path))
    first = make_rows(time=NOW)
    second = make_rows(time=NOW + pd.Timedelta(days=1))
    second.loc[:3, "bid"] = np.nan
    too_few = first.iloc[:4].assign(time=NOW + pd.Timedelta(days=5))
    chain = bt.Chain.from_frame(pd.concat([first, second, too_few]), settlement="coin")
    counts = []

    def fit(of_chain, model="svi"):
        return bt.Surfaces.fit(of_chain, model, progress=lambda *_: counts.append(1))

    # Three snapshots are fitted once.
    made = fit(chain)
    loaded = fit(chain)
    assert len(counts) == 3
    assert len(loaded.skipped) == 1
    assert made.content_hash == loaded.content_hash
    for one, other in zip(made.surfaces, loaded.surfaces, strict=True):
        assert (one.time, one.smiles, one.identity) == (other.time, other.smiles, other.identity)
        for name in ("fits", "left_out", "quotes"):
            pd.testing.assert_frame_equal(getattr(one, name), getattr(other, name))

    table = chain.table.assign(bid=0.99 * chain.table["bid"])
    fit(chain, "ssvi")
    fit(bt.Chain.from_frame(table, settlement="coin"))
    assert len(counts) == 9
    assert len([*tmp_path.glob("surfaces-*")]) == 3

    for file in tmp_path.glob("surfaces-*/fits.parquet"):
        file.write_bytes(b"damaged")
    assert bt.Surfaces.fit(chain).content_hash == made.content_hash
