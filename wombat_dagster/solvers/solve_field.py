"""astrometry.net's ``solve-field``, run as a program on the stars that we detected.

It is given a table of stars, not the image: our detection knows hot pixels, trails and saturation,
and neither netpbm nor the Python scripts that it calls for images are needed. Measured on 142 real
frames (trailed, saturated): all solved either way, 0.07 s against 1.0 s from the image. Its exit
code is 0 for an unsolved frame: only the file that it writes counts.
"""

import math
import os
import re
import shlex
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wombat_dagster.domain import Detections, WcsSolution
from wombat_dagster.solvers.base import Reason, RungOptions, SolveOutcome, SolveRequest
from wombat_dagster.solvers.fitting import MIN_MATCHED, Fit, Indices, agreement, fit_pairs
from wombat_dagster.solvers.programs import ProgramRun, run_program

if TYPE_CHECKING:
    from astropy.io import fits

PROGRAM_ENV = "WOMBAT_SOLVE_FIELD"
PROGRAM_NAME = "solve-field"
USUAL_PROGRAMS = {
    "darwin": (
        "/opt/homebrew/bin/solve-field",
        "/usr/local/bin/solve-field",
        "/opt/local/bin/solve-field",
        "/usr/local/astrometry/bin/solve-field",
    ),
    "linux": (
        "/usr/bin/solve-field",
        "/usr/local/bin/solve-field",
        "/usr/local/astrometry/bin/solve-field",
        "/home/linuxbrew/.linuxbrew/bin/solve-field",
    ),
}
CONFIG_NAME = "astrometry.cfg"
GET_INDEXES = "index files: http://data.astrometry.net (Debian: astrometry-data-tycho2)"

VERSION_TIMEOUT_S = 10.0
MOST_STARS = 150  # as many as it looks at; more cost time only
# It looks at ten stars after ten: they had better not all lie in one corner. Its own sorting, a
# Python script, takes 0.3 s; without any only 17 instead of 39 stars of the real frames matched.
BOXES = 24
SCALE_TOLERANCE = 0.1  # its search hardly grows by it
DISTORTION_ORDER = 2  # lets it match the corners of a wide field; the distortion itself is ours

_MATCHES = re.compile(r"(\d+) match, (\d+) conflict, (\d+) distractors?, (\d+) index")
_NO_INDEX = ("must list at least one index", "couldn't find index", "failed to open config file")


@dataclass(frozen=True, slots=True)
class SolveField:
    """``solve-field`` at `program`, with the index files that its configuration names."""

    program: Path
    version: str | None = None
    name: str = "solve-field"

    def solve(self, request: SolveRequest, options: RungOptions) -> SolveOutcome:
        """Run it once on the request's detections; the image itself is not looked at.

        An `options.fov_deg` of 0 leaves the scale open.
        """
        stars = request.detections
        if len(stars) < MIN_MATCHED:
            message = f"{len(stars)} stars detected, {MIN_MATCHED} wanted"
            return self._outcome(reason=Reason.NO_STARS, message=message, n_stars=len(stars))
        timeout_s = options.timeout_s or request.timeout_s
        with tempfile.TemporaryDirectory(
            prefix="wombat_solve_field_", ignore_cleanup_errors=True
        ) as name:
            folder = Path(name)
            n_sent = _write_stars(folder / "stars.xyls", request)
            command = self._command(request, options, folder, timeout_s)
            run = run_program(command, folder, timeout_s)
            fit = None if run.exit_code is None else _fit(folder, request)
        words = [word.replace(str(folder), "W") for word in command]
        evidence = self._judged(run, fit, request, timeout_s, n_sent)
        return self._outcome(
            **evidence,
            command=shlex.join(words),
            exit_code=run.exit_code,
            n_stars=n_sent,
            seconds=run.seconds,
        )

    def _command(
        self, request: SolveRequest, options: RungOptions, folder: Path, timeout_s: float
    ) -> list[str]:
        command = [str(self.program), "--no-plots", "--overwrite", "--no-verify"]
        command += ["--dir", str(folder), "--temp-dir", str(folder)]
        for unwanted in ("new-fits", "match", "rdls", "index-xyls"):
            command += [f"--{unwanted}", "none"]
        command += ["--wcs", str(folder / "out.wcs"), "--corr", str(folder / "out.corr")]
        command += ["--crpix-center", "--tweak-order", str(DISTORTION_ORDER)]
        command += ["--no-remove-lines", "--uniformize", "0"]  # Python scripts, made for images
        command += ["--x-column", "X", "--y-column", "Y", "--sort-column", "PRIORITY"]
        command += ["--width", str(request.width_px), "--height", str(request.height_px)]
        command += _scale_words(request, options)
        if request.has_position and options.radius_deg < 180.0:
            command += ["--ra", f"{request.ra_deg:.6f}", "--dec", f"{request.dec_deg:.6f}"]
            command += ["--radius", f"{options.radius_deg:g}"]
        command += ["--cpulimit", str(math.ceil(timeout_s))]  # loose: ours ends it
        return [*command, str(folder / "stars.xyls")]

    def _judged(
        self,
        run: ProgramRun,
        fit: Fit | None,
        request: SolveRequest,
        timeout_s: float,
        n_sent: int,
    ) -> dict:
        """Return solution, reason, message and the stars that testify."""
        if run.exit_code is None:
            return {"reason": Reason.TIMEOUT, "message": f"killed after {timeout_s:g} s"}
        if fit is not None:
            return {"solution": fit.solution} | _evidence(fit, run.output, request, n_sent)
        lower = run.output.casefold()
        if any(words in lower for words in _NO_INDEX):
            message = index_missing(self.program) or f"index files are missing; {GET_INDEXES}"
            return {"reason": Reason.NO_DATABASE, "message": message}
        if "did not solve" in lower and run.exit_code == 0:
            return {"reason": Reason.NO_MATCH, "message": ""}
        lines = run.output.strip().splitlines() or ["no output"]
        message = f"exit code {run.exit_code} and no solution: {lines[-1].strip()[:200]}"
        return {"reason": Reason.CRASHED, "message": message}

    def _outcome(self, **values: object) -> SolveOutcome:
        indexes = find_indexes(self.program)
        return SolveOutcome(
            solver=self.name,
            solver_version=self.version,
            database=", ".join(map(str, indexes.folders)) or None,
            **values,  # type: ignore[arg-type]  # names and types are those of SolveOutcome
        )


def find_solve_field(program: str | None = None) -> SolveField | None:
    """Return ``solve-field`` as configured or found; None when it is nowhere, as on Windows.

    Searched: `program`, $WOMBAT_SOLVE_FIELD, the path, the usual places of this system. A
    configured program that is not there is not replaced by another one.
    """
    path = find_program(program)
    return SolveField(path, program_version(path)) if path is not None else None


def find_program(program: str | None = None) -> Path | None:
    """Return where ``solve-field`` is; None when it is nowhere, or not where it was said to be."""
    if sys.platform == "win32":
        return None
    said = program or os.environ.get(PROGRAM_ENV)
    if said:
        found = shutil.which(Path(said).expanduser())
        return Path(found) if found else None
    on_path = shutil.which(PROGRAM_NAME)
    if on_path:
        return Path(on_path)
    usual = map(Path, USUAL_PROGRAMS.get(sys.platform, ()))
    return next((path for path in usual if os.access(path, os.X_OK)), None)


def program_version(program: Path) -> str | None:
    """Return the version it reports, e.g. ``0.93``, None when it does not say."""
    with tempfile.TemporaryDirectory(prefix="wombat_solve_field_") as folder:
        run = run_program([str(program), "--version"], Path(folder), VERSION_TIMEOUT_S)
    found = re.search(r"^\s*v?(\d+\.\d[\w.+-]*)\s*$", run.output, re.MULTILINE)
    return found[1] if found else None


# ------------------------------------------------------------------------------- its index files


@dataclass(frozen=True, slots=True)
class Indexes:
    """Where the index files are looked for, and how many there are."""

    config: Path | None
    folders: tuple[Path, ...]
    n_files: int


def find_indexes(program: Path) -> Indexes:
    """Return what the configuration that belongs to `program` says of index files."""
    config = _config_of(program)
    if config is None:
        return Indexes(None, (), 0)
    folders: list[Path] = []
    named: list[str] = []
    auto = False
    for line in config.read_text("utf-8", "replace").splitlines():
        word, _, rest = line.split("#")[0].strip().partition(" ")
        if word == "add_path" and rest.strip():
            folders.append(Path(rest.strip()))
        elif word == "index" and rest.strip():
            named.append(rest.strip())
        auto = auto or word == "autoindex"
    found = {path for folder in folders for path in folder.glob("*.fits")} if auto else set()
    for name in named:
        places = [Path(name), *(folder / name for folder in folders)]
        places += [place.with_name(f"{place.name}.fits") for place in places]
        found |= {place for place in places if place.is_file()}
    return Indexes(config, tuple(folders), len(found))


def index_missing(program: Path) -> str:
    """Return what ``solve-field`` lacks to work, with the remedy; "" when it has index files."""
    indexes = find_indexes(program)
    if indexes.config is None:
        return f"no {CONFIG_NAME} beside {program}: it says where index files are; {GET_INDEXES}"
    if indexes.n_files == 0:
        where = ", ".join(map(str, indexes.folders)) or "no folder"
        return f"no index files in {where} ({indexes.config}); {GET_INDEXES}"
    return ""


def _config_of(program: Path) -> Path | None:
    """Return the configuration that the engine beside `program` reads."""
    places = []
    for place in (program.absolute(), program.resolve()):
        prefix = place.parent.parent
        # A prefix of /usr has its settings in /etc.
        places += [prefix / "etc" / CONFIG_NAME, prefix.parent / "etc" / CONFIG_NAME]
    return next((place for place in places if place.is_file()), None)


# ------------------------------------------------------------------------------ stars in, fit out


def _scale_words(request: SolveRequest, options: RungOptions) -> list[str]:
    """Return the options that limit the scale; none where it is open (0.1 to 180 degrees)."""
    scale = request.scale_arcsec_px
    if options.fov_deg is not None:
        scale = options.fov_deg * 3600.0 / request.height_px
    if not scale:
        return []
    widen = 1.0 + max(SCALE_TOLERANCE, request.scale_tolerance)
    words = ["--scale-units", "arcsecperpix"]
    return [*words, "--scale-low", f"{scale / widen:.5g}", "--scale-high", f"{scale * widen:.5g}"]


def _write_stars(path: Path, request: SolveRequest) -> int:
    """Write the stars in the order in which they should be looked at; return how many."""
    from astropy.io import fits

    stars = request.detections
    order = _spread(stars, request.width_px, request.height_px)[:MOST_STARS]
    columns = {
        "X": stars.x_px[order] + 1.0,  # FITS counts from 1
        "Y": stars.y_px[order] + 1.0,
        "PRIORITY": np.arange(len(order), 0, -1.0),
    }
    table = [fits.Column(name, "D", array=values) for name, values in columns.items()]
    fits.BinTableHDU.from_columns(table).writeto(path)
    return len(order)


def _spread(stars: Detections, width_px: int, height_px: int) -> Indices:
    """Return indices: the brightest star of each box of the frame, then the second ones ..."""
    n_x = max(1, round(math.sqrt(BOXES * width_px / height_px)))
    n_y = max(1, round(BOXES / n_x))
    column = np.clip(stars.x_px * n_x / width_px, 0, n_x - 1).astype(int)
    row = np.clip(stars.y_px * n_y / height_px, 0, n_y - 1).astype(int)
    box = row * n_x + column
    rank = np.zeros(len(box), int)
    for one in np.unique(box):
        inside = np.flatnonzero(box == one)
        rank[inside] = np.arange(len(inside))
    return np.argsort(rank, kind="stable")


def _fit(folder: Path, request: SolveRequest) -> Fit | None:
    """Return the solution fitted to the stars that were matched; None when there is none."""
    from astropy.io import fits

    try:
        header = fits.Header.fromfile(str(folder / "out.wcs"))
        with fits.open(folder / "out.corr") as hdus:
            pairs = {
                name: np.asarray(hdus[1].data[name], float)
                for name in ("field_x", "field_y", "index_ra", "index_dec")
            }
        start = _linear(header)
    except (OSError, KeyError, ValueError, TypeError, IndexError, fits.VerifyError):
        return None
    return fit_pairs(
        pairs["field_x"] - 1.0,
        pairs["field_y"] - 1.0,
        pairs["index_ra"],
        pairs["index_dec"],
        start=start,
        width_px=request.width_px,
        height_px=request.height_px,
    )


def _linear(header: "fits.Header") -> WcsSolution:
    """Return the linear part of a .wcs file. Raises KeyError or ValueError for what is none."""
    names = ("CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CD1_1", "CD1_2", "CD2_1", "CD2_2")
    numbers = [float(header[name]) for name in names]
    ra, dec, x, y, cd11, cd12, cd21, cd22 = numbers
    solution = WcsSolution(
        ra_deg=ra % 360.0, dec_deg=dec, crpix_x=x, crpix_y=y,
        cd11=cd11, cd12=cd12, cd21=cd21, cd22=cd22,
    )  # fmt: skip
    if not all(map(math.isfinite, numbers)) or solution.determinant == 0.0:
        raise ValueError(f"no usable solution: {numbers}")
    return solution


def _evidence(fit: Fit, output: str, request: SolveRequest, n_sent: int) -> dict:
    """Return the program's own count of stars, or nothing where the request's table can testify.

    A table may know fainter stars than the index files, and is what all other frames stand on.
    """
    size = {"width_px": request.width_px, "height_px": request.height_px}
    if request.star_table is not None:
        seen = agreement(fit.solution, request.detections, request.star_table, **size)
        if seen.n_expected >= MIN_MATCHED:
            return {}
    counts = _MATCHES.findall(output)
    n_index = int(counts[-1][3]) if counts else fit.n_matched
    return {
        "n_matched": fit.n_matched,
        "n_expected": max(fit.n_matched, min(n_index, (n_sent + 1) // 2)),
        "rms_px": fit.rms_px,
        "rms_arcsec": fit.rms_arcsec,
    }
