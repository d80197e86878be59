"""A kind of result is one class: saving, lists, verification and reports follow from it."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

import backtest as bt
from backtest.base.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.base.settings_result import SettingsResult
from backtest.base.table_text import Head
from backtest.base.units import HOUR
from backtest.engine.manifest import describe_history
from tests.kit import call

MARKET = bt.Market.sample(bars=48)


@dataclass(frozen=True, eq=False)
class Hours(SettingsResult):
    """The mean move of each hour of the day."""

    table: pd.DataFrame
    settings: dict[str, Any]
    market: bt.Market | None = None

    kind = "hours"
    plural = "hours"
    table_names = ("table",)

    @property
    def note(self) -> str:
        return self.verdict

    @property
    def verdict(self) -> str:
        return f"The largest mean move is that of hour {self.table['move'].idxmax()}."

    def describe_data(self):
        return describe_history(self.market)

    def list_numbers(self) -> list[Headline]:
        most = float(self.table["move"].max())
        return [Headline("most", "largest move", most, "percent", "per hour", "less")]

    def list_parts(self) -> list[Part]:
        heads = {"move": Head("mean move", "per hour", "percent")}
        chart = ShownChart("moves", "Moves", "By hour.", self.table["move"], "bars", x="hour")
        table = ShownTable(self.table, labels=Head("hour"), heads=heads)
        return [Part("hours", "By hour", "Of the day, UTC.", (chart, table, "All hours."))]


@pytest.fixture
def hours() -> Hours:
    moves = np.abs(np.diff(np.log(MARKET.close), prepend=np.log(MARKET.close[0])))
    hour = pd.Index(MARKET.time // HOUR % 24, name="hour")
    table = pd.DataFrame({"move": moves}, index=hour).groupby(level=0).mean()
    return Hours(table, {"policy": "none", "bins": 24}, MARKET)


def test_a_kind_follows_from_its_declaration(hours, tmp_path, capsys):
    folder = hours.save(tmp_path / "store")
    assert folder.name == f"hours-{hours.manifest['id']}"
    pd.testing.assert_frame_equal(Hours.load(folder).table, hours.table, check_index_type=False)
    store = ("--results", tmp_path / "store")
    code, out, err = call(capsys, "results", "list", *store, "--json")
    assert code == 0, err
    (row,) = json.loads(out)["results"]
    assert (row["kind"], row["note"]) == ("hours", hours.verdict)
    assert call(capsys, "results", "verify", *store)[0] == 0
    text = hours.report(tmp_path / "page.md").read_text(encoding="utf-8")
    for shown in (hours.verdict, "largest move", "mean move (per hour)", "## Data", "| bins | 24 |",
                  "## Assumptions", "Chart in the HTML report: Moves"):  # fmt: skip
        assert shown in text
    data = json.loads(hours.report(tmp_path / "page.json").read_text(encoding="utf-8"))
    assert data["numbers"]["most"] == pytest.approx(float(hours.table["move"].max()))
    assert "largest move" in hours._repr_html_()
