"""What ``run``, ``retry`` and ``backfill`` show: progress, how everything ended, where to look.

Nothing heavy is imported at the top: ``wombat --help`` must answer at once.
"""

import contextlib
import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from wombat_dagster.terminal import console, count, printable, table_of

if TYPE_CHECKING:
    from dagster import DagsterInstance
    from rich.console import Console

    from wombat_dagster.domain import RawFrame
    from wombat_dagster.observatory import Observatory
    from wombat_dagster.runs import Crew, Done, Plan, Task
    from wombat_dagster.store.status import TargetRow

log = logging.getLogger(__name__)

OURS = 1  # exit code for failures of wombat itself
INTERRUPTED = 130  # exit code after Ctrl-C, as shells count: 128 and the signal's number
CALIBRATIONS_WEIGH = 5.0  # a night's masters take about as long as so many light frames
MAX_LINES = 40  # of a table of endings; more are counted by their words
MAX_NAMED = 10
MAX_FORGOTTEN = 50  # old runs, at the end of one command
STAGES = {
    "raw_frames": "sorting frames",
    "master_bias": "master bias",
    "master_darks": "master darks",
    "master_flats": "master flats",
    "bad_pixels": "bad pixels",
    "detector_noise": "detector",
    "calibration_choice": "choosing masters",
    "reduced_frames": "reducing",
    "wcs_solutions": "plate solving",
    "variable": "looking up the variable",
    "comp_list": "choosing comparison stars",
    "photometry_table": "measuring",
    "standard_magnitudes": "standard magnitudes",
    "light_curve": "light curve",
    "diagnostics": "pictures",
    "frame_triage": "grading frames",
}


def carry_out(
    observatory: "Observatory",
    planned: "Plan | Callable[[Collection[str]], Plan]",
    *,
    n_workers: int = 0,
) -> int:
    """Carry a plan out with a progress bar, print how it ended and return the exit code.

    `planned` may be a function that makes the plan, given the partitions that somebody else works
    on. With `n_workers` the work is done by so many processes, else by this one.
    """
    from wombat_dagster import runs
    from wombat_dagster.litter import clean_litter
    from wombat_dagster.workers import NoWorkers

    quieten_dagster()
    base = observatory.settings.base
    clean_litter(observatory)
    done: dict[str, runs.Done] = {}
    with runs.home(base) as instance, _ended_by_sigterm_as_by_ctrl_c():
        busy = runs.busy_elsewhere(instance, base)
        if callable(planned):
            with console(stderr=True).status("Looking at the data directory…"):
                runs.ask_services(observatory)
                planned = planned(busy)
        if not planned.nights and not planned.observations:
            console().print("Nothing to do.")
            _print_left(observatory, planned, busy)
            return 0

        interrupted, broken = False, ""
        try:
            with progress_of(planned) as (on_step, on_done):

                def note(one: "Done") -> None:
                    done[one.key] = one
                    on_done(one)

                with _crew(instance, observatory, n_workers, on_step) as crew:
                    runs.execute(instance, planned, crew=crew, on_done=note, busy=busy)
        except KeyboardInterrupt:
            interrupted = True
        except NoWorkers as error:
            broken = str(error)
        if not interrupted:
            _forget_old_runs(instance, keep_days=observatory.settings.runs.keep_days)
    _print_endings(observatory, list(done.values()))
    _print_left(observatory, planned, busy)
    if interrupted:
        console().print("Interrupted. The same command goes on with what is left.")
        return INTERRUPTED
    if broken:
        console().print(f"Not all was begun: {printable(broken)}")
    return OURS if broken or any(one.error for one in done.values()) else 0


def _forget_old_runs(instance: "DagsterInstance", *, keep_days: float) -> None:
    """Delete a few of Dagster's records that are to be forgotten; troubles wait for the next."""
    from wombat_dagster.retention import prune

    try:
        for _ in islice(prune(instance, keep_days=keep_days), MAX_FORGOTTEN):
            pass
    except Exception as error:  # noqa: BLE001 - Dagster, SQLAlchemy, SQLite, the disk: all pass
        log.debug("records of old runs stay: %s", error)


@contextlib.contextmanager
def _crew(
    instance: object,
    observatory: "Observatory",
    n_workers: int,
    on_step: Callable[[str, str], None],
) -> "Iterator[Crew]":
    from dagster import DagsterInstance

    from wombat_dagster.runs import Alone
    from wombat_dagster.workers import Workers

    assert isinstance(instance, DagsterInstance)
    if not n_workers:
        yield Alone(instance, on_step)
        return
    with Workers(
        instance,
        observatory.settings.base,
        n=n_workers,
        time_limit_s=observatory.settings.runs.time_limit_s,
        on_step=on_step,
    ) as workers:
        yield workers


@contextlib.contextmanager
def _ended_by_sigterm_as_by_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def quieten_dagster() -> None:
    """Leave the terminal to us: Dagster's own record of the runs is in its event log."""
    import logging

    for name in ("dagster", "alembic", "httpx", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("wombat_dagster.runs").setLevel(logging.CRITICAL)  # in our table


# ------------------------------------------------------------------------------------- progress


@contextlib.contextmanager
def progress_of(
    planned: "Plan",
) -> Iterator[tuple[Callable[[str, str], None], Callable[["Done"], None]]]:
    """Show a plan's progress with the time left; give the listeners for stages and for ends.

    A unit weighs as many light frames as it has. Without a terminal each end is one line.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from wombat_dagster.jobs import NIGHT_ASSETS, OBSERVATION_ASSETS

    weights = dict.fromkeys(planned.nights, CALIBRATIONS_WEIGH)
    weights |= {r.observation.key: CALIBRATIONS_WEIGH + r.n_frames for r in planned.observations}
    ahead, at_work = set(weights), dict[str, float]()
    done_weight = 0.0
    out = console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeft(),
        console=out,
        expand=True,
        transient=True,
        speed_estimate_period=24 * 3600.0,
    )
    task = bar.add_task("starting", total=sum(weights.values()))

    def on_step(key: str, asset: str) -> None:
        stages = OBSERVATION_ASSETS if asset in OBSERVATION_ASSETS else NIGHT_ASSETS
        words = STAGES.get(asset, asset)
        if key not in ahead:  # magnitudes once more, with another filter's colour
            bar.update(task, description=f"{key}: {words}, once more")
            return
        at_work[key] = stages.index(asset) / len(stages) * weights[key]
        n_ended = len(weights) - len(ahead)
        others = f" and {len(at_work) - 1} more" if len(at_work) > 1 else ""
        bar.update(
            task,
            description=f"{n_ended + 1}/{len(weights)} {key}: {words}{others}",
            completed=done_weight + sum(at_work.values()),
        )

    def on_done(done: "Done") -> None:
        nonlocal done_weight
        place = "+"  # not planned, or tried again
        at_work.pop(done.key, None)
        if done.key in ahead:
            ahead.discard(done.key)
            done_weight += weights[done.key]
            place = f"{len(weights) - len(ahead)}/{len(weights)}"
            bar.update(task, completed=done_weight + sum(at_work.values()))
        if not out.is_terminal:
            ending = "failed" if done.error else "left" if done.left else "done"
            out.print(f"{place} {done.key}: {ending}{_left(bar)}")

    if not out.is_terminal:
        bar.start_task(task)
        yield on_step, on_done
        return
    with bar:
        yield on_step, on_done


def _left(bar: object) -> str:
    """Return how long the rest will take, in words, when that can be said."""
    from rich.progress import Progress

    assert isinstance(bar, Progress)
    (task,) = bar.tasks
    left_s = task.time_remaining
    return f", {left_s / 60:.0f} min left" if left_s and left_s > 90 else ""


# ------------------------------------------------------------------------------------- the plan


def show_plan(observatory: "Observatory", planned: "Plan") -> None:
    """Print what a plan would do and why, and which flats it would move."""
    from wombat_dagster.stages.work import MAGNITUDES_JOB, STARS_JOB, TRIAGE_JOB

    out = console()
    nights = table_of("Night", "Masters from", "Why", wide="Why")
    mixed: list[str] = []
    for key in planned.nights:
        frames = _frames_of(observatory, key)
        mixed += _mixed_flats(frames)
        nights.add_row(key, _calibrations(frames), printable(planned.task(key).why))
    if planned.nights:
        out.print(nights)
    table = table_of("Night", "Target", "Filter", "Frames", "Now", "To be made", "Why", wide="Why")
    made = {
        MAGNITUDES_JOB: "magnitudes",
        STARS_JOB: "from the variable on",
        TRIAGE_JOB: "grades of the frames",
    }
    for row in planned.observations:
        task = planned.task(row.observation.key)
        table.add_row(
            *_unit(row),
            str(row.n_frames),
            _word(row),
            made.get(task.job, "all") if not task.assets else f"from {task.assets[0]} on",
            printable(_why_made(row, task)),
        )
    if planned.observations:
        out.print(table)
    if mixed and observatory.settings.calibration.organise_flats == "move":
        out.print(f"Flats would be sorted by filter in {', '.join(mixed)}.")
    _print_left(observatory, planned, ())
    jobs = Counter(planned.task(row.observation.key).job for row in planned.observations)
    words = [
        count(len(planned.nights), "night"),
        count(len(planned.observations), "observation"),
    ]
    words += [f"of {jobs[MAGNITUDES_JOB]} the magnitudes alone"][: jobs[MAGNITUDES_JOB]]
    out.print(f"Dry run: {', '.join(words)}; nothing was written.")


def _why_made(row: "TargetRow", task: "Task") -> str:
    from wombat_dagster.runs import BY_HAND

    if row.submitted and task.why.startswith(BY_HAND):
        return f"{row.submitted}: made again because you ask{task.why.removeprefix(BY_HAND)}"
    return f"{row.submitted}; {task.why}" if row.submitted else task.why


def _frames_of(observatory: "Observatory", key: str) -> "Sequence[RawFrame]":
    from wombat_dagster.store.layout import parse_night_date

    date = parse_night_date(key)
    assert date is not None
    return observatory.status.night_frames(date)


def _calibrations(frames: "Sequence[RawFrame]") -> str:
    counts = Counter(
        f"{frame.kind} {frame.filter or ''}".strip()
        for frame in frames
        if frame.kind != "light" and not frame.reason
    )
    words = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
    return words or "nothing of its own"


def _mixed_flats(frames: "Sequence[RawFrame]") -> list[str]:
    """Return the directories with flats of more than one filter."""
    filters: dict[str, set[str]] = {}
    for frame in frames:
        if frame.kind == "flat" and frame.filter:
            filters.setdefault(frame.path.rpartition("/")[0], set()).add(frame.filter)
    return [directory for directory, found in filters.items() if len(found) > 1]


# ------------------------------------------------------------------------------------- the ends


def _print_endings(observatory: "Observatory", done: Sequence["Done"]) -> None:
    """Print done, parked by reason, and failed with where to look."""
    from wombat_dagster.doubts import doubts_in_words

    out = console()
    failed = {one.key: one for one in done if one.error}
    anew = {one.key for one in done if one.only_magnitudes} - failed.keys()
    left = {one.key: one.left for one in done if one.left}
    keys = {
        one.key
        for one in done
        if not one.only_magnitudes and "__" in one.key and one.key not in left
    }
    by_key = {row.observation.key: row for row in observatory.status.targets()}
    rows = [row for key, row in by_key.items() if key in keys - failed.keys()]
    again = [row for key, row in by_key.items() if key in anew]
    if len(rows) + len(again) > MAX_LINES:
        _print_counted(out, [*rows, *again])
    elif rows or again:
        table = table_of("Ended", "Night", "Target", "Filter", "Frames", "Why", wide="Why")
        for row in sorted([*rows, *again], key=lambda r: (_word(r) != "validate", _word(r))):
            word = f"{_word(row)} ({row.submitted})" if row.submitted else _word(row)
            table.add_row(word, *_unit(row), str(row.n_frames), printable(row.reason or ""))
        out.print(table)
    if failed:
        _print_failed(out, observatory, failed)
    for key, why in left.items():
        out.print(f"At work elsewhere: {key} {printable(why)}", soft_wrap=True)
    for line in doubts_in_words(observatory, [row.observation.key for row in (*rows, *again)]):
        out.print(printable(line), soft_wrap=True)
    measured = [row for row in rows if _word(row) == "validate"]
    decided = Counter(str(row.submitted) for row in measured if row.submitted)
    waiting = len(measured) - decided.total()
    words = []
    if keys:
        words.append(f"{waiting} of {count(len(keys), 'observation')} waiting for validation")
    elif not anew:
        words.append("No observation was made")
    words += [f"made again though decided: {n} {word}" for word, n in decided.items()]
    words += [f"magnitudes made anew: {count(len(again), 'observation')}"][: bool(again)]
    n_before = len(rows) - len(measured)
    words += [f"{n_before} ended before, for the reasons above"][:n_before]
    words += [f"{len(left)} wait for a night at work elsewhere"][: len(left)]
    words += [f"{len(failed)} failed in wombat itself"][: bool(failed)]
    out.print("; ".join(words) + ".")
    if measured or again:
        out.print(f"Light curves and tables: {observatory.layout.products}")


def _print_counted(out: "Console", rows: Sequence["TargetRow"]) -> None:
    table = table_of(
        "Ended", "Observations", "First of them, and why", wide="First of them, and why"
    )
    by_word: dict[str, list[TargetRow]] = {}
    for row in rows:
        by_word.setdefault(_word(row), []).append(row)
    for word, those in sorted(by_word.items(), key=lambda pair: (pair[0] != "validate", pair[0])):
        first = those[0]
        table.add_row(
            word, str(len(those)), printable(f"{first.observation.key} {first.reason or ''}")
        )
    out.print(table)


def _print_failed(out: "Console", observatory: "Observatory", failed: Mapping[str, "Done"]) -> None:
    table = table_of("Failed", "What went wrong", "Run", wide="What went wrong")
    for one in failed.values():
        table.add_row(one.key, printable(one.error or ""), one.run_id[:8])
    out.print(table)
    out.print("Tracebacks: wombat up, then Runs in the UI, by the beginning of the run's id.")
    layout = observatory.layout
    logs = [
        (layout.observation_dir(key) if "__" in key else layout.night_products_dir(key)) / "log.txt"
        for key in failed
    ]
    for file in [file for file in logs if file.exists()][:MAX_NAMED]:
        out.print(f"Log: {file}", soft_wrap=True)


def _print_left(observatory: "Observatory", planned: "Plan", busy: Collection[str]) -> None:
    """Print what was left alone, and why."""
    out = console()
    for words in planned.parked.values():
        out.print(f"Parked: {printable(words)}", soft_wrap=True)
    if busy:
        out.print(f"At work elsewhere, and left alone: {_named(sorted(busy))}", soft_wrap=True)
    planned_keys = {row.observation.key for row in planned.observations}
    rows = [row for row in observatory.status.targets() if row.changed_since]
    changed = {
        row.observation.key: str(row.changed_since)
        for row in rows
        if row.submitted is not None and row.observation.key not in planned_keys
    }
    again = [
        row.observation.key for row in rows if row.submitted is None and row.retired_utc is None
    ]
    if again:
        out.print(
            f"Changed since you approved, to be looked at again: {_named(again)}.", soft_wrap=True
        )
    if changed:
        words = _named([f"{key} ({printable(text)})" for key, text in changed.items()])
        out.print(
            f"Changed since you decided, and left as they were: {words}."
            " wombat run NIGHT TARGET makes one again.",
            soft_wrap=True,
        )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return f"{', '.join(names[:MAX_NAMED])}{more}"


def _word(row: "TargetRow") -> str:
    return row.apphot or row.proc or "new"


def _unit(row: "TargetRow") -> tuple[str, str, str]:
    unit = row.observation
    return unit.date.isoformat(), printable(unit.target), printable(unit.filter)
