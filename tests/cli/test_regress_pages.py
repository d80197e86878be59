"""What ``backtest regress`` writes for others, and what its page of the manual says."""

import re
import shlex
import xml.etree.ElementTree as ET

import pytest

from backtest.base.errors import DataError
from backtest.regress import report_failure
from backtest.regress.text import write_junit, write_markdown
from tests.cli.test_cli_regress import ROOT
from tests.kit import call

HOSTILE = [
    "<script>alert(1)</script>",
    "a|b`c",
    "../../x",
    "\u202eabc",
    "\x00\x1b[31m",
    "x" * 10_000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_are_text(name):
    verdicts = [report_failure(name, DataError(f"{name} ]]> &amp; \n# x"))]
    root = ET.fromstring(write_junit(verdicts))
    assert len(root.findall(".//testcase")) == 1
    text = write_markdown(verdicts)
    assert "<script>" not in text
    assert "\n# x" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.replace("\\|", "").count("|") == 4 for line in rows)


DOCS = (ROOT / "docs" / "live.md").read_text(encoding="utf-8")


COMMANDS = re.findall(r"^(?: *- run: |)(backtest regress .+)$", DOCS, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_docs_exists_with_all_its_flags(line, capsys):
    words = shlex.split(line, comments=True)
    assert call(capsys, *words[1:3], "--help")[0] == 0
    text = call(capsys, *words[1:3], "--help")[1]
    assert all(word in text for word in words if word.startswith("--"))
