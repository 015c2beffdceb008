"""What a place looks like afterwards: what Dagster wrote down, why things ran, which magnitudes.

For drills in which a ``wombat up`` works by itself. Nothing is written.
"""

import contextlib
import datetime as dt
import hashlib
import json
import os
import sqlite3
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import small_night as sn

from wombat_dagster.observatory import open_observatory
from wombat_dagster.products import read_product
from wombat_dagster.stages.inputs import CHOSEN, MASTERS
from wombat_dagster.stages.work import Why
from wombat_dagster.store.layout import is_raw_name
from wombat_dagster.store.stage_runs import StageRun, StageRuns
from wombat_dagster.store.status import TargetRow

SAME_MAG = 1e-9
"""Of magnitudes: the same pixels and numbers go in, whatever the order was."""


# ------------------------------------------------------------------- what Dagster and Linux say


@contextlib.contextmanager
def dagster_database(place: sn.Place, name: str) -> Iterator[sqlite3.Connection]:
    """Open one of Dagster's databases to read."""
    path = next((place.root / ".dagster_state").rglob(name))
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as one:
        yield one


def _count(place: sn.Place, statuses: Sequence[str]) -> int:
    marks = ", ".join("?" * len(statuses))
    try:
        with dagster_database(place, "runs.db") as connection:
            query = f"SELECT count(*) FROM runs WHERE status IN ({marks})"
            return int(connection.execute(query, statuses).fetchone()[0])
    except (StopIteration, sqlite3.OperationalError):
        return 0


def n_at_work(place: sn.Place) -> int:
    """Return how many runs are at work."""
    return _count(place, ["STARTED", "STARTING"])


def n_unfinished(place: sn.Place) -> int:
    """Return how many runs and backfills are not over."""
    n = _count(place, ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
    with (
        contextlib.suppress(StopIteration, sqlite3.OperationalError),
        dagster_database(place, "runs.db") as connection,
    ):
        query = "SELECT count(*) FROM bulk_actions WHERE status IN ('REQUESTED', 'CANCELING')"
        n += int(connection.execute(query).fetchone()[0])
    return n


def n_to_come(place: sn.Place) -> int:
    """Return how many observations have no end yet, and runs are not over."""
    n = n_unfinished(place)
    with contextlib.closing(sqlite3.connect(place.database, timeout=30.0)) as connection:
        query = "SELECT count(*) FROM target WHERE apphot IS NULL AND retired_utc IS NULL"
        with contextlib.suppress(sqlite3.OperationalError):  # no tables yet
            n += int(connection.execute(query).fetchone()[0])
    return n


def runs_of_dagster(place: sn.Place) -> list[tuple[str, str, str, float]]:
    """Return partition, job, status and time of creation (s, Unix) of every run."""
    with dagster_database(place, "runs.db") as connection:
        rows = connection.execute(
            "SELECT partition, pipeline_name, status, create_timestamp FROM runs ORDER BY id"
        )
        return [
            (p or "", job, status, dt.datetime.fromisoformat(at).replace(tzinfo=dt.UTC).timestamp())
            for p, job, status, at in rows
        ]


def ticks_s(place: sn.Place) -> dict[str, list[float]]:
    """Return how long the ticks of every sensor took, by its name."""
    found = defaultdict(list)
    with dagster_database(place, "schedules.db") as connection:
        for (body,) in connection.execute("SELECT tick_body FROM job_ticks"):
            data = json.loads(body)
            if data["end_timestamp"]:
                found[data["job_name"]].append(data["end_timestamp"] - data["timestamp"])
    return dict(found)


def descendants(pid: int) -> list[int]:
    """Return a process and all that it has begun, and these, and so on."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True)
    children = defaultdict(list)
    for line in listed.stdout.decode().splitlines():
        child, parent = map(int, line.split())
        children[parent].append(child)
    tree = [pid]
    for one in tree:
        tree += children[one]
    return tree


def cpu_s_of(pids: Sequence[int]) -> float:
    """Return the CPU time of living processes and of their children that ended: proc(5)."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            ticks += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


# -------------------------------------------------------------------------------------- the judging


def raw_files(root: Path) -> Counter[str]:
    """Return the hashes of all raw files below a directory."""
    files = [p for p in root.rglob("*") if p.is_file() and is_raw_name(p.name)]
    return Counter(hashlib.sha256(path.read_bytes()).hexdigest() for path in files)


def rows_of(place: sn.Place) -> dict[tuple[dt.date, str, str], TargetRow]:
    """Return the observations that are not retired, by date, target and filter."""
    return {
        (row.observation.date, row.observation.target, row.observation.filter): row
        for row in open_observatory(place.config).status.targets()
        if row.retired_utc is None
    }


MAGNITUDES = ("t1_mag", "t1_random_mag", "t1_merr_mag", "t2_mag")


def compare(year: sn.Place, clean: sn.Place) -> tuple[float, int, list[str]]:
    """Compare the magnitudes of two places.

    Returns
    -------
    tuple
        The largest difference (mag), how many observations are equal in every bit of these columns,
        and what is not as it should be, in words.
    """
    faults, largest, n_equal = [], 0.0, 0
    ours, theirs = rows_of(year), rows_of(clean)
    if ours.keys() != theirs.keys():
        faults += [
            f"only in one of the two: {unit}" for unit in sorted(ours.keys() ^ theirs.keys())
        ]
    for unit in sorted(ours.keys() & theirs.keys()):
        name = f"{unit[0]} {unit[1]} {unit[2]}"
        words = [(row.proc, row.apphot, row.reason) for row in (ours[unit], theirs[unit])]
        if words[0] != words[1]:
            faults.append(f"{name}: {words[0]}, in the backfill {words[1]}")
        values = [
            magnitudes_of(place, rows[unit]) for place, rows in ((year, ours), (clean, theirs))
        ]
        if values[0] is None or values[1] is None:
            if (values[0] is None) != (values[1] is None):
                faults.append(f"{name}: magnitudes in one of the two only")
            continue
        differences = [
            float(np.max(np.abs(one - other))) if one.shape == other.shape else np.inf
            for one, other in zip(values[0], values[1], strict=True)
        ]
        n_equal += not any(differences)
        largest = max(largest, *differences)
        if max(differences) > SAME_MAG:
            which = MAGNITUDES[int(np.argmax(differences[:-1]))] if any(differences[:-1]) else ""
            faults.append(f"{name}: magnitudes differ by {max(differences):.2g} mag ({which})")
    return largest, n_equal, faults


def magnitudes_of(place: sn.Place, row: TargetRow) -> list[np.ndarray] | None:
    """Return the columns that are compared, missing values as 99, and `zp_err_mag`."""
    observatory = open_observatory(place.config)
    try:
        found = read_product(observatory, "standard_magnitudes", row.observation.key)
    except FileNotFoundError:
        return None
    order = np.argsort(found.jd_utc)
    columns = [np.nan_to_num(getattr(found, name), nan=99.0)[order] for name in MAGNITUDES]
    return [*columns, np.atleast_1d(np.nan_to_num(found.zp_err_mag, nan=99.0))]


@dataclass(slots=True)
class Tally:
    """Why things were run, once more each."""

    n_first: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)
    most: Counter[str] = field(default_factory=Counter)


def explain_runs(place: sn.Place) -> Tally:
    """Say of every run of every partition but the first why it was, from what is written down."""
    rows = StageRuns(place.database)
    with contextlib.closing(sqlite3.connect(place.database)) as connection:
        keys = [key for (key,) in connection.execute("SELECT DISTINCT key FROM stage_run")]
    histories = {key: rows.history(key) for key in keys}
    tally = Tally()
    for key, history in histories.items():
        by_run: dict[str, list[StageRun]] = defaultdict(list)
        for one in history:
            by_run[one.run_id].append(one)
        tally.n_first += 1
        tally.most[key] = len(by_run)
        before: dict[str, StageRun] = {}
        last: list[StageRun] = []
        for run in by_run.values():
            if last:
                reason = reason_of(key, run, last, before, histories)
                if reason is None:
                    why = next((one.why for one in run if one.why), "no reason stated")
                    tally.unexplained.append(f"{key} run {run[0].run_id[:8]}: {why}")
                else:
                    tally.reasons[f"{'night' if '__' not in key else 'observation'}: {reason}"] += 1
            before |= {one.asset: one for one in run}
            last = run
    return tally


def reason_of(
    key: str,
    run: Sequence[StageRun],
    last: Sequence[StageRun],
    before: Mapping[str, StageRun],
    histories: Mapping[str, Sequence[StageRun]],
) -> str | None:
    """Return what a run had as a reason, None when nothing that is written down gives one.

    `last` is the run before it, `before` the newest row of every stage at that time.
    """
    if any(one.is_broken for one in last):
        return "interrupted" if any(one.ending is None for one in last) else "failed before"
    if any("Unavailable" in (one.ending or "") for one in last):
        return "parked before"
    changed = []
    for one in run:
        old = before.get(one.asset)
        if old is None:
            continue
        for name in sorted({*one.inputs, *old.inputs}):
            if name == MASTERS:
                continue  # of the whole library; what was chosen of it counts
            if one.inputs.get(name) != old.inputs.get(name) and (one.ending or name != CHOSEN):
                changed.append(name)
    if changed:
        return ", ".join(dict.fromkeys(map(_short, changed)))
    why = run[0].why or ""
    if why.startswith(Why.SIBLING) and was_measured_since(key, before, run, histories):
        return "another filter"
    if (
        why.startswith(Why.MASTERS)
        and "__" not in key
        and is_masters_made_since(before, run, histories)
    ):
        return "borrows other masters"
    ended = {one.asset for one in last}
    is_short = any(one.is_shortfall for one in last)
    whole = {"diagnostics", "light_curve"} if "__" in key else {"bad_pixels", "detector_noise"}
    if not is_short and not ended >= whole:
        return "interrupted"
    return None


def _short(name: str) -> str:
    """Return the name of an input for a table of reasons: without which target, which master."""
    if name.startswith("files of"):
        return "files"
    return "frames or masters that its masters are made of" if "/" in name else name


def was_measured_since(
    key: str,
    before: Mapping[str, StageRun],
    run: Sequence[StageRun],
    histories: Mapping[str, Sequence[StageRun]],
) -> bool:
    """Tell whether a sibling filter was measured between two makings of magnitudes.

    Two run side by side: one that was begun before and ended after is not in the old ones either.
    """
    old = before.get("standard_magnitudes")
    unit = key.rpartition("__")[0]
    return old is not None and any(
        one.number < run[-1].number
        and one.ending == "made"
        and (one.ended_utc or "") >= old.begun_utc
        for sibling, history in histories.items()
        if sibling != key and sibling.rpartition("__")[0] == unit
        for one in history
        if one.asset == "photometry_table"
    )


def is_masters_made_since(
    before: Mapping[str, StageRun],
    run: Sequence[StageRun],
    histories: Mapping[str, Sequence[StageRun]],
) -> bool:
    """Tell whether another night's masters were made between two runs of a night."""
    first = min(one.number for one in before.values())
    return any(
        first < one.number < run[0].number and one.ending == "made"
        for key, history in histories.items()
        if "__" not in key and key != run[0].key
        for one in history
        if one.asset in {"master_bias", "master_darks", "master_flats"}
    )


def latencies_s(
    place: sn.Place, arrivals: Sequence[tuple[str, float]], *, quiet_s: float
) -> list[float]:
    """Return the time from the last byte of an arrival to its night's run, less the quiet time.

    `arrivals`: the night and the time (s, Unix). Only of those whose run was asked for after them,
    not of those for which one was waiting to begin.
    """
    asked = defaultdict(list)
    with dagster_database(place, "runs.db") as connection:
        rows = connection.execute(
            "SELECT partition, create_timestamp, start_time FROM runs"
            " WHERE pipeline_name = 'night_job' ORDER BY id"
        )
        for night, created, begun_s in rows:
            created_s = dt.datetime.fromisoformat(created).replace(tzinfo=dt.UTC).timestamp()
            asked[night].append((created_s, begun_s))
    found = []
    for night, arrived_s in arrivals:
        after = [s for s, begun_s in asked[night] if begun_s is None or begun_s > arrived_s]
        if after and after[0] > arrived_s:
            found.append(after[0] - arrived_s - quiet_s)
    return found
