"""``backtest regress``: record the results of experiments, and check that they have not changed."""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from backtest import baselines as gate
from backtest.baselines import Baseline, RegressVerdict
from backtest.baselines.bands import BETTER_IF
from backtest.baselines.baseline import EXACT
from backtest.baselines.facts import JUDGED, WALK
from backtest.cli.build import build_experiment
from backtest.cli.command import AsJson, Files, Text, Texts, argument, command, flag
from backtest.cli.experiment import draft_experiment, split_pair
from backtest.cli.judgements import run_judgement
from backtest.cli.printing import clean, print_json
from backtest.cli.searches import run_validation
from backtest.core import BacktestError, DataError, ParameterError
from backtest.results import Result
from backtest.results.measure_table import METRICS

FOLDER = Path("baselines")
SUMMARY = "GITHUB_STEP_SUMMARY"

Mode = Annotated[Text, flag("What must match: exact (bars and measures) or tolerance (measures).")]


@command("regress record")
def record(
    experiments: Annotated[list[Path], argument("Experiment files (TOML).", "EXPERIMENT...")],
    *,
    out: Annotated[Path, typer.Option(help="The folder of baselines.")] = FOLDER,
    mode: Mode = None,
    tolerance: Annotated[
        Texts,
        flag(
            "How far a measure may move, NAME=0.05, NAME=5% or NAME=any; patterns (es_*) too; "
            "repeat for more. Others: 1e-9 relative."
        ),
    ] = None,
    walk: Annotated[
        bool, flag("Run the walk-forward of validate, and record it as NAME-walk.", "--walk")
    ] = False,
    judge: Annotated[
        bool, flag("Judge the policy by [judge], and record it as NAME-judged.", "--judge")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run experiments and write a baseline for each; none is written if one cannot run.

    backtest regress record calm.toml --mode tolerance --tolerance '*=5%' --tolerance sharpe=0.05
    backtest regress record calm.toml --walk      [dim]# a walk-forward validation[/dim]
    backtest regress record calm.toml --judge --mode tolerance --tolerance '*=10%'
    """
    checked_mode = gate.check_mode(mode or EXACT)
    kind = choose_kind(walk=walk, judge=judge)
    bands = dict(split_pair("--tolerance", text, "sharpe=0.05") for text in tolerance or ())
    check_bands(bands, kind)

    names = [name_recorded(file, kind) for file in experiments]
    gate.check_unique_names(experiments, names)
    refuse_recorded(names, experiments, out)

    # All run before the first is written.
    taken = []
    for name, file in zip(names, experiments, strict=True):
        baseline = gate.take_baseline(
            run_recorded(file, kind),
            name,
            experiment=Path(os.path.relpath(file, out)).as_posix(),
            mode=checked_mode,
            tolerance=bands,
        )
        taken.append(baseline)
    paths = [gate.save_baseline(baseline, out) for baseline in taken]

    if as_json:
        rows = {}
        for baseline, path in zip(taken, paths, strict=True):
            rows[baseline.name] = {"path": str(path), "mode": baseline.mode}
        print_json(rows)
        return
    for baseline, path in zip(taken, paths, strict=True):
        bars = f"{len(baseline.trace.time):,} bars"
        typer.echo(f"{baseline.name}: recorded, {bars}: {path}")


def choose_kind(*, walk: bool, judge: bool) -> str:
    """Return whether a walk or a judgement is recorded, empty of a run."""
    if walk and judge:
        raise ParameterError("a baseline is of a walk or of a judgement, got --walk and --judge")
    if walk:
        return WALK
    if judge:
        return JUDGED
    return ""


def check_bands(bands: Mapping[str, str], kind: str) -> None:
    """Raise a ParameterError for a tolerance of no measure of such a result."""
    if kind == JUDGED:  # its measures have the names of its markets
        return
    measures = [*METRICS]
    if kind == WALK:
        measures += BETTER_IF
    gate.choose_bands(measures, bands, {})


def name_recorded(file: Path, kind: str) -> str:
    """Return the name of an experiment's baseline."""
    if not kind:
        return gate.name_baseline(file.stem)
    return gate.name_baseline(f"{file.stem}-{kind}")


def refuse_recorded(names: Sequence[str], experiments: Sequence[Path], out: Path) -> None:
    """Raise a DataError for an experiment that has a baseline."""
    existing = {path.stem.casefold(): path for path in out.glob("*.json")}
    for name, file in zip(names, experiments, strict=True):
        path = existing.get(name.casefold())
        if path is not None:
            raise DataError(
                f"an experiment has one baseline, {file} has {path}; backtest regress check "
                f"{shlex.quote(str(out))} --update --reason '...' rewrites it"
            )


def run_recorded(file: Path, kind: str) -> Any:
    """Run an experiment, its walk or its judgement, as its baseline needs it."""
    if kind == WALK:
        return run_validation(draft_experiment(file))
    if kind == JUDGED:
        return run_judgement(draft_experiment(file))
    return run_experiment(file)


def run_experiment(file: Path) -> Result:
    return build_experiment(draft_experiment(file)).run()


@command("regress check")
def check(
    baselines: Annotated[
        Files, argument("Baselines, or folders of them (baselines/).", "BASELINE...")
    ] = None,
    *,
    mode: Mode = None,
    allow_better: Annotated[
        Texts,
        flag("A measure that may move for the better, or a pattern; repeat for more."),
    ] = None,
    update: Annotated[
        bool, flag("Rewrite the baselines that moved; needs --reason.", "--update")
    ] = False,
    reason: Annotated[Text, flag("Why it moved; kept in the baseline.")] = None,
    summary: Annotated[
        Path | None, flag(f"Write Markdown to this file; by default appended to ${SUMMARY} if set.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the experiments of baselines again, and report whether the results are the same.

    Tolerances are those of the baseline: `record --tolerance` sets them, and its file may be
    edited.

    Exit code: 0 same, 1 moved beyond tolerance in either direction, 2 not measured. Baselines of
    tests in a folder are reported as skipped: pytest checks them.

    backtest regress check baselines/calm.json --allow-better sharpe
    backtest regress check --update --reason 'funding was charged twice'
    """
    terms: dict[str, Any] = {"allow_better": allow_better or (), "mode": None}
    if mode is not None:
        terms["mode"] = gate.check_mode(mode)
    gate.list_allowed(terms["allow_better"])
    check_reason(reason, is_updated=update)

    # Before code of a policy runs.
    target = prepare_summary(summary)
    places = baselines or [FOLDER]
    loaded = load_baselines(places)
    tests = find_tests(loaded, places)
    verdicts = []
    for path, baseline in loaded.items():
        if path in tests:
            reason_skipped = "a test made its result: pytest checks it"
            verdicts.append(RegressVerdict(path.stem, gate.SKIPPED, reason_skipped))
        else:
            verdicts.append(check_baseline(path, baseline, terms, reason))

    code = gate.combine_exit_codes(verdicts)
    if target is not None:  # before the output, which a policy may have closed
        with target.open("a", encoding="utf-8") as output:
            output.write(gate.write_markdown(verdicts))
    if as_json:
        print_json({"exit": code, "baselines": [verdict.to_dict() for verdict in verdicts]})
    else:
        typer.echo(clean(gate.write_text(verdicts)))
    if code:
        raise typer.Exit(code)


def check_reason(reason: str | None, *, is_updated: bool) -> None:
    """Raise a ParameterError unless there is a reason where baselines are rewritten, only there."""
    if is_updated and not (reason or "").strip():
        raise ParameterError(
            "--update needs a --reason, 'funding was charged twice' for example, got none"
        )
    if reason is not None and not is_updated:
        raise ParameterError("--reason is kept only with a rewritten baseline: it needs --update")


def load_baselines(places: Sequence[Path]) -> dict[Path, Baseline | BacktestError]:
    """Return the baselines by file; one that cannot be loaded is its error."""
    loaded: dict[Path, Baseline | BacktestError] = {}
    for path in gate.find_baselines(places):
        try:
            loaded[path] = gate.load_baseline(path)
        except BacktestError as error:
            loaded[path] = error

    gate.check_unique_names([*loaded], [path.stem for path in loaded])
    return loaded


def find_tests(
    loaded: Mapping[Path, Baseline | BacktestError], places: Sequence[Path]
) -> set[Path]:
    """Return the baselines of tests, which are skipped beside others unless they are named."""
    tests = set()
    for path, baseline in loaded.items():
        if isinstance(baseline, Baseline) and baseline.experiment is None:
            tests.add(path)

    if len(tests) == len(loaded):
        return set()
    return tests - {*places}


def prepare_summary(given: Path | None) -> Path | None:
    """Return the file that the verdict is appended to, empty unless it is that of a CI step.

    It is called before code of a policy runs: a policy may change the folder, and if it ended the
    process, the verdict of an earlier check would stand for this one.
    """
    step = None
    text = os.environ.get(SUMMARY)
    if text:
        step = Path(text).absolute()
    if given is None:
        return step

    target = given.absolute()
    if target != step:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"")
    return target


def check_baseline(
    path: Path,
    was: Baseline | BacktestError,
    terms: Mapping[str, Any],
    reason: str | None,
) -> RegressVerdict:
    """Return the verdict on a baseline: its experiment is run again, and compared with it.

    ``was`` is an error where the baseline cannot be read. Whatever fails is a verdict too, so that
    the others are still checked. With a ``reason``, a baseline that is another now is written anew.
    """
    if isinstance(was, BacktestError):
        return gate.report_failure(path.stem, was)
    try:
        now = run_again(path, was)
        verdict = gate.compare_baselines(was, now, **terms)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # code of a policy may raise anything
        if not isinstance(error, BacktestError):
            traceback.print_exc(file=sys.stderr)
        return gate.report_failure(was.name, error, terms["mode"] or was.mode)

    # Only --update gives a reason.
    if reason is None or not now.is_other_than(was):
        return verdict
    gate.save_baseline(gate.rewrite_baseline(was, now, reason), path.parent)
    return verdict.as_rewritten(reason)


def run_again(path: Path, was: Baseline) -> Baseline:
    if was.experiment is None:
        raise DataError(
            f"{path} has no experiment to run again: a test made it, and pytest checks it"
        )
    file = Path(os.path.normpath(path.parent / was.experiment))
    kind = next((kind for kind in (WALK, JUDGED) if kind in was.facts), "")
    return gate.take_baseline(run_recorded(file, kind), was.name)
