"""Baselines of walks: the account, the figures and the winners of every fold are held."""

import json
import math
from dataclasses import replace

import pytest

from backtest.regress import compare_baselines, load_baseline, save_baseline, take_baseline
from backtest.regress.verdict import write_markdown, write_text
from backtest.validation.walk_forward import walk_forward
from tests.kit import call
from tests.validation.worlds import PLAIN, POLICY, Lever, make_market

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SMALL = {"trials": 4, "robust": False, "sampler": "sobol", "train": "50d", "test": "20d"}
SPACE = {"space": {"size": (0.5, 2.0)}, "fix": {"window": 5}}
EXPERIMENT = """
[data]
path = "data"

[policy]
name = "held.py:Held"

[run]
compile = false

[validate]
train = "50d"
test = "20d"
trials = 4
sampler = "sobol"
robust = false
"""


@pytest.fixture(scope="module")
def walk():
    return walk_forward(make_market(90), Lever, **PLAIN, **SMALL, **SPACE)


@pytest.fixture(scope="module")
def was(walk):
    return take_baseline(walk, "calm-walk")


def test_a_walk_is_recorded_with_its_account_its_figures_and_its_winners(walk, was, tmp_path):
    years = len(walk.result.close) / (4 * 365)
    growth = math.log1p(walk.result.metrics["total_return"]) / years
    assert was.metrics["walk_growth"] == pytest.approx(growth)
    assert was.metrics["walk_growth_fixed"] == walk.figures["growth_fixed"]
    assert was.metrics["sharpe"] == walk.result.metrics["sharpe"]
    assert was.metrics["walk_pbo"] == float(walk.pbo)
    assert [each["size"] for each in was.facts["winners"]] == walk.folds["size"].tolist()
    assert was.facts["walk"]["trials"] == 4
    assert "switches" not in was.facts["policy"]
    assert len(was.trace.time) == len(walk.result.close)
    loaded = load_baseline(save_baseline(was, tmp_path))
    assert not loaded.is_other_than(was)
    assert compare_baselines(loaded, was).status == "same"


def test_a_moved_winner_is_named_and_is_no_cause(was):
    facts = {**was.facts, "winners": [{"size": 1.25}, *was.facts["winners"][1:]]}
    better = was.metrics["walk_efficiency_difference"] + 7.0
    metrics = {**was.metrics, "walk_efficiency_difference": better, "walk_pbo": 0.9}
    now = replace(was, facts=facts, metrics=metrics)
    verdict = compare_baselines(was, now)
    assert (verdict.status, verdict.exit_code) == ("moved", 1)
    assert {each.name for each in verdict.moved} == {"walk_efficiency_difference", "walk_pbo"}
    for text in (write_text([verdict]), write_markdown([verdict]).replace("\\", "")):
        assert "winners[0].size" in text
        assert "1.25" in text
        assert "no recorded fact" in text
        assert "walk_pbo" in text
    assert json.loads(json.dumps(verdict.to_dict()))["changes"][0]["kind"] == "winners"
    allowed = compare_baselines(was, now, allow_better=["walk_eff*"])
    assert allowed.accepted == ("walk_efficiency_difference",)


@pytest.mark.slow
def test_a_walk_is_recorded_and_checked_at_the_command_line(tmp_path, monkeypatch, capsys):
    make_market(90).save(tmp_path / "data")
    (tmp_path / "held.py").write_text(POLICY)
    (tmp_path / "calm.toml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    bands = ("--tolerance", "walk_*=1%")
    code, text, _ = call(capsys, "regress", "record", "calm.toml", "--walk", *bands)
    assert (code, text.partition(":")[0]) == (0, "calm-walk")
    assert load_baseline(tmp_path / "baselines" / "calm-walk.json").bands["walk_pbo"].relative
    code, text, _ = call(capsys, "regress", "check", "--json")
    found = json.loads(text)["baselines"][0]
    assert (code, found["status"]) == (0, "same")
    assert found["metrics"]["walk_growth"]["inside"]
    (tmp_path / "calm.toml").write_text(EXPERIMENT.replace("trials = 4", "trials = 16"))
    code, text, _ = call(capsys, "regress", "check", "--summary", "out.md")
    assert code == 1
    assert "walk.trials: 4 -> 16" in text
    assert "winners changed" in text
    assert "walk_growth" in (tmp_path / "out.md").read_text().replace("\\", "")
    code, _, error = call(capsys, "regress", "record", "calm.toml", "--tolerance", "walk_pbo=any")
    assert code == 2
    assert "walk_pbo" in error
