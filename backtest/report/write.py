"""The doors: what may be reported, how a saved one is found by its name, and where it is put."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from backtest.base.errors import DataError, ParameterError, did_you_mean
from backtest.base.result_folders import MANIFEST, read_json
from backtest.compare import Comparison
from backtest.engine.result import Result
from backtest.report.basis.data_and_command import NOTHING, Background, Reported, find_background
from backtest.report.page.page import Page
from backtest.sweep.sweep_table import Sweep
from backtest.tune import Study
from backtest.tune.study_folder import STUDY

SHORTEST = 4
"""Letters of an id that may stand for it."""
MOST_NAMED = 5


def build_page(source: Reported, objective: str = "sharpe", *, reads_data: bool = True) -> Page:
    """Return the report of a run, sweep, study or comparison.

    Parameters
    ----------
    source : Result, Sweep, Study or Comparison
        What to report.
    objective : str
        The measure by which the sets of a sweep are looked at.
    reads_data : bool
        Whether to report on the quality of the data: they are loaded from where the manifest says
        they are, and used where they still have the content that was lived through.
    """
    background = find_background(source, reads_data=reads_data)
    page = build_kind(source, objective, background)
    collect = page.collect
    return replace(page, collect=lambda: {**collect(), **background.to_dict()})


def build_kind(
    source: Reported, objective: str = "sharpe", background: Background = NOTHING
) -> Page:
    """Return the report by the kind of what is reported."""
    if isinstance(source, Result):
        from backtest.report.run.run_page import build_run  # noqa: PLC0415 - one of them is needed

        return build_run(source, background)
    if isinstance(source, Sweep):
        from backtest.report.sets.sweep_page import build_sweep  # noqa: PLC0415

        return build_sweep(source, objective, background)
    if isinstance(source, Comparison):
        from backtest.report.compare_page import build_comparison  # noqa: PLC0415

        return build_comparison(source, background)
    from backtest.report.sets.study_page import build_study  # noqa: PLC0415

    return build_study(source, background)


# ------------------------------------------------------------------------------------ saved ones


def load(folder: Path) -> Reported:
    """Return what a folder holds: a run, a sweep, a study or a comparison.

    Raises
    ------
    DataError
        If it holds none of these, or a file of it is missing or damaged.
    """
    if (folder / STUDY).is_file():
        return Study.load(folder)
    manifest = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    kind = manifest.get("kind", "run") if isinstance(manifest, dict) else "run"
    kinds: dict[Any, Any] = {"run": Result, "sweep": Sweep, "comparison": Comparison}
    if kind not in kinds:
        raise DataError(
            f"the kind of a result must be one of {', '.join(kinds)}, was {kind!r:.40}",
            where=str(folder / MANIFEST),
            cure="report it with the version that saved it",
        )
    found: Reported = kinds[kind].load(folder)
    return found


def find_folder(name: str, results: Path) -> Path:
    """Return the folder of a saved result.

    Parameters
    ----------
    name : str
        The folder itself; or the name of one inside ``results``, its id, or how either begins.
    results : Path
        The folder of saved results.

    Raises
    ------
    DataError
        If there is none, or a beginning fits several.
    """
    if name and is_result(Path(name)):
        return Path(name)
    known = sorted(each.name for each in results.glob("*") if is_result(each))
    if name in known:
        return results / name
    fits = [each for each in known if begins(each, name)]
    if len(fits) == 1:
        return results / fits[0]
    if fits:
        shown = ", ".join(fits[:MOST_NAMED]) + (", ..." if len(fits) > MOST_NAMED else "")
        raise ParameterError(
            f"a name must fit one result, {name!r:.60} fits {len(fits)}: {shown}",
            where=str(results),
            cure="give more letters of it",
        )
    raise DataError(
        f"a result must be there to be reported, none is called {name!r:.60}"
        + did_you_mean(name, known),
        where=str(results),
        cure="give the folder that `backtest run` printed, or its name or id in --results",
    )


def is_result(folder: Path) -> bool:
    """Tell whether a folder holds something saved, and is no draft of it."""
    is_there = (folder / MANIFEST).is_file() or (folder / STUDY).is_file()
    return is_there and not folder.name.startswith(".")


def begins(folder: str, name: str) -> bool:
    """Tell whether a folder's name or id begins with a text.

    Examples
    --------
    >>> begins("voltarget-0a1b2c3d", "0a1b"), begins("voltarget-0a1b2c3d", "volt")
    (True, True)
    """
    is_id = len(name) >= SHORTEST and folder.rpartition("-")[2].startswith(name)
    return is_id or (len(name) > 0 and folder.startswith(name))
