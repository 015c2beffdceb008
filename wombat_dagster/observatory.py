"""The observatory: one handle on everything that ``wombat.toml`` configures.

Assets and sensors reach configuration, database, files, services and solver through it, so that a
test can put another one in their place.
"""

import datetime as dt
import logging
from collections.abc import Collection
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from wombat_dagster import config
from wombat_dagster.domain import StarTable

# What is imported in functions below is heavy, and not wanted by whoever only loads definitions.
if TYPE_CHECKING:
    from wombat_dagster.catalogs.vsp import Vsp
    from wombat_dagster.catalogs.vsx import Vsx
    from wombat_dagster.solvers.astap import Astap
    from wombat_dagster.solvers.solve_field import SolveField
    from wombat_dagster.store.layout import Layout
    from wombat_dagster.store.status import StatusDatabase

log = logging.getLogger(__name__)


class Observatory:
    """Settings, and what is made of them on first use."""

    def __init__(self, settings: config.Settings) -> None:
        self.settings = settings

    @cached_property
    def status(self) -> "StatusDatabase":
        """The database ``wombatpipeline``."""
        from wombat_dagster.store.status import StatusDatabase

        return StatusDatabase(self.settings.path(self.settings.database))

    @cached_property
    def layout(self) -> "Layout":
        """Where every file lives."""
        from wombat_dagster.store.layout import Layout

        return Layout.of(self.settings)

    @cached_property
    def vsx(self) -> "Vsx":
        """The AAVSO's index of variable stars."""
        from wombat_dagster.catalogs.vsx import Vsx

        return Vsx(self.settings.aavso, self.layout.cache)

    @cached_property
    def vsp(self) -> "Vsp":
        """The AAVSO's comparison stars."""
        from wombat_dagster.catalogs.vsp import Vsp

        return Vsp(self.settings.aavso, self.layout.cache)

    @cached_property
    def astap(self) -> "Astap | None":
        """The plate solver ASTAP, None when it is not installed."""
        from wombat_dagster.solvers.astap import find_astap

        return find_astap(self.settings.astap.program, self._astap_database)

    @property
    def _astap_database(self) -> str | None:
        configured = self.settings.astap.database
        return str(self.settings.path(configured)) if configured else None

    @cached_property
    def solve_field(self) -> "SolveField | None":
        """The plate solver of astrometry.net, None when it is not installed."""
        from wombat_dagster.solvers.solve_field import find_solve_field

        return find_solve_field(self.settings.solve.solve_field)

    def stars_around(
        self, ra_deg: float, dec_deg: float, radius_deg: float, *, max_stars: int | None = None
    ) -> StarTable | None:
        """Return the stars that a plate solution can be fitted to; None when there is no table.

        ASTAP's database serves when it is there, so that one folder is enough; else the table that
        ``[solve] star_table`` names. Of `max_stars` the brightest are returned.

        Raises
        ------
        ValueError
            The database or the table is damaged.
        """
        from wombat_dagster.solvers.star_database import (
            StarDatabase,
            read_star_table_csv,
            stars_within,
        )

        database = self._astap_database or (self.astap and self.astap.database)
        if database:
            try:
                return StarDatabase(Path(database)).around(
                    ra_deg, dec_deg, radius_deg, max_stars=max_stars
                )
            except FileNotFoundError:
                log.debug("no star database in %s", database)
        if self.settings.solve.star_table:
            table = read_star_table_csv(self.settings.path(self.settings.solve.star_table))
            return stars_within(
                table, ra_deg=ra_deg, dec_deg=dec_deg, radius_deg=radius_deg, max_stars=max_stars
            )
        return None

    def masters_signature(self) -> str:
        """Return a text that changes when a master or a map of bad pixels does."""
        from wombat_dagster.store.layout import library_signature

        parts = (
            self.status.masters_signature(),
            self.status.bad_pixels_signature(),
            library_signature(self.settings),
        )
        return "+".join(filter(None, parts))

    def scan(self, dates: Collection[dt.date] | None = None) -> None:
        """Look at the data directory (only the nights of `dates`) and record what is there.

        A night without lights is ignored, unless its calibrations may be lent to others. One whose
        directory is gone is forgotten, one that cannot be looked through stays as it was. An empty
        or absent data directory is taken for a disk that is not mounted: nothing changes.
        """
        from wombat_dagster.store.layout import has_entries, night_directories, scan_data

        if not has_entries(self.layout.data):
            log.warning("%s is empty or absent: nothing is recorded", self.layout.data)
            return
        serial = self.status.begin_scan()
        nights = night_directories(self.layout.data)
        scanned = scan_data(
            self.layout.data,
            known=self.status.known_frames(dates),
            settings_of_camera=self.settings.for_camera,
            only=None if dates is None else {n.name for n in nights if n.date in dates},
        )
        asked = self.status.known_dates() if dates is None else set(dates)
        there = {night.date for night in nights} | {n.directory.date for n in scanned.nights}
        unseen = {night.directory.date for night in scanned.nights if night.unseen}
        lit = {night.directory.date for night in scanned.nights if night.has_lights}
        lend = self.settings.calibration.use_calibration_only_nights
        self.status.record_scan(
            [f for f in scanned.frames if (lend or f.date in lit) and f.date not in unseen],
            (asked | {n.directory.date for n in scanned.nights}) - unseen,
            serial=serial,
            without_directory=asked - there,
        )
        for night in scanned.nights:
            name = night.directory.name
            if night.unseen:
                log.warning("%s cannot be read and stays as it was: %s", name, night.unseen)
            for words in night.notes:
                log.warning("%s: %s", name, words)


@lru_cache(maxsize=8)
def _open(path: Path, mtime_ns: int) -> Observatory:
    return Observatory(config.load(path if mtime_ns else None))


def open_observatory(path: Path | None = None) -> Observatory:
    """Return the observatory of a configuration file; read again only when the file changed."""
    file = (path or config.config_path()).absolute()
    mtime_ns = file.stat().st_mtime_ns if file.exists() else 0
    if path is not None and not mtime_ns:
        raise FileNotFoundError(f"no configuration file {file}")
    opened = _open(file, mtime_ns)
    if "status" in vars(opened) and not opened.status.path.exists():  # deleted by a person
        _open.cache_clear()
        opened = _open(file, mtime_ns)
    return opened
