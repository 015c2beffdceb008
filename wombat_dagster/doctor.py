"""``wombat doctor``: what is missing on this machine, and how to get it. Changes nothing.

What wombat at work has to say (database, Dagster, sensors, clock) is in `upkeep`.
"""

import datetime as dt
import importlib.metadata
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wombat_dagster import config
from wombat_dagster.domain import FrameKind, RawFrame, Shortfall, Site
from wombat_dagster.findings import Finding as Finding  # the command line knows it from here
from wombat_dagster.findings import good, looks, missing, warn

if TYPE_CHECKING:
    from wombat_dagster.solvers.astap import Astap

AAVSO_TIMEOUT_S = 5.0
MIN_FREE_GB = 5.0
REDUCED_PER_RAW = 2.5  # float32 and a mask for every 16-bit light, plus tables
MAX_IERS_AGE_DAYS = 400  # predictions of the Earth's rotation reach about a year ahead
SITE_TOLERANCE_DEG = 0.5  # header and configuration mean the same place
ELEVATIONS_M = (-430.0, 6000.0)  # the Dead Sea's shore; the highest observatories
OBSERVER_CODE = re.compile(r"[A-Z0-9]{2,5}")
SOLVE_FIELD_HINT = (
    "a second solver: astrometry.net (Debian, Ubuntu: sudo apt install astrometry.net"
    " astrometry-data-tycho2)"
)
ASTAP_HINTS = {
    "linux": "Debian, Ubuntu: sudo apt install astap-cli; others: the Linux package from"
    " www.hnsky.org/astap.htm",
    "darwin": "download ASTAP for macOS from www.hnsky.org/astap.htm and drag it to Applications",
    "win32": "download the ASTAP installer for Windows from www.hnsky.org/astap.htm and run it",
}
DATABASE_HINT = (
    "download a star database from www.hnsky.org/astap.htm (D50 serves fields of 0.25 to 6 degrees;"
    " G05 wider ones) and unpack it into {place}, or name its folder: [astap] database in"
    " wombat.toml"
)


def examine(settings: config.Settings) -> Iterator[Finding]:
    """Yield what is found, one look after the other, the quick ones first."""
    from wombat_dagster import upkeep

    frames: tuple[RawFrame, ...] = ()

    def data() -> list[Finding]:
        nonlocal frames
        frames, looked = newest_night(settings)
        return looked

    def here() -> list[Finding]:
        return [site(settings, next((f.site_hint for f in frames if f.site_hint), None))]

    yield from looks(
        ("python", versions),
        ("data", data),
        ("headers", lambda: headers(settings, frames)),
        ("site", here),
        ("observer code", lambda: [observer(settings)]),
        ("disk", lambda: [disk_space(settings, frames)]),
        ("upkeep", lambda: upkeep.examine(settings, frames)),
        ("plate solver", lambda: plate_solver(settings)),
        ("AAVSO", lambda: aavso(settings)),
    )


def configuration(path: Path | None, explain: Callable[[Exception], str]) -> Finding:
    """Say where the configuration comes from, or what is wrong with it (`explain`, in words)."""
    file = (path or config.config_path()).absolute()
    try:
        config.load(path)
    except (OSError, ValueError) as error:  # a ValidationError and a TOMLDecodeError are values'
        return missing(
            "configuration",
            explain(error),
            "compare with wombat.toml.example",
            is_fatal=True,
        )
    if not file.exists():
        return warn(
            "configuration",
            f"no {file}: defaults hold",
            "copy wombat.toml.example there and say at least [site] and [observer]",
        )
    return good("configuration", str(file))


# ------------------------------------------------------------------------------------- this machine


def versions() -> Iterator[Finding]:
    """Say which Python and packages are at work, and how old the Earth rotation table is."""
    number = importlib.metadata.version
    yield good(
        "python",
        f"{sys.version.split()[0]}; wombat {number('wombat-dagster')}, dagster {number('dagster')},"
        f" astropy {number('astropy')}",
    )
    yield earth_rotation(number("astropy-iers-data"), dt.datetime.now(dt.UTC).date())


def earth_rotation(version: str, today: dt.date) -> Finding:
    """Judge astropy's table of the Earth's rotation by its version, ``0.2025.11.17.0.41.32``."""
    found = re.match(r"0\.(\d{4})\.(\d+)\.(\d+)", version)
    if not found:
        return warn("earth rotation", f"astropy-iers-data {version} does not tell its date")
    date = dt.date(*map(int, found.groups()))
    words = f"table of {date.isoformat()} (astropy-iers-data)"
    if (today - date).days <= MAX_IERS_AGE_DAYS:
        return good("earth rotation", words)
    return warn(
        "earth rotation",
        f"{words}, {(today - date).days} days old: a new leap second would be missed",
        "pip install --upgrade astropy-iers-data",
    )


def disk_space(settings: config.Settings, frames: Sequence[RawFrame]) -> Finding:
    """Compare the free space with what the newest night's products need."""
    place = settings.path(settings.products)
    while not place.exists():
        place = place.parent
    free_gb = shutil.disk_usage(place).free / 1e9
    lights = sum(frame.size_bytes for frame in frames if frame.kind is FrameKind.LIGHT)
    need_gb = REDUCED_PER_RAW * lights / 1e9
    words = f"{free_gb:.0f} GB free for {settings.path(settings.products)}"
    if need_gb:
        words += f"; the newest night's products take about {need_gb:.1f} GB"
    if free_gb < max(MIN_FREE_GB, 3 * need_gb):
        return warn("disk", words, "make room, or let products point to another disk")
    return good("disk", words)


# --------------------------------------------------------------------------------- the plate solver


def plate_solver(settings: config.Settings) -> Iterator[Finding]:
    """Say whether ASTAP, solve-field and stars to solve with are there."""
    from wombat_dagster.solvers import astap

    configured = settings.astap.database
    folder = settings.path(configured) if configured else None
    program = astap.find_astap(settings.astap.program, str(folder) if folder else None)
    if program is None:
        said = settings.astap.program
        yield missing(
            "ASTAP",
            f"not at {said}, where [astap] program says" if said else "not found",
            f"{ASTAP_HINTS.get(sys.platform, ASTAP_HINTS['linux'])}. Without it the embedded solver"
            " serves, if there are stars for it",
        )
    else:
        version = program.version or "a version that it does not tell"
        yield good("ASTAP", f"{program.program}, {version}")
    place = folder or (program.database if program else None)
    yield star_database(place, program)
    yield solve_field(settings.solve.solve_field)
    if settings.solve.star_table:
        yield star_table(settings.path(settings.solve.star_table))


def star_database(folder: Path | None, program: "Astap | None") -> Finding:
    """Judge ASTAP's star database in `folder`, for `program`, by opening its files."""
    from wombat_dagster.solvers import astap
    from wombat_dagster.solvers.star_database import TILED, database_sets, examine_set

    subject = "star database"
    usual = next(iter(astap.USUAL_DATABASES.get(sys.platform, ())), "ASTAP's folder")
    remedy = DATABASE_HINT.format(place=folder or usual)
    if folder is None:
        return missing(subject, "none where ASTAP looks", remedy)
    found = examine_set(folder)
    if found.problem:
        return missing(subject, found.problem, remedy)
    if found.suffix not in TILED:
        words = f"{folder}: only {found.name}, which serves frames of more than 20 degrees"
        return warn(subject, words, remedy)
    names = [name for name, _ in database_sets(folder)]
    if program is not None and program.is_old and not set(names) & set(astap.OLD_SETS):
        return warn(
            subject,
            f"{found.words}, but ASTAP {program.version or 'of an unknown version'} does not know"
            f" {found.name}: the embedded solver uses it",
            f"install a newer ASTAP ({ASTAP_HINTS['linux'].split(': ')[-1]}), or the H18 set",
        )
    others = f"; also {', '.join(names[1:])}" if len(names) > 1 else ""
    if not found.is_whole_sky:
        words = f"{found.words}: a part of the sky{others}"
        return warn(subject, words, "frames elsewhere need a whole set")
    return good(subject, f"{found.words}{others}")


def solve_field(program: str | None) -> Finding:
    """Say whether the second solver, astrometry.net's, and its index files are there.

    It is not needed: without it the ladder has a rung less.
    """
    from wombat_dagster.solvers.solve_field import find_solve_field, index_missing

    subject = "solve-field"
    if sys.platform == "win32":
        return good(subject, "not to be had on Windows, nor needed")
    found = find_solve_field(program)
    if found is None:
        if program:
            remedy = f"{SOLVE_FIELD_HINT}, or drop solve_field from [solve]"
            return missing(subject, f"not at {program}, where wombat.toml says", remedy)
        return good(subject, f"not found, nor needed; {SOLVE_FIELD_HINT}")
    words = f"{found.program}, {found.version or 'a version that it does not tell'}"
    lacking = index_missing(found.program)
    if lacking:
        return warn(subject, words, lacking)
    return good(subject, words)


def star_table(path: Path) -> Finding:
    """Judge the table of stars for the embedded solver."""
    from wombat_dagster.solvers.star_database import read_star_table_csv

    try:
        stars = read_star_table_csv(path)
    except (OSError, ValueError) as error:
        return missing(
            "star table", str(error), "a CSV with ra_deg, dec_deg, mag, or drop [solve] star_table"
        )
    return good("star table", f"{path}: {len(stars)} stars, for the embedded solver")


# ----------------------------------------------------------------------------- site and observer


def site(settings: config.Settings, header: Site | None) -> Finding:
    """Judge the observer's position; `header` is what the newest night's frames say."""
    said = f"headers say {_place(header)}" if header else "headers say nothing"
    if settings.site is None:
        if header is None:
            return missing(
                "site",
                "neither configured nor in the headers: observations end as nosite",
                "[site] latitude_deg, longitude_deg (east positive), elevation_m in wombat.toml",
            )
        return warn("site", f"not configured; {said}, which will be tried", "say it in [site]")
    here = settings.site.site()
    words = _place(here)
    doubts = []
    if here.latitude_deg == 0 and here.longitude_deg == 0:
        doubts.append("0, 0 lies in the Atlantic")
    if not ELEVATIONS_M[0] <= here.elevation_m <= ELEVATIONS_M[1]:
        doubts.append(f"{here.elevation_m:g} m: metres are wanted, not feet")
    if header and _apart_deg(here.latitude_deg, header.latitude_deg) > SITE_TOLERANCE_DEG:
        doubts.append(said)
    elif header and _apart_deg(here.longitude_deg, header.longitude_deg) > SITE_TOLERANCE_DEG:
        mirrored = _apart_deg(here.longitude_deg, -header.longitude_deg) <= SITE_TOLERANCE_DEG
        doubts.append(f"{said}{': one counts west as positive' if mirrored else ''}")
    if doubts:
        return warn("site", f"{words}; {'; '.join(doubts)}", "check [site]; longitude_deg is east")
    return good("site", words)


def _apart_deg(one: float, other: float) -> float:
    return abs((one - other + 180.0) % 360.0 - 180.0)


def _place(here: Site) -> str:
    east = (here.longitude_deg + 180.0) % 360.0 - 180.0
    return (
        f"{abs(here.latitude_deg):.3f} {'N' if here.latitude_deg >= 0 else 'S'},"
        f" {abs(east):.3f} {'E' if east >= 0 else 'W'}, {here.elevation_m:.0f} m"
    )


def observer(settings: config.Settings) -> Finding:
    """Judge the AAVSO observer code."""
    code = settings.observer.code
    if not code:
        return warn(
            "observer code",
            "none: needed for reports only",
            'get one at www.aavso.org and say it: [observer] code = "ABC"',
        )
    if not OBSERVER_CODE.fullmatch(code.upper()):
        return warn("observer code", f'"{code}"', "AAVSO codes are 2 to 5 letters and digits")
    return good("observer code", code.upper())


# ------------------------------------------------------------------------------------- the data


def newest_night(settings: config.Settings) -> tuple[tuple[RawFrame, ...], list[Finding]]:
    """Return the frames of the newest night with lights, and what was found in the directory."""
    from wombat_dagster import runs
    from wombat_dagster.store.layout import night_directories

    data = settings.path(settings.data)
    if not data.is_dir():
        remedy = "make it and put nights into it: data/20251015/{Bias,Flat,Light/<target>}"
        return (), [missing("data", f"{data}: no such directory", remedy, is_fatal=True)]
    nights = night_directories(data)
    if not nights:
        remedy = "a night is a directory named for its date, e.g. 20251015 or 2025-10-15"
        return (), [warn("data", f"{data}: no nights in it", remedy)]
    found = good(
        "data",
        f"{data}: {len({night.date for night in nights})} nights, the newest {nights[-1].date}",
    )
    with runs.rehearsal(settings) as observatory:
        for date in sorted({night.date for night in nights}, reverse=True):
            observatory.scan([date])
            frames = observatory.status.night_frames(date)
            if any(frame.kind is FrameKind.LIGHT for frame in frames):
                return tuple(frames), [found]
    remedy = "lights lie in <night>/Light/<target>/"
    return (), [found, warn("newest night", "no night has lights", remedy)]


def headers(settings: config.Settings, frames: Sequence[RawFrame]) -> Iterator[Finding]:
    """Judge what the lights of a night say of themselves."""
    lights = [frame for frame in frames if frame.kind is FrameKind.LIGHT]
    if not lights:
        return
    night = lights[0].date.isoformat()
    refused = Counter(frame.reason for frame in frames if frame.reason)
    words = f"{night}: {len(lights)} lights, {len(frames) - len(lights)} calibration frames"
    if refused:
        reasons = "; ".join(f"{n} × {reason}" for reason, n in refused.most_common(3))
        yield warn("newest night", f"{words}; {refused.total()} quarantined: {reasons}")
    else:
        yield good("newest night", words)
    yield from _missing_facts(lights)
    yield from _filters(settings, lights)


def _missing_facts(lights: Sequence[RawFrame]) -> Iterator[Finding]:
    """Yield one line on the keywords that lights lack, each with what then happens."""
    needed: tuple[tuple[str, Callable[[RawFrame], object], str], ...] = (
        ("filter", lambda f: f.filter, '[[instrument]] filter = "V", or a directory named for it'),
        ("time", lambda f: f.start_utc, "let the capture program write DATE-OBS"),
        ("exposure", lambda f: f.exposure_s, "let the capture program write EXPTIME"),
        ("position", lambda f: f.ra_hint_deg, "the position VSX gives will be used"),
        (
            "image scale",
            lambda f: f.scale_hint_arcsec_px,
            "[[instrument]] pixel_scale_arcsec in wombat.toml",
        ),
    )
    lacking = [
        (name, n, remedy)
        for name, fact, remedy in needed
        if (n := sum(fact(frame) is None for frame in lights))
    ]
    if not lacking:
        yield good("headers", "filter, time, exposure, position and scale are there")
    for name, n, remedy in lacking:
        yield warn("headers", f"no {name} in {n} of {len(lights)} lights", remedy)


def _filters(settings: config.Settings, lights: Sequence[RawFrame]) -> Iterator[Finding]:
    """Yield what the night's filters mean to the AAVSO, as far as that is sure."""
    from wombat_dagster.science.sequence import band_of

    cameras = {f.filter: f.group.camera if f.group else None for f in lights if f.filter}
    means = []
    for filter, camera in sorted(cameras.items()):
        try:
            band, _, confirmed = band_of(filter, settings.for_camera(camera).filters)
        except Shortfall as shortfall:
            yield warn("filters", str(shortfall), f'[instrument.filters] "{filter}" = "V"')
            continue
        if confirmed:
            means.append(f"{filter} is {band}")
        else:
            yield warn(
                "filters",
                f'"{filter}" is taken for {band}, but means different filters to different people',
                f'confirm it: [instrument.filters] "{filter}" = "{band}"',
            )
    if means:
        yield good("filters", ", ".join(means))


# ------------------------------------------------------------------------------------ the AAVSO


def aavso(settings: config.Settings) -> Iterator[Finding]:
    """Say whether VSX and VSP answer now; that they do not is no error."""
    from wombat_dagster.catalogs.base import BadRequest
    from wombat_dagster.catalogs.breaker import away
    from wombat_dagster.catalogs.vsp import Vsp
    from wombat_dagster.catalogs.vsx import Vsx

    patient = {"timeout_s": AAVSO_TIMEOUT_S, "patience_s": AAVSO_TIMEOUT_S, "retries": 0}
    hurried = settings.aavso.model_copy(update=patient)
    cache = settings.path(settings.cache)
    for name, word, ask in (
        ("VSX", "vsxdown", Vsx(hurried, cache).probe),
        ("VSP", "novsp", Vsp(hurried, cache).probe),
    ):
        known = away(cache, name)
        try:
            answers = ask()
        except BadRequest as error:
            yield warn(f"AAVSO {name}", str(error), "check the addresses in [aavso]")
            continue
        if answers:
            words = f"answers again; {known.sentence()}" if known else "answers"
            yield good(f"AAVSO {name}", words)
        else:
            yield warn(
                f"AAVSO {name}",
                f"does not answer now; {known.sentence()}" if known else "does not answer now",
                f"an outage is no error: what needs {name} waits as {word} and runs again later;"
                " known stars and charts come from the cache",
            )
    if settings.comps.fallback != "off" and (known := away(cache, "VizieR")) is not None:
        yield warn(
            "VizieR",
            known.sentence(),
            "it stands in for VSP ([comps] fallback): until one of them answers, novsp waits",
        )
