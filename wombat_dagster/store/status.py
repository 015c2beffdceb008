"""What ``wombatpipeline`` knows of nights, frames, masters, solutions and observations.

All SQL lives in this package. Every write is one short ``BEGIN IMMEDIATE`` transaction, so that a
person may read, and other processes write, at any time. `submitted` and the person's decisions are
never written by a re-run.
"""

import contextlib
import datetime as dt
import hashlib
import json
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wombat_dagster.domain import (
    BadPixelMap,
    CheckNight,
    DetectorMeasurement,
    FrameKind,
    FrameSolution,
    Master,
    Observation,
    Proc,
    RawFrame,
    Shortfall,
    distinct_slug,
)
from wombat_dagster.store import schema
from wombat_dagster.store.decisions import (
    MADE_AGAIN,
    approved_frames,
    fold,
    is_decided,
    move_decisions,
)
from wombat_dagster.store.tables import dump_json, load_json

UNKNOWN_FILTER = "unknown"
"""Filter of the row that lists light frames whose filter is not known; never measured."""
MAX_REASONS_IN_WORDS = 3
LAST_SCAN = "last"
"""In place of a date in the table `scan`: the number of the scan begun last."""
FIRST_ASSET = "calibration_choice"
"""What every run of an observation makes first: its inputs say which frames it began with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """One row of the table `target`."""

    observation: Observation
    night: str
    proc_bias: str | None
    proc_flat: str | None
    proc_dark: str | None
    proc: str | None
    apphot: str | None
    submitted: str | None
    reason: str | None
    n_frames: int
    n_quarantined: int
    updated_utc: str | None
    lights: str | None = None
    """Signature of the light frames that `apphot` speaks of (`StatusDatabase.light_signatures`)."""
    changed_since: str | None = None
    """What changed since the person decided (`submitted`), in words."""
    retired_utc: str | None = None
    """Since when its frames are gone from the data directory; None while there are any."""


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def words_without_usable(frames: Sequence[RawFrame]) -> str:
    """Return why not one of an observation's light frames can be used."""
    if not frames:
        return "no light frame is left: those found before are gone"
    in_order = sorted(frames, key=lambda frame: (frame.start_utc or "", frame.path))
    reasons = list(dict.fromkeys(frame.reason or "" for frame in in_order))
    return f"0 of {len(frames)} frames usable: {'; '.join(reasons[:MAX_REASONS_IN_WORDS])}"


def _done(value: str | None) -> str | None:
    """Return the word of a status column; the owner's 0 means "not done", as NULL does."""
    return None if value in (None, "", "0", 0) else value


class StatusDatabase:
    """The database file `wombatpipeline.db`; made, or migrated after a backup, when opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        schema.migrate(path)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        connection = schema.connect(self.path)
        try:
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection, schema.transaction(connection, self.path):
            yield connection

    # ------------------------------------------------------------------------------- phase 1

    def known_frames(self, dates: Iterable[dt.date] | None = None) -> dict[str, RawFrame]:
        """Return every frame of the last scan (only of `dates`) by its path."""
        where, days = "", []
        if dates is not None:
            days = [date.isoformat() for date in dates]
            where = f" WHERE date IN ({_marks(days)})"
        with self._reading() as connection:
            rows = connection.execute(f"SELECT record FROM frame{where}", days).fetchall()
        frames = (load_json(RawFrame, row["record"]) for row in rows)
        return {frame.path: frame for frame in frames}

    def known_dates(self) -> set[dt.date]:
        """Return the dates of every night with frames or masters."""
        with self._reading() as connection:
            rows = connection.execute("SELECT date FROM frame UNION SELECT date FROM master")
            return {dt.date.fromisoformat(row["date"]) for row in rows}

    def begin_scan(self) -> int:
        """Return the number of a scan that begins now, greater than that of every earlier one."""
        with self._writing() as connection:
            (last,) = connection.execute("SELECT ifnull(max(serial), 0) FROM scan").fetchone()
            connection.execute(
                "INSERT OR REPLACE INTO scan (date, serial) VALUES (?, ?)", (LAST_SCAN, last + 1)
            )
        return int(last) + 1

    def record_scan(
        self,
        frames: Sequence[RawFrame],
        dates: Iterable[dt.date],
        *,
        serial: int | None = None,
        without_directory: Collection[dt.date] = (),
    ) -> None:
        """Make `frame`, `target`, `cal` and `cal_group` say what a scan of `dates` found.

        Observations known before keep their row and key; their frame counts follow. Frames that are
        gone are forgotten, and the masters of nights `without_directory`; observations never are:
        without frames they are retired, and one of another name that holds their frames keeps what
        a person decided.
        A night that a scan begun after this one (`serial`, of `begin_scan`) has recorded is left
        as it is.
        """
        if serial is None:
            serial = self.begin_scan()
        with self._writing() as connection:
            later = {
                dt.date.fromisoformat(row["date"])
                for row in connection.execute(
                    "SELECT date FROM scan WHERE serial > ? AND date <> ?", (serial, LAST_SCAN)
                )
            }
            frames = [frame for frame in frames if frame.date not in later]
            kept = ({*dates} | {frame.date for frame in frames}) - later
            days = sorted(date.isoformat() for date in kept)
            before = _pixels_of_targets(connection, days)
            for table in ("frame", "cal", "cal_group"):
                connection.execute(f"DELETE FROM {table} WHERE date IN ({_marks(days)})", days)
            connection.executemany(
                "INSERT OR REPLACE INTO scan (date, serial) VALUES (?, ?)",
                [(day, serial) for day in days],
            )
            connection.executemany(
                "DELETE FROM master WHERE date = ?",
                [(date.isoformat(),) for date in set(without_directory) - later],
            )
            connection.executemany(
                "INSERT OR REPLACE INTO frame VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                [_frame_row(frame) for frame in frames],
            )
            self._record_calibration_counts(connection, frames)
            self._record_targets(connection, frames, days)
            _carry_decisions_over(connection, before, _pixels_of_targets(connection, days))

    def _record_calibration_counts(
        self, connection: sqlite3.Connection, frames: Sequence[RawFrame]
    ) -> None:
        lit = {frame.date for frame in frames if frame.kind is FrameKind.LIGHT}
        counts: Counter[tuple[str, str, str | None]] = Counter()
        groups: Counter[tuple[Any, ...]] = Counter()
        nights: dict[tuple[str, str, str | None], str] = {}
        for frame in frames:
            if frame.kind is FrameKind.LIGHT or frame.reason or frame.date not in lit:
                continue
            filter = frame.filter if frame.kind is FrameKind.FLAT else None
            unit = (frame.date.isoformat(), frame.kind.value, filter)
            counts[unit] += 1
            nights[unit] = min(frame.night_directory, nights.get(unit, frame.night_directory))
            if frame.group is not None:
                exposure = frame.exposure_s if frame.kind is not FrameKind.BIAS else None
                groups[(*unit, exposure, *_group_columns(frame))] += 1
        connection.executemany(
            "INSERT INTO cal (date, type, filter, count, night) VALUES (?,?,?,?,?)",
            [(*unit, n, nights[unit]) for unit, n in counts.items()],
        )
        connection.executemany(
            "INSERT INTO cal_group (date, type, filter, exposure_s, width_px, height_px, binning,"
            " camera, readout, count) VALUES (?,?,?,?,?,?,?,?,?,?)",
            [(*group, n) for group, n in groups.items()],
        )

    def _record_targets(
        self,
        connection: sqlite3.Connection,
        frames: Sequence[RawFrame],
        dates: Sequence[str],
    ) -> None:
        usable: Counter[tuple[str, str, str]] = Counter()
        refused: Counter[tuple[str, str, str]] = Counter()
        nights: dict[tuple[str, str, str], str] = {}
        for frame in frames:
            if frame.kind is not FrameKind.LIGHT or frame.target is None:
                continue
            unit = (frame.date.isoformat(), frame.target, frame.filter or UNKNOWN_FILTER)
            (refused if frame.reason else usable)[unit] += 1
            nights[unit] = min(frame.night_directory, nights.get(unit, frame.night_directory))
        rows = connection.execute("SELECT date, target, filter, key FROM target").fetchall()
        keys = {
            (row["date"], row["target"], row["filter"]): row["key"]
            for row in rows
            if _is_key_of(row["key"], row["date"])  # else a person has edited one of the two
        }
        slugs = _slugs_in_use(keys)
        for unit in sorted(nights):
            date, target, filter = unit
            if unit not in keys:
                keys[unit] = _key(date, target, filter, slugs)
                is_back = not _has_row(connection, keys[unit], unit)
                connection.execute(
                    "INSERT INTO target (date, target, filter, night, key) VALUES (?,?,?,?,?)"
                    " ON CONFLICT (key) DO UPDATE SET date = excluded.date,"
                    " target = excluded.target, filter = excluded.filter"
                    " ON CONFLICT (date, target, filter) DO UPDATE SET key = excluded.key",
                    (*unit, nights[unit], keys[unit]),
                )
                if is_back and is_decided(connection, keys[unit]):  # its row was deleted
                    fold(connection, keys[unit])
            connection.execute(
                "UPDATE target SET n_frames = ?, n_quarantined = ?, night = ?, updated_utc = ?"
                " WHERE key = ? AND (n_frames, n_quarantined, night) IS NOT (?, ?, ?)",
                (
                    usable[unit], refused[unit], nights[unit], _now(), keys[unit],
                    usable[unit], refused[unit], nights[unit],
                ),
            )  # fmt: skip
            if not usable[unit] and filter == UNKNOWN_FILTER:
                words = words_without_usable(
                    [
                        f
                        for f in frames
                        if (f.date.isoformat(), f.target, f.filter) == (date, target, None)
                    ]
                )
                connection.execute(
                    "UPDATE target SET proc = ?, reason = ? WHERE key = ?",
                    (Proc.NOFRAMES, words, keys[unit]),
                )
        self._retire(connection, [k for u, k in keys.items() if u[0] in dates and u not in nights])
        connection.executemany(
            "UPDATE target SET retired_utc = NULL WHERE key = ? AND retired_utc IS NOT NULL",
            [(keys[unit],) for unit in nights],
        )

    def _retire(self, connection: sqlite3.Connection, gone: Sequence[str]) -> None:
        """Retire observations whose frames are gone: nothing is to be done, what was decided stays.

        Their rows are taken up again when the frames come back.
        """
        connection.executemany(
            "UPDATE target SET n_frames = 0, n_quarantined = 0,"
            " retired_utc = ifnull(retired_utc, ?) WHERE key = ?",
            [(_now(), key) for key in gone],
        )
        connection.executemany(
            "UPDATE target SET proc = ?, apphot = NULL, lights = NULL, reason = ?, updated_utc = ?"
            " WHERE key = ? AND apphot IS NOT NULL AND ifnull(submitted, 0) IN (0, '0', '')",
            [(Proc.NOFRAMES, words_without_usable([]), _now(), key) for key in gone],
        )

    # --------------------------------------------------------------------------------- lookups

    def targets(self) -> list[TargetRow]:
        """Return every row of `target`, by date, target and filter."""
        with self._reading() as connection:
            rows = connection.execute("SELECT * FROM target ORDER BY date, target, filter")
            return [_target_row(row) for row in rows if _is_key_of(row["key"], row["date"])]

    def target_row(self, key: str) -> TargetRow:
        """Return the row of the observation `key`.

        Raises
        ------
        LookupError
            No such observation was ever found in the data directory.
        """
        with self._reading() as connection:
            row = connection.execute("SELECT * FROM target WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise LookupError(f"no observation {key} in {self.path.name}")
        return _target_row(row)

    def night_keys(self) -> list[str]:
        """Return the partition keys of every night with frames."""
        with self._reading() as connection:
            rows = connection.execute("SELECT DISTINCT date FROM frame ORDER BY date").fetchall()
        return [row["date"].replace("-", "") for row in rows]

    def light_frames(self, observation: Observation) -> list[RawFrame]:
        """Return the light frames of an observation, quarantined ones included, in time order."""
        filter = None if observation.filter == UNKNOWN_FILTER else observation.filter
        return self._frames(
            "date = ? AND kind = 'light' AND target = ? AND filter IS ?",
            (observation.date.isoformat(), observation.target, filter),
        )

    def light_signatures(self, key: str | None = None) -> dict[str, str]:
        """Return, by observation key, what its light frames are: new when one comes or changes.

        Quarantined ones count: an observation of only those has its end too. With `key` only that
        observation's.
        """
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key, path, frame.reason AS reason,"
                " json_extract(record, '$.size_bytes', '$.mtime_ns') AS file"
                " FROM frame JOIN target ON target.date = frame.date"
                " AND target.target = frame.target AND target.filter = ifnull(frame.filter, ?)"
                " WHERE kind = 'light' AND key = ifnull(?, key) ORDER BY key, path",
                (UNKNOWN_FILTER, key),
            ).fetchall()
        digests: dict[str, Any] = defaultdict(hashlib.sha256)
        for row in rows:
            line = f"{row['path']}\0{row['file']}\0{row['reason'] or ''}\n"
            digests[row["key"]].update(line.encode())
        return {key: digest.hexdigest()[:16] for key, digest in digests.items()}

    def night_frames(self, date: dt.date, kind: FrameKind | None = None) -> list[RawFrame]:
        """Return the frames of a night, quarantined ones included, in time order."""
        return self._frames(
            "date = ? AND kind = ifnull(?, kind)", (date.isoformat(), kind and kind.value)
        )

    def _frames(self, where: str, values: Sequence[Any]) -> list[RawFrame]:
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT record FROM frame WHERE {where} ORDER BY start_utc, path",
                values,
            ).fetchall()
        return [load_json(RawFrame, row["record"]) for row in rows]

    # --------------------------------------------------------------------------------- masters

    def record_masters(self, masters: Sequence[Master]) -> None:
        """Make the table `master` hold `masters`."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO master VALUES (?,?,?,?,?,?,?,?,?,?,?)",
                [
                    (
                        m.path, m.date.isoformat(), m.kind.value, m.filter, m.exposure_s,
                        m.content_hash, m.n_used, m.n_refused, int(m.made_by_us), dump_json(m),
                        _now(),
                    )
                    for m in masters
                ],
            )  # fmt: skip

    def forget_masters(self, date: dt.date, kind: FrameKind, *, keep: Iterable[str]) -> None:
        """Forget the masters of a night and kind whose paths are not in `keep`."""
        kept = set(keep)
        with self._writing() as connection:
            rows = connection.execute(
                "SELECT path FROM master WHERE date = ? AND type = ?",
                (date.isoformat(), kind.value),
            ).fetchall()
            gone = [(row["path"],) for row in rows if row["path"] not in kept]
            connection.executemany("DELETE FROM master WHERE path = ?", gone)

    def masters(self, kind: FrameKind | None = None) -> list[Master]:
        """Return the masters of every night, oldest first."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT record FROM master WHERE type = ifnull(?, type) ORDER BY date, path",
                (kind and kind.value,),
            ).fetchall()
        return [load_json(Master, row["record"]) for row in rows]

    def masters_signature(self) -> str:
        """Return a text that changes when a master comes, goes or gets other pixels."""
        with self._reading() as connection:
            rows = connection.execute("SELECT path, content_hash FROM master ORDER BY path")
            lines = [f"{row['path']}\0{row['content_hash']}\n" for row in rows]
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]

    def is_our_master(self, content_hash: str) -> bool:
        """Tell whether a master with this pixel hash was ever made by wombat."""
        with self._reading() as connection:
            found = connection.execute(
                "SELECT 1 FROM our_master WHERE content_hash = ?", (content_hash,)
            ).fetchone()
        return found is not None

    def remember_our_master(self, content_hash: str) -> None:
        """Remember for good that wombat made, or is about to make, a master of this pixel hash."""
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO our_master VALUES (?)", (content_hash,))

    # -------------------------------------------------------------------------------- detector

    def record_detector(self, date: dt.date, measured: Sequence[DetectorMeasurement]) -> None:
        """Make the table `detector` hold `measured`, and nothing else of that night."""
        with self._writing() as connection:
            connection.execute("DELETE FROM detector WHERE date = ?", (date.isoformat(),))
            connection.executemany(
                "INSERT INTO detector (date, quantity, camera, readout, width_px, height_px,"
                " binning, value, error, n_frames, ccd_temperature_c, step, record)"
                " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
                [
                    (
                        m.date.isoformat(), m.quantity.value, m.group.camera, m.group.readout,
                        m.group.width_px, m.group.height_px, m.group.binning, m.value, m.error,
                        m.n_frames, m.ccd_temperature_c, m.step, dump_json(m),
                    )
                    for m in measured
                ],
            )  # fmt: skip

    def detector_measurements(self) -> list[DetectorMeasurement]:
        """Return what was measured of the detectors in every night, oldest first."""
        with self._reading() as connection:
            rows = connection.execute("SELECT record FROM detector ORDER BY date, rowid").fetchall()
        return [load_json(DetectorMeasurement, row["record"]) for row in rows]

    # ------------------------------------------------------------------------------ bad pixels

    def record_bad_pixel_maps(self, date: dt.date, maps: Sequence[BadPixelMap]) -> None:
        """Make the table `bad_pixels` hold `maps`, and no others of that night."""
        with self._writing() as connection:
            connection.execute("DELETE FROM bad_pixels WHERE date = ?", (date.isoformat(),))
            connection.executemany(
                "INSERT OR REPLACE INTO bad_pixels VALUES (?,?,?,?,?)",
                [(m.path, m.date.isoformat(), m.content_hash, m.n_bad, dump_json(m)) for m in maps],
            )

    def bad_pixel_maps(self) -> list[BadPixelMap]:
        """Return the maps of bad pixels of every night, oldest first."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT record FROM bad_pixels ORDER BY date, path"
            ).fetchall()
        return [load_json(BadPixelMap, row["record"]) for row in rows]

    def bad_pixels_signature(self) -> str:
        """Return a text that changes when a map of bad pixels comes, goes or gets other pixels."""
        with self._reading() as connection:
            rows = connection.execute("SELECT path, content_hash FROM bad_pixels ORDER BY path")
            lines = [f"{row['path']}\0{row['content_hash']}\n" for row in rows]
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]

    # ------------------------------------------------------------------------------ check stars

    def record_check_night(self, key: str, night: CheckNight | None) -> None:
        """Make the table `check_night` say what T2 of one observation says; None: nothing."""
        with self._writing() as connection:
            connection.execute("DELETE FROM check_night WHERE key = ?", (key,))
            if night is not None:
                connection.execute(
                    "INSERT INTO check_night VALUES (?,?,?,?,?,?,?,?,?,?)",
                    (
                        night.key, night.date.isoformat(), night.star, night.band, night.camera,
                        night.check_name, night.magnitude_mag, night.error_mag, night.held,
                        dump_json(night),
                    ),
                )  # fmt: skip

    def check_nights(self, star: str, band: str, camera: str | None) -> list[CheckNight]:
        """Return what the check stars of a variable say in one band and camera, oldest first.

        Of observations that have magnitudes now and were not rejected by the person.
        """
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT record FROM check_night WHERE star = ? AND band = ? AND camera IS ?"
                " AND key IN (SELECT key FROM target WHERE apphot IN ('validate', 'held')"
                " AND ifnull(submitted, '') <> 'usrrej') ORDER BY date, key",
                (star, band, camera),
            ).fetchall()
        return [load_json(CheckNight, row["record"]) for row in rows]

    # ---------------------------------------------------------------------------- observations

    def set_status(self, key: str, columns: Mapping[str, str | None]) -> None:
        """Write status words of an observation; `submitted` is not among what may be set here."""
        with self._writing() as connection:
            _set_status(connection, key, columns)

    def record_shortfall(self, key: str, shortfall: Shortfall | Exception) -> None:
        """Write the words of a stage that ended without a product, with the reason.

        An older word of `apphot` was of stages that this run does not reach: it goes, unless a
        person has decided on it (`submitted`).
        """
        columns: dict[str, str | None] = {
            name: word.value
            for name in ("proc", "apphot")
            if (word := getattr(shortfall, name, None)) is not None
        }
        if "apphot" not in columns and self.target_row(key).submitted is None:
            columns["apphot"] = None
        self.set_status(key, {**columns, "reason": str(shortfall)})

    def record_product(
        self,
        key: str,
        asset: str,
        *,
        path: str,
        content_hash: str,
        version: str,
        inputs: Mapping[str, str],
        status: Mapping[str, str | None],
    ) -> None:
        """Write where a product lies, which version it is, and the status words of its success.

        `inputs` are the versions of other observations' products that went in, by their keys.
        """
        with self._writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO product VALUES (?,?,?,?,?,?,?)",
                (key, asset, path, content_hash, version, json.dumps(dict(inputs)), _now()),
            )
            if status:
                _set_status(connection, key, status)

    def product_version(self, key: str, asset: str) -> str | None:
        """Return the version of a product, None when it was never made."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT version FROM product WHERE key = ? AND asset = ?", (key, asset)
            ).fetchone()
        return row["version"] if row else None

    def product_versions(self, asset: str) -> dict[str, str]:
        """Return the versions of every product of an asset, by their keys."""
        with self._reading() as connection:
            rows = connection.execute("SELECT key, version FROM product WHERE asset = ?", (asset,))
            return {row["key"]: row["version"] for row in rows}

    def product_inputs_of(self, asset: str) -> dict[str, dict[str, str]]:
        """Return, for every product of an asset, the versions of what others' went into it."""
        with self._reading() as connection:
            rows = connection.execute("SELECT key, inputs FROM product WHERE asset = ?", (asset,))
            return {row["key"]: dict(json.loads(row["inputs"] or "{}")) for row in rows}

    def light_cameras(self, key: str | None = None) -> dict[str, str | None]:
        """Return the camera of every observation by its key: its usable frames share one.

        With `key` only that observation's.
        """
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key, (SELECT camera FROM frame WHERE frame.date = target.date"
                " AND frame.kind = 'light' AND frame.target = target.target"
                " AND ifnull(frame.filter, ?) = target.filter AND frame.reason IS NULL LIMIT 1"
                ") AS camera FROM target WHERE key = ifnull(?, key)",
                (UNKNOWN_FILTER, key),
            )
            return {row["key"]: row["camera"] for row in rows}

    def siblings(self, observation: Observation) -> list[Observation]:
        """Return the same target's observations through other filters in the same night."""
        return [
            row.observation
            for row in self.targets()
            if row.observation.date == observation.date
            and row.observation.target == observation.target
            and row.observation.filter != observation.filter
        ]

    def record_changed_since(self, words: Mapping[str, str]) -> None:
        """Make `changed_since` say, by key, what changed since a person decided; else nothing.

        What `note_changed_since` wrote stays.
        """
        with self._writing() as connection:
            connection.execute(
                f"UPDATE target SET changed_since = NULL WHERE {_NOT_NOTED}"
                f" AND changed_since IS NOT NULL AND key NOT IN ({_marks([*words])})",
                [*words],
            )
            connection.executemany(
                "UPDATE target SET changed_since = ? WHERE key = ? AND changed_since IS NOT ?"
                f" AND {_NOT_NOTED}",
                [(text, key, text) for key, text in words.items()],
            )

    def note_changed_since(self, key: str, words: str) -> None:
        """Note for good that magnitudes were made again after a person decided on them."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE target SET changed_since = ? WHERE key = ?", (f"{MADE_AGAIN} {words}", key)
            )

    # --------------------------------------------------------------------------- plate solutions

    def record_solutions(
        self,
        observation: Observation,
        solutions: Sequence[FrameSolution],
        *,
        centres: Mapping[str, tuple[float, float]],
    ) -> None:
        """Make the table `WCS` hold one row per frame of `solutions`, and no other of theirs.

        `centres` maps files to RA and Dec of the frame centre, in degrees.
        """
        unit = _unit(observation)
        rows = [_wcs_row(observation, s, centres.get(s.file)) for s in solutions]
        solved = {s.file for s in solutions}
        with self._writing() as connection:
            known = connection.execute(
                "SELECT file FROM WCS WHERE date = ? AND target = ? AND filter = ?", unit
            ).fetchall()
            connection.executemany(
                "DELETE FROM WCS WHERE date = ? AND target = ? AND filter = ? AND file = ?",
                [(*unit, row["file"]) for row in known if row["file"] not in solved],
            )
            for row in rows:
                names = [f'"{name}"' for name in row]
                connection.execute(
                    f"INSERT INTO WCS ({', '.join(names)}) VALUES ({_marks(names)})"
                    " ON CONFLICT (date, target, filter, file) DO UPDATE SET "
                    + ", ".join(f"{name} = excluded.{name}" for name in names),
                    tuple(row.values()),
                )

    def record_target_places(
        self, observation: Observation, places: Mapping[str, tuple[float, float]]
    ) -> None:
        """Write where the variable lies on each solved frame (0-based pixels)."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE WCS SET target_x = ?, target_y = ?"
                " WHERE date = ? AND target = ? AND filter = ? AND file = ?",
                [(x, y, *_unit(observation), file) for file, (x, y) in places.items()],
            )


def _pixels_of_targets(
    connection: sqlite3.Connection, days: Sequence[str]
) -> dict[str, frozenset[str]]:
    """Return the pixel hashes of the light frames of every observation of `days`, by key."""
    rows = connection.execute(
        "SELECT key, json_extract(record, '$.pixel_hash') AS pixels FROM frame JOIN target"
        " ON target.date = frame.date AND target.target = frame.target"
        " AND target.filter = ifnull(frame.filter, ?)"
        f" WHERE kind = 'light' AND frame.date IN ({_marks(days)})",
        [UNKNOWN_FILTER, *days],
    )
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["pixels"]:
            found[row["key"]].add(row["pixels"])
    return {key: frozenset(pixels) for key, pixels in found.items()}


def _carry_decisions_over(
    connection: sqlite3.Connection,
    before: Mapping[str, frozenset[str]],
    now: Mapping[str, frozenset[str]],
) -> None:
    """Let a renamed observation keep what a person decided: it holds frames of the gone one.

    So that nothing is reported twice because a directory has another name. Frames that went in an
    earlier scan are known by what was approved or reported of them.
    """
    gone = {key: pixels for key, pixels in before.items() if key not in now}
    new = {key: pixels for key, pixels in now.items() if key not in before}
    if not new:
        return
    retired = connection.execute("SELECT key FROM target WHERE retired_utc IS NOT NULL")
    gone |= approved_frames(connection, {row["key"] for row in retired} - gone.keys() - now.keys())
    for key, pixels in new.items():
        for old, held in gone.items():
            if 2 * len(pixels & held) > len(held) and _take_over(connection, old, key):
                break


def _take_over(connection: sqlite3.Connection, old: str, new: str) -> bool:
    """Give `new` the word and the decisions of `old`; False: `new` was decided on itself.

    Nothing of them is left with `old`: should it come back, with what frames ever, it is new.
    """
    rows = connection.execute(
        "SELECT key, submitted, changed_since FROM target WHERE key IN (?, ?)", (old, new)
    )
    by_key = {row["key"]: row for row in rows}
    if old not in by_key:  # a person had edited the key, and it is mended by now
        return False
    word = _done(by_key[old]["submitted"])
    if _done(by_key[new]["submitted"]) is not None or is_decided(connection, new):
        return False
    move_decisions(connection, old, new)
    words = f"{RENAMED} {old}" if word is not None else by_key[old]["changed_since"]
    connection.executemany(
        "UPDATE target SET submitted = ?, changed_since = ? WHERE key = ?",
        [(word, words, new), (None, None, old)],
    )
    return True


def _has_row(connection: sqlite3.Connection, key: str, unit: tuple[str, str, str]) -> bool:
    """Tell whether an observation has a row, be it with a key or a name that a person edited."""
    return (
        connection.execute(
            "SELECT 1 FROM target WHERE key = ? OR (date, target, filter) = (?, ?, ?)", (key, *unit)
        ).fetchone()
        is not None
    )


_KEY = re.compile(r"\d{8}__(?:(?!__)[A-Za-z0-9.+_-])+__(?:(?!__)[A-Za-z0-9.+_-])+")
RENAMED = "renamed: was"
_NOT_NOTED = (
    f"ifnull(changed_since, '') NOT LIKE '{MADE_AGAIN}%'"
    f" AND ifnull(changed_since, '') NOT LIKE '{RENAMED}%'"
)
_STATUS_COLUMNS = {"proc_bias", "proc_flat", "proc_dark", "proc", "apphot", "reason"}


def _set_status(
    connection: sqlite3.Connection, key: str, columns: Mapping[str, str | None]
) -> None:
    unknown = set(columns) - _STATUS_COLUMNS
    if unknown:
        raise ValueError(f"not status columns: {sorted(unknown)}")
    assignments = ", ".join(f"{name} = ?" for name in columns)
    if "apphot" in columns:  # the word is on the frames that this run began with
        assignments += (
            ", lights = (SELECT json_extract(inputs, '$.lights') FROM product"
            f" WHERE product.key = target.key AND asset = '{FIRST_ASSET}')"
        )
    connection.execute(
        f"UPDATE target SET {assignments}, updated_utc = ? WHERE key = ?",
        (*columns.values(), _now(), key),
    )


def _unit(observation: Observation) -> tuple[str, str, str]:
    return (observation.date.isoformat(), observation.target, observation.filter)


def _observation(date: str, target: str, filter: str, key: str) -> Observation:
    return Observation(date=dt.date.fromisoformat(date), target=target, filter=filter, key=key)


def _target_row(row: sqlite3.Row) -> TargetRow:
    return TargetRow(
        observation=_observation(row["date"], row["target"], row["filter"], row["key"]),
        night=row["night"],
        **{
            name: _done(row[name])
            for name in ("proc_bias", "proc_flat", "proc_dark", "proc", "apphot", "submitted")
        },
        reason=row["reason"],
        n_frames=row["n_frames"],
        n_quarantined=row["n_quarantined"],
        updated_utc=row["updated_utc"],
        lights=row["lights"],
        changed_since=row["changed_since"],
        retired_utc=row["retired_utc"],
    )


def _is_key_of(key: str, date: str) -> bool:
    """Tell whether `key` is one of ours, of a night of `date`."""
    return _KEY.fullmatch(key) is not None and key.startswith(f"{date.replace('-', '')}__")


def _slugs_in_use(keys: Mapping[tuple[str, str, str], str]) -> dict[str, dict[str, str]]:
    """Return, for targets and filters, which name owns each slug (casefolded)."""
    slugs: dict[str, dict[str, str]] = {"target": {}, "filter": {}}
    for (_, target, filter), key in keys.items():
        _, target_slug, filter_slug = key.split("__")
        slugs["target"][target_slug.casefold()] = target
        slugs["filter"][filter_slug.casefold()] = filter
    return slugs


def _key(date: str, target: str, filter: str, slugs: dict[str, dict[str, str]]) -> str:
    parts = [date.replace("-", "")]
    for name, text in (("target", target), ("filter", filter)):
        part = distinct_slug(text, slugs[name])
        slugs[name][part.casefold()] = text
        parts.append(part)
    return "__".join(parts)


def _group_columns(frame: RawFrame) -> tuple[Any, ...]:
    group = frame.group
    if group is None:
        return (None,) * 5
    return (group.width_px, group.height_px, group.binning, group.camera, group.readout)


def _frame_row(frame: RawFrame) -> tuple[Any, ...]:
    return (
        frame.path, frame.date.isoformat(), frame.night_directory, frame.kind.value, frame.target,
        frame.filter, frame.exposure_s, frame.start_utc, *_group_columns(frame),
        frame.ccd_temperature_c, frame.reason, "; ".join(frame.warnings) or None, dump_json(frame),
    )  # fmt: skip


def _wcs_row(
    observation: Observation, s: FrameSolution, centre: tuple[float, float] | None
) -> dict[str, Any]:
    date, target, filter = _unit(observation)
    row: dict[str, Any] = {
        "date": date, "target": target, "filter": filter, "file": s.file, "status": s.status.value,
        "solver": s.solver, "solver_version": s.solver_version, "database": s.database,
        "command": s.command, "exit_code": s.exit_code, "reason": s.reason, "message": s.message,
        "attempts": json.dumps([asdict(attempt) for attempt in s.attempts]),
        "fov_tried": s.fov_tried_deg, "ra_hint": s.ra_hint_deg, "dec_hint": s.dec_hint_deg,
        "scale_header": s.scale_header_arcsec_px, "n_stars": s.n_stars, "n_quads": s.n_quads,
        "n_matched": s.n_matched, "n_expected": s.n_expected, "rms_arcsec": s.rms_arcsec,
        "rms_px": s.rms_px, "hfd_median": s.hfd_median_px, "hfd_source": s.hfd_source,
        "reference_file": s.reference_file, "seconds": s.seconds, "solved_at": s.solved_at_utc,
        "fov_used": s.fov_used_deg, "ra_center": None, "dec_center": None,
        "scale_x": None, "scale_y": None, "rotation": None, "parity": None,
        "crpix1": None, "crpix2": None, "crval1": None,
        "crval2": None, "cd1_1": None, "cd1_2": None, "cd2_1": None, "cd2_2": None, "sip_order": 0,
    }  # fmt: skip
    wcs = s.solution
    if wcs is not None:
        row |= {
            "scale_x": wcs.scale_x_arcsec_px, "scale_y": wcs.scale_y_arcsec_px,
            "rotation": wcs.rotation_deg, "parity": wcs.parity,
            "crpix1": wcs.crpix_x, "crpix2": wcs.crpix_y, "crval1": wcs.ra_deg,
            "crval2": wcs.dec_deg, "cd1_1": wcs.cd11, "cd1_2": wcs.cd12, "cd2_1": wcs.cd21,
            "cd2_2": wcs.cd22, "sip_order": wcs.sip.order if wcs.sip is not None else 0,
        }  # fmt: skip
    if centre is not None:
        row |= {"ra_center": centre[0], "dec_center": centre[1]}
    return row
