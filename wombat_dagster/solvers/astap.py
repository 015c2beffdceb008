"""The plate solver ASTAP, run as a program on a copy of the frame.

What its command line does, and does not, was measured (PLATE_SOLVING.md): ``-analyse`` never
solves; the exit code proves nothing, only a freshly written ``.ini`` with ``PLTSOLVD=T`` does;
``-update`` can lose the file. So everything runs in a folder of its own that is thrown away, on a
copy, without ``-update``.
"""

import contextlib
import errno
import logging
import math
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wombat_dagster.domain import Detections, WcsSolution
from wombat_dagster.solvers.base import Reason, RungOptions, SolveOutcome, SolveRequest
from wombat_dagster.solvers.programs import ProgramRun, run_program
from wombat_dagster.solvers.star_database import examine_set, set_for_field

log = logging.getLogger(__name__)

PROGRAM_ENV = "WOMBAT_ASTAP"
PROGRAM_NAMES = ("astap_cli", "astap")  # Debian's GUI program needs a display: the CLI first
USUAL_PROGRAMS = {
    "darwin": (
        "/Applications/ASTAP.app/Contents/MacOS/astap",
        "~/Applications/ASTAP.app/Contents/MacOS/astap",
        "/usr/local/bin/astap_cli",
        "/opt/homebrew/bin/astap_cli",
    ),
    "win32": (
        r"C:\Program Files\astap\astap_cli.exe",
        r"C:\Program Files\astap\astap.exe",
        r"C:\Program Files (x86)\astap\astap.exe",
    ),
    "linux": ("/usr/bin/astap_cli", "/opt/astap/astap_cli", "/opt/astap/astap", "/usr/bin/astap"),
}
USUAL_DATABASES = {
    "darwin": ("/usr/local/opt/astap", "/Applications/ASTAP.app/Contents/MacOS"),
    "win32": (r"C:\Program Files\astap", r"C:\Program Files (x86)\astap"),
    "linux": ("/usr/share/astap/data", "/opt/astap", "/usr/local/opt/astap"),
}
OLD_VERSION = re.compile(r"(CLI-)?20(1\d|2[0-3])\.")
OLD_SETS = ("h18", "h17", "g18", "g17", "v17", "w08")  # known to the version of 2022
DATABASE_MARKS = ("*_0101.1476", "*_0101.290", "*_0101.001")  # how ASTAP detects a set

BANNER_TIMEOUT_S = 10.0
ANALYSE_TIMEOUT_S = 60.0
FRESH_TOLERANCE_S = 2.0  # time stamps of some file systems are that coarse
NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows knows no quota
LONG_INTEGERS = 32  # of BITPIX
LEVEL_SKY_ADU, LEVEL_RMS_ADU, LEVEL_STOP_ADU = 1000.0, 10.0, 65535.0
NO_HFD = 90.0  # without stars 2022 reports 99.0 (2026: 21.5, with STARS=0)

TILE_ERROR = "error reading star database"  # also when a tile in the search circle is missing
_BANNER = re.compile(r"ASTAP.*?version\s+(\S+)")
_QUADS = re.compile(r"(\d+) of \d+ quads selected matching")
_STARS = re.compile(r"(\d+) stars, \d+ quads selected in the image")
_ERRORS = (
    ("not enough stars", Reason.NO_STARS),
    ("error reading image", Reason.BAD_FILE),
    ("accessing the file", Reason.BAD_FILE),
    ("no star database", Reason.NO_DATABASE),
    (TILE_ERROR, Reason.NO_DATABASE),
)


@dataclass(frozen=True, slots=True)
class Analysis:
    """ASTAP's verdict on a frame: median half-flux diameter (None: no stars) and star count."""

    hfd_median_px: float | None
    n_stars: int


@dataclass(frozen=True, slots=True)
class Astap:
    """ASTAP at `program`; `database` None leaves it to look where it was built to look."""

    program: Path
    database: Path | None = None
    version: str | None = None
    name: str = "astap"

    def analyse(self, path: Path, snr_min: float) -> Analysis | None:
        """Return half-flux diameter and star count of the FITS at `path`; None when ASTAP fails."""
        with _workspace(path) as (folder, problem):
            if problem:
                return None
            run = run_program(
                [str(self.program), "-f", str(folder / "in.fits"), "-analyse", f"{snr_min:g}"],
                folder,
                ANALYSE_TIMEOUT_S,
            )
        values = dict(re.findall(r"^(HFD_MEDIAN|STARS)=\s*([\d.]+)", run.output, re.MULTILINE))
        if "HFD_MEDIAN" not in values or "STARS" not in values:
            return None
        n_stars, hfd = int(float(values["STARS"])), float(values["HFD_MEDIAN"])
        return Analysis(hfd if n_stars > 0 and hfd < NO_HFD else None, n_stars)

    def solve(self, request: SolveRequest, options: RungOptions) -> SolveOutcome:
        """Run ASTAP once on a copy of the request's image."""
        timeout_s = options.timeout_s or request.timeout_s
        with _workspace(request.image_path) as (folder, problem):
            if not problem:
                problem = _truncated(folder / "in.fits")
            if problem:
                return self._outcome(reason=Reason.BAD_FILE, message=problem)
            _level(folder / "in.fits", request.detections)
            command = self._command(request, options, folder)
            begun = time.time()
            run = run_program(command, folder, timeout_s)
            ini = _fresh_ini(folder / "out.ini", since=begun)
        outcome = self._judged(run, ini, timeout_s)
        words = [word.replace(str(folder), "W") for word in command]
        return self._outcome(
            **outcome,
            command=shlex.join(words),
            exit_code=run.exit_code,
            n_stars=_last_number(_STARS, run.output),
            n_quads=_last_number(_QUADS, run.output),
            seconds=run.seconds,
        )

    def _command(self, request: SolveRequest, options: RungOptions, folder: Path) -> list[str]:
        """Return the command line; position, height and radius are always said.

        Left out, ASTAP would take them from the header, or search round RA 0 Dec 0.
        """
        ra_hours = (request.ra_deg or 0.0) / 15.0
        south_pole_distance_deg = (request.dec_deg or 0.0) + 90.0
        command = [str(self.program), "-f", str(folder / "in.fits"), "-o", str(folder / "out")]
        command += ["-wcs", "-fov", f"{options.fov_deg or 0.0:.5g}"]
        command += ["-ra", f"{ra_hours:.6f}", "-spd", f"{south_pole_distance_deg:.6f}"]
        command += ["-r", f"{options.radius_deg:g}"]
        if options.max_stars is not None:
            command += ["-s", str(options.max_stars)]
        if options.tolerance is not None:
            command += ["-t", f"{options.tolerance:g}"]
        if self.database is not None:
            command += ["-d", str(self.database)]
            name = set_for_field(self.database, options.fov_deg) if options.fov_deg else None
            if name is not None and not self.is_old:  # the version of 2022 takes what it finds
                command += ["-D", name]
        return command

    @property
    def is_old(self) -> bool:
        """Whether the program is of the kind of 2022; one that says no version is taken for that.

        Old: knows fewer sets and no ``-D``.
        """
        return self.version is None or OLD_VERSION.match(self.version) is not None

    def _judged(self, run: ProgramRun, ini: Mapping[str, str] | None, timeout_s: float) -> dict:
        """Return solution, reason and message; only a fresh PLTSOLVD=T is a success."""
        if run.exit_code is None:
            return {"reason": Reason.TIMEOUT, "message": f"killed after {timeout_s:g} s"}
        if ini is None:
            known = _reason_of(run.output)
            end = f"exit code {run.exit_code} and no result file"
            last = run.output.strip().splitlines()[-1:] or ["no output"]
            return {"reason": known or Reason.CRASHED, "message": f"{end}: {last[0][:200]}"}
        remarks = [ini[key].strip() for key in ("ERROR", "WARNING") if ini.get(key, "").strip()]
        message = "; ".join(remarks)
        if ini.get("PLTSOLVD", "").strip() != "T":
            error = ini.get("ERROR", "")
            reason = _reason_of(error) or Reason.NO_MATCH
            if TILE_ERROR in error.casefold() and self.database is not None:
                found = examine_set(self.database)
                if not found.problem:  # the stars that are there did not match
                    reason = Reason.NO_MATCH
                message = f"{message} {found.problem or found.words}"
            return {"reason": reason, "message": message}
        solution = _solution(ini)
        if solution is None:
            message = "PLTSOLVD=T without a usable CD matrix"
            return {"reason": Reason.CRASHED, "message": message}
        return {"solution": solution, "message": message}

    def _outcome(self, **values: object) -> SolveOutcome:
        return SolveOutcome(
            solver=self.name,
            solver_version=self.version,
            database=str(self.database) if self.database is not None else None,
            **values,  # type: ignore[arg-type]  # names and types are those of SolveOutcome
        )


def find_astap(program: str | None = None, database: str | None = None) -> Astap | None:
    """Return ASTAP as configured or found, None when it is nowhere.

    Searched: the configuration's `program`, $WOMBAT_ASTAP, the path, the usual places of this
    system. A configured program that is not there is not replaced by another one.
    """
    path = find_program(program)
    if path is None:
        return None
    return Astap(path, find_database(path, database), program_version(path))


def find_program(program: str | None = None) -> Path | None:
    """Return where ASTAP is; None when it is nowhere, or not where it was said to be."""
    said = program or os.environ.get(PROGRAM_ENV)
    if said:
        found = shutil.which(Path(said).expanduser())
        return Path(found) if found else None
    for name in PROGRAM_NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    for usual in USUAL_PROGRAMS.get(sys.platform, ()):
        path = Path(usual).expanduser()
        if os.access(path, os.X_OK):
            return path
    return None


def find_database(program: Path, database: str | None = None) -> Path | None:
    """Return the folder of the star database; a configured one is taken as it is."""
    if database:
        return Path(database).expanduser().absolute()
    places = (program.resolve().parent, *map(Path, USUAL_DATABASES.get(sys.platform, ())))
    return next((place for place in places if has_database(place)), None)


def has_database(folder: Path) -> bool:
    """Whether ASTAP would detect a star database in `folder`."""
    return any(next(folder.glob(mark), None) is not None for mark in DATABASE_MARKS)


def program_version(program: Path) -> str | None:
    """Return the version of the banner, e.g. ``CLI-2022.11.11``, None when it does not say."""
    with tempfile.TemporaryDirectory(prefix="wombat_astap_") as folder:
        run = run_program([str(program), "-h"], Path(folder), BANNER_TIMEOUT_S)
    found = _BANNER.search(run.output)
    return found[1] if found else None


@contextlib.contextmanager
def _workspace(image: Path) -> Iterator[tuple[Path, str]]:
    """Yield a folder with a copy ``in.fits`` of `image`, and what went wrong with that, "" if not.

    A copy, never a link: a program that writes into its input must not reach the original.

    Raises
    ------
    OSError
        No room for the copy: a fault of the machine, not of the frame.
    """
    with tempfile.TemporaryDirectory(prefix="wombat_astap_", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        try:
            shutil.copyfile(image, folder / "in.fits")
        except OSError as error:
            if error.errno in NO_ROOM:
                free_mb = shutil.disk_usage(folder).free / 1e6
                words = f"No space left on the disk of {folder.parent} for a copy of {image.name}"
                raise OSError(error.errno, f"{words}: {free_mb:.1f} MB free") from None
            yield folder, f"{image.name}: {error.strerror or error}"
        else:
            yield folder, ""


def _truncated(path: Path) -> str:
    """Return what is missing of a FITS file: ASTAP happily solves one cut in the middle."""
    from astropy.io import fits

    try:
        header = fits.Header.fromfile(str(path))
        n_pixels = math.prod(int(header[f"NAXIS{i + 1}"]) for i in range(int(header["NAXIS"])))
        wanted = header.data_size if header["NAXIS"] else 0
        start = -(-len(header.tostring()) // 2880) * 2880
    except (OSError, EOFError, KeyError, ValueError, fits.VerifyError) as error:
        return f"not a FITS image: {error}"
    size = path.stat().st_size
    if n_pixels == 0 or wanted == 0:
        return "no image in the primary HDU"
    if size < start + wanted:
        return f"{size} bytes, {start + wanted} wanted: the file is cut off"
    return ""


def _level(path: Path, stars: Detections) -> None:
    """Bring a copy's counts to where ASTAP sees stars, if they are not there.

    Measured with 2022: no stars with the sky three sigmas below zero, with noise of less than
    0.3 counts, or in 32-bit integers above 65535.
    """
    from astropy.io import fits

    if not stars.sky_rms_adu > 0:
        return
    is_wide = fits.getval(path, "BITPIX") == LONG_INTEGERS
    if stars.sky_adu >= 0 and stars.sky_rms_adu >= 1 and not is_wide:
        return
    pixels = fits.getdata(path).astype(np.float32)
    levelled = LEVEL_SKY_ADU + (pixels - stars.sky_adu) * (LEVEL_RMS_ADU / stars.sky_rms_adu)
    whole = np.nan_to_num(levelled, nan=LEVEL_SKY_ADU, posinf=LEVEL_STOP_ADU)
    fits.writeto(path, np.clip(whole, 0.0, LEVEL_STOP_ADU), overwrite=True)


def _fresh_ini(path: Path, *, since: float) -> dict[str, str] | None:
    """Return the cards of a result file written after `since`, else None."""
    try:
        if path.stat().st_mtime < since - FRESH_TOLERANCE_S:
            return None
        text = path.read_text("utf-8", "replace")
    except OSError:
        return None
    cards = (line.partition("=") for line in text.splitlines())
    found = {key.strip(): value for key, separator, value in cards if separator}
    return found if "PLTSOLVD" in found else None


def _solution(ini: Mapping[str, str]) -> WcsSolution | None:
    """Return the solution of the cards; None when one is missing or no number.

    CD only: the CDELT and CROTA beside it say the same less exactly.
    """
    names = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
    try:
        numbers = [float(ini[name]) for name in names]
    except (KeyError, ValueError):
        return None
    solution = WcsSolution(
        ra_deg=numbers[0] % 360.0,
        dec_deg=numbers[1],
        crpix_x=numbers[2],
        crpix_y=numbers[3],
        cd11=numbers[4],
        cd12=numbers[5],
        cd21=numbers[6],
        cd22=numbers[7],
    )
    usable = all(map(math.isfinite, numbers)) and solution.determinant != 0.0
    return solution if usable else None


def _reason_of(text: str) -> Reason | None:
    lower = text.casefold()
    return next((reason for words, reason in _ERRORS if words in lower), None)


def _last_number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.findall(text)
    return int(found[-1]) if found else None
