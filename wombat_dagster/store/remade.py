"""What magnitudes that were made again changed: the table `remade`."""

import contextlib
import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from wombat_dagster.store import schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Remade:
    """How T1 differs from before over the `n_frames` that both have; magnitudes, after - before.

    `why` is what the run was asked for, which need not be what changed them; `what` is what went in
    that differs: masters, frames, comps… None where a figure is not to be had: no common frame, no
    zero-point error.
    """

    key: str
    made_utc: str
    why: str | None
    what: str
    n_frames: int
    t1_median_change_mag: float | None
    t1_largest_change_mag: float | None
    zp_err_before_mag: float | None
    zp_err_after_mag: float | None

    @property
    def words(self) -> str:
        """``T1 +0.0021 mag in the median, at most 0.0034 (12 frames); zp_err 0.012 -> 0.010; …``.

        It ends with `what`: ``bias none → 2025-10-14 (4f5a06); frames 19 → 22``.
        """
        return f"{self.figures}; {self.what}"

    @property
    def figures(self) -> str:
        """How T1 and its zero-point error changed."""
        if self.t1_median_change_mag is None or self.t1_largest_change_mag is None:
            return "no frame in common with before"
        words = (
            f"T1 {self.t1_median_change_mag:+.4f} mag in the median, at most "
            f"{abs(self.t1_largest_change_mag):.4f} ({self.n_frames} frames)"
        )
        if self.zp_err_before_mag is not None and self.zp_err_after_mag is not None:
            words += f"; zp_err {self.zp_err_before_mag:.4f} -> {self.zp_err_after_mag:.4f}"
        return words


def record_remade(path: Path, one: Remade) -> None:
    """Add a row to the table `remade` of the database at `path`."""
    with contextlib.closing(schema.connect(path)) as connection:
        connection.execute(
            "INSERT INTO remade (key, made_utc, why, what, n_frames, t1_median_change_mag,"
            " t1_largest_change_mag, zp_err_before_mag, zp_err_after_mag)"
            " VALUES (?,?,?,?,?,?,?,?,?)",
            (
                one.key, one.made_utc, one.why, one.what, one.n_frames,
                one.t1_median_change_mag, one.t1_largest_change_mag, one.zp_err_before_mag,
                one.zp_err_after_mag,
            ),
        )  # fmt: skip


def remade(path: Path, key: str | None = None) -> list[Remade]:
    """Return the changes of an observation, or of all, oldest first."""
    with contextlib.closing(schema.connect(path)) as connection:
        rows = connection.execute(
            "SELECT * FROM remade WHERE key = ifnull(?, key) ORDER BY id", (key,)
        ).fetchall()
    return [Remade(**{name: row[name] for name in row.keys() if name != "id"}) for row in rows]  # noqa: SIM118 - a Row is no mapping


def utc_now() -> str:
    """Return the time for `Remade.made_utc`."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
