"""The tables of what we found, from the figures that ``benchmarks/leaderboard.py`` stores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.ext.markdown import write_table

FIGURES = Path(__file__).parents[1] / "data" / "leaderboard.json"
EVIDENCE = 0.95
"""The least deflated Sharpe ratio that counts as evidence."""
HEAD = ["policy", "growth a year", "Sharpe ratio", "drawdown", "liquidated", "cost a year",
        "growth, equal risk", "Sharpe ratio, equal risk"]  # fmt: skip


def list_pages() -> dict[str, str]:
    """Return the headline, a table for each market and risk, and the data."""
    found = json.loads(FIGURES.read_text(encoding="utf-8"))
    parts = [write_headline(found), *write_markets(found["rows"]), write_source(found)]
    return {"parts/leaderboard": "\n".join(parts)}


def write_headline(found: dict[str, Any]) -> str:
    """Return what all rows say together."""
    best, gaps = found["best_of_all"], found["against_constant"]
    is_beaten = best["deflated_sharpe"] >= EVIDENCE or gaps["above"] > gaps["expected"]
    said = "Some policies beat" if is_beaten else "Nothing beats"
    name = best["best"]
    return (
        f"**{said} constant leverage after costs.** At equal risk, {gaps['n']} differences of "
        f"growth from constant leverage were tested: {gaps['above']} are above zero and "
        f"{gaps['below']} below by more than noise; chance alone gives {gaps['expected']:.3g}. The "
        f"best Sharpe ratio of {best['tries']} accounts is {best['sharpe']:.2f} "
        f"(`{name['policy']}` on {name['market']} at risk {name['risk']:g}); the best of so many "
        f"without skill has {best['lucky_sharpe']:.2f}. The deflated Sharpe ratio is "
        f"{best['deflated_sharpe']:.2f}, and {EVIDENCE} would be evidence. Ruined were "
        f"{count_ruined(found['rows'])}.\n"
    )


def count_ruined(rows: list[dict[str, Any]]) -> str:
    """Return how many accounts were ruined at each risk."""
    shown = []
    for risk in dict.fromkeys(row["risk"] for row in rows):
        fates = [row["own"]["ruined"] for row in rows if row["risk"] == risk]
        shown.append(f"{sum(fates):g} of {len(fates)} accounts at risk {risk:g}")
    return ", ".join(shown)


def write_source(found: dict[str, Any]) -> str:
    """Return commit, settings and data."""
    kept = found["settings"]
    files = "".join(f"- `{name}`: `{digest[:16]}...`\n" for name, digest in found["data"].items())
    return (
        f"## Data\n\nComputed at commit `{found['commit']}` on bars from {kept['start']} to "
        f"{kept['end']}, "
        f"tuned on {kept['train']}, tested on the next {kept['test']}, {kept['trials']} sets a "
        f"span. SHA-256 of the files:\n\n{files}"
    )


def write_markets(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a section for each market, with a tab for each risk."""
    for market in dict.fromkeys(row["market"] for row in rows):
        yield f"## {market}\n\n::::{{tab-set}}\n"
        own = [row for row in rows if row["market"] == market]
        for risk in dict.fromkeys(row["risk"] for row in own):
            shown = sorted((row for row in own if row["risk"] == risk), key=rank, reverse=True)
            table = write_table(HEAD, map(list_cells, shown))
            yield f":::{{tab-item}} risk {risk:g}\n{table}:::\n"
        yield "::::\n"


def rank(row: dict[str, Any]) -> float:
    """Return growth at equal risk; ruin is lowest."""
    growth = row["equal"]["log_growth"]
    return -math.inf if growth is None or row["equal"]["ruined"] else float(growth)


def list_cells(row: dict[str, Any]) -> list[str]:
    """Return the cells of a row; a star marks a policy that was not tuned."""
    own, equal = row["own"], row["equal"]
    star = "" if row["tuned"] else " *"
    return [
        f"[`{row['policy']}`](/generated/gallery/{find_page(row['policy'])}.md){star}",
        write_growth(own),
        write_sharpe(own),
        f"{own['max_drawdown']:.1%}",
        f"{own['liquidations']:g}" if own["liquidations"] else "",
        f"{own['cost']:.1%}",
        write_growth(equal),
        write_sharpe(equal),
    ]


def find_page(name: str) -> str:
    """Return the name of the page of a policy in the gallery."""
    from backtest import strategies

    title: str = getattr(strategies, name).title()
    return title


def write_growth(measures: dict[str, Any]) -> str:
    """Return log growth a year, or that the account was ruined."""
    growth = measures["log_growth"]
    return "ruined" if measures["ruined"] or growth is None else f"{growth:+.1%}"


def write_sharpe(measures: dict[str, Any]) -> str:
    """Return the Sharpe ratio with its interval of 95 %."""
    sharpe, error = measures["sharpe"], measures["sharpe_error"]
    if sharpe is None or error is None:
        return ""
    return f"{sharpe:.2f} ({sharpe - 1.96 * error:.2f} to {sharpe + 1.96 * error:.2f})"
