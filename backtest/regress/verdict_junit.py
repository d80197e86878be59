"""Verdicts as JUnit XML, for the test reports of CI systems."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence

from backtest.regress.verdict import MOVED, SKIPPED, UNMEASURED, RegressVerdict
from backtest.regress.verdict_text import write_text
from backtest.regress.verdict_words import write_headline

SUITE = "backtest.regress"
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML does not allow, escaped or not."""


def write_junit(verdicts: Sequence[RegressVerdict]) -> str:
    """Return verdicts as a JUnit document; moved is a failure, not measured an error."""
    found = Counter(each.status for each in verdicts)
    counts = {
        "tests": str(len(verdicts)),
        "failures": str(found[MOVED]),
        "errors": str(found[UNMEASURED]),
    }
    root = ET.Element("testsuites", {**counts, "name": SUITE})
    skipped = {"skipped": str(found[SKIPPED])}
    suite = ET.SubElement(root, "testsuite", {**counts, **skipped, "name": SUITE})
    for verdict in verdicts:
        add_case(suite, verdict)
    ET.indent(root, " ")
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document.decode() + "\n"


def add_case(suite: ET.Element, verdict: RegressVerdict) -> None:
    """Add the test case of a verdict to a suite."""
    case = ET.SubElement(
        suite, "testcase", {"classname": SUITE, "name": replace_forbidden(verdict.name)}
    )
    text = replace_forbidden(write_text([verdict]))
    kinds = {MOVED: "failure", UNMEASURED: "error"}
    if verdict.status in kinds:
        about = {"type": verdict.status, "message": replace_forbidden(write_headline(verdict))}
        ET.SubElement(case, kinds[verdict.status], about).text = text
    elif verdict.status == SKIPPED:
        ET.SubElement(case, "skipped", {"message": replace_forbidden(verdict.reason)})
    else:
        ET.SubElement(case, "system-out").text = text


def replace_forbidden(text: str) -> str:
    r"""Replace the characters that XML does not allow.

    Examples
    --------
    >>> replace_forbidden("a\x00b") == "a\N{REPLACEMENT CHARACTER}b"
    True
    """
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
