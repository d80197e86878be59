"""A saved sweep comes back as it was, in the same bytes, or is refused."""

import json

import pandas as pd
import pytest

import backtest as bt
from backtest import DataError, ParameterError
from backtest.strategies import Constant, VolTarget
from tests.sweep.sweeps import MARKET, VENUE, Modes, run


@pytest.mark.slow
def test_a_saved_sweep_comes_back_as_it_was(tmp_path):
    sets = {
        "mode": ["plain", "scaled"],
        "count": [1, 2],
        "is_on": [True, False],
        "account.stop_loss": [None, 0.1],
        "venue.liquidation.step": [0.5, "bracket"],
    }
    sweep = run(Modes, sets, full=True)
    folder = sweep.save(tmp_path)
    assert folder.name == f"sweep-modes-{sweep.manifest['id']}"
    loaded = bt.Sweep.load(folder)
    pd.testing.assert_frame_equal(loaded.table, sweep.table)
    assert loaded.manifest == sweep.manifest
    assert repr(loaded) == repr(sweep)
    assert loaded.best().equals(sweep.best())
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["manifest.json", "provenance.json", "table.parquet"]
    with pytest.raises(ParameterError, match="a loaded sweep has none"):
        loaded.replay(0)


@pytest.mark.slow
def test_the_same_sweep_makes_the_same_files(tmp_path):
    sets = {"target": [0.2, 0.4]}
    one, other = (
        run(VolTarget, sets).save(tmp_path / "a"),
        run(VolTarget, sets).save(tmp_path / "b"),
    )
    assert one.name == other.name
    for name in ("manifest.json", "table.parquet"):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert run(VolTarget, sets).save(tmp_path / "a") == one
    assert [path.name for path in (tmp_path / "a").iterdir()] == [one.name]
    names = {
        run(VolTarget(power=2.0), sets).save(tmp_path).name,
        run(VolTarget, {"target": [0.2, 0.5]}).save(tmp_path).name,
        run(VolTarget, sets, account=bt.Account(band=0.1)).save(tmp_path).name,
        run(VolTarget, sets, sampling="8h").save(tmp_path).name,
        run(VolTarget, sets, market=bt.Market.sample(bars=401)).save(tmp_path).name,
    }
    assert len(names - {one.name}) == 5


def test_the_manifest_tells_what_made_the_table(tmp_path):
    sweep = run(VolTarget(power=2.0), {"target": [0.2, 0.4]})
    manifest = json.loads((sweep.save(tmp_path) / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["data"]["content_hash"] == MARKET.content_hash
    fixed = {"half_life": 72.0, "power": 2.0, "estimator": "ewma"}
    assert manifest["policy"]["settings"] == fixed
    assert manifest["venue"] == VENUE.to_dict()
    assert manifest["parameters"] == {"target": {"unit": "per sqrt(year)", "log": True}}
    assert set(manifest["versions"]) >= {"python", "numpy", "numba"}


@pytest.mark.parametrize(("damage", "problem"), [
    (lambda folder: (folder / "table.parquet").write_bytes(b"PAR1"), "changed or truncated"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "must be JSON"),
    (lambda folder: (folder / "manifest.json").write_text("{}"), "format must be 1"),
])  # fmt: skip
def test_a_damaged_folder_is_refused(tmp_path, damage, problem):
    folder = run(Constant, {"leverage": [1.0]}).save(tmp_path)
    damage(folder)
    with pytest.raises(DataError, match=problem):
        bt.Sweep.load(folder)


def test_a_folder_of_another_kind_is_refused(tmp_path):
    sweep = run(Constant, {"leverage": [1.0]})
    with pytest.raises(DataError, match="must be the folder of a saved sweep, got a result"):
        bt.Sweep.load(sweep.replay(0).save(tmp_path))
    with pytest.raises(DataError, match="must be the folder of a saved result, got a sweep"):
        bt.Result.load(sweep.save(tmp_path))
