"""The JSON schema of an experiment, which editors of TOML read."""

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import backtest as bt
from backtest.cli.experiment import TABLES
from backtest.cli.schema import make_schema
from tests.kit import call

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "examples").rglob("*.toml"))


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = make_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def read(text: str) -> Any:
    """Return the JSON of TOML, where a time is text."""
    return json.loads(json.dumps(tomllib.loads(text), default=str))


def test_the_command_prints_the_schema(capsys):
    code, out, err = call(capsys, "schema")
    assert code == 0
    assert err == ""
    assert json.loads(out) == make_schema()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_examples_are_valid(validator, file):
    assert FILES
    assert [*validator.iter_errors(read(file.read_text("utf-8")))] == []


def test_every_table_has_its_keys():
    tables = make_schema()["properties"]
    assert {*TABLES, "venue", "account", "accounts", "lending"} == {*tables}
    assert tables["tune"]["properties"]["trials"]["type"] == "integer"
    assert tables["data"]["properties"]["path"]["type"] == ["string", "array"]

    account = tables["account"]["properties"]
    assert {*bt.Account.__dataclass_fields__} <= {*account}
    assert all(each["description"] for each in account.values() if "properties" not in each)


@pytest.mark.parametrize("text", [
    "[policy]\nname = 'vol-target'\n[policy.BTCUSDT]\nname = 'kelly'\n[policy.BTCUSDT.settings]\n",
    "[venue.BTCUSDT]\npreset = 'binance-usdm:BTCUSDT'\n[venue.BTCUSDT.fees]\ntaker = 0.0\n",
    "[data]\npath = ['sample:1', 'sample:2']\nfrom = 2023-01-01\n",
    "[compare.policies.calm]\nname = 'vol-target'\nsettings = {target = 0.2}\n",
])  # fmt: skip
def test_tables_by_instrument_and_label_are_valid(validator, text):
    assert [*validator.iter_errors(read(text))] == []


@pytest.mark.parametrize("text", [
    "[polcy]\nname = 'kelly'\n",
    "[policy]\nnmae = 'kelly'\n",
    "[policy.BTCUSDT]\nnmae = 'kelly'\n",
    "[data]\nintrval = '1h'\n",
    "[account]\nbnd = 0.1\n",
    "[venue.fees]\ntakr = 0.1\n",
    "[venue.BTCUSDT.fees]\ntakr = 0.1\n",
    "[tune]\ntrails = 3\n",
    "[tune]\ntrials = 'many'\n",
    "[run]\ncompile = 'yes'\n",
    "[compare.policies.calm]\nnmae = 'kelly'\n",
])  # fmt: skip
def test_a_misspelt_key_and_a_value_of_another_kind_are_not(validator, text):
    assert [*validator.iter_errors(read(text))]
