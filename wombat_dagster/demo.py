"""``python -m wombat_dagster.demo DIRECTORY``: two simulated nights, raw frames to light curve.

The asset graph is the real one; sky, telescope and AAVSO services are simulated, so that the truth
is known and no network is needed. A directory that holds such a world already is used again, and
everything is processed anew.
"""

import contextlib
import logging
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wombat_dagster import cli, config, progress, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from wombat_dagster.domain import StandardMagnitudes
    from wombat_dagster.observatory import Observatory
    from wombat_dagster.simulate.aavso import StandInAavso
    from wombat_dagster.simulate.night import FrameTruth

log = logging.getLogger(__name__)

PARTS = ("data", "truth", "catalogs", "aavso")
UNFINISHED = ".simulating"
MAX_PULL = 3.0
_PORT = re.compile(r"(?<=http://127\.0\.0\.1:)\d+(?=/)")


# ---------------------------------------------------------------------------------- the world


def write_world(
    root: Path, *, port: int, nights: int = 2, seed: int = 1, n_lights: int = 22
) -> None:
    """Write a simulated world and its ``wombat.toml`` into `root`.

    `port` is where the services' stand-in will be, `n_lights` per filter. All is made beside its
    place and moved there whole, ``wombat.toml`` last.

    Raises
    ------
    FileExistsError
        `root` holds something of that name already.
    """
    from wombat_dagster.simulate.aavso import HOST, VSP_PATH, VSX_PATH
    from wombat_dagster.simulate.world import demo_world

    there = [name for name in (*PARTS, config.CONFIG_NAME) if (root / name).exists()]
    if there:
        raise FileExistsError(f"{root} holds {', '.join(there)} already; name another directory")
    making = root / UNFINISHED
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    world = demo_world(making, nights=nights, seed=seed, n_lights=n_lights)
    address = f"http://{HOST}:{port}"
    text = world.toml(vsx_urls=(address + VSX_PATH,), vsp_urls=(address + VSP_PATH,))
    for name in PARTS:
        (making / name).rename(root / name)
    making.rmdir()
    (root / config.CONFIG_NAME).write_text(text, encoding="utf-8")


def stand_in_port(config_file: Path) -> int | None:
    """Return the port on this machine that a ``wombat.toml`` asks for VSX and VSP, if it does."""
    if not config_file.exists():
        return None
    found = _PORT.search(config_file.read_text(encoding="utf-8"))
    return int(found[0]) if found else None


@contextlib.contextmanager
def serving(root: Path) -> Iterator["StandInAavso"]:
    """Serve the world's VSX and VSP where its ``wombat.toml`` asks for them.

    When that port is taken another one is, and ``wombat.toml`` follows.
    """
    from wombat_dagster.simulate.aavso import StandInAavso

    config_file = root / config.CONFIG_NAME
    wanted = stand_in_port(config_file) or cli.STAND_IN_PORT
    try:
        service = StandInAavso.from_directory(root / "aavso", port=wanted)
    except OSError:
        service = StandInAavso.from_directory(root / "aavso")
        text = _PORT.sub(str(service.port), config_file.read_text(encoding="utf-8"))
        config_file.write_text(text, encoding="utf-8")
        log.info("port %d is taken, the stand-in listens on %d", wanted, service.port)
    with service:
        yield service


# --------------------------------------------------------------------------- against the truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How an observation's magnitudes of T1 compare with the truth; all in magnitudes.

    `offset` is the night's weighted mean of measured less true, `mean_error` its random error,
    `scatter` the standard deviation about it, `random` the median stated error of one frame.
    """

    n_frames: int
    offset_mag: float
    mean_error_mag: float
    zp_err_mag: float
    scatter_mag: float
    random_mag: float

    @property
    def pull(self) -> float:
        """Offset in units of its stated error."""
        return self.offset_mag / float(np.hypot(self.zp_err_mag, self.mean_error_mag))

    @property
    def agrees(self) -> bool:
        """True within `MAX_PULL` stated errors; NaN never agrees."""
        return abs(self.pull) <= MAX_PULL


def compare(magnitudes: "StandardMagnitudes", truth: "tuple[FrameTruth, ...]") -> Comparison:
    """Compare T1 with the truth of the frames nearest in time."""
    true_jd = np.array([frame.jd_utc for frame in truth])
    nearest = np.abs(magnitudes.jd_utc[:, None] - true_jd).argmin(axis=1)
    true_mag = np.array([frame.t1_mags[magnitudes.band] for frame in truth])[nearest]
    good = np.isfinite(magnitudes.t1_mag) & np.isfinite(magnitudes.t1_random_mag)
    difference = (magnitudes.t1_mag - true_mag)[good]
    random = magnitudes.t1_random_mag[good]
    weight = random**-2.0
    if not len(difference):
        nothing = dict.fromkeys(
            ("offset_mag", "mean_error_mag", "scatter_mag", "random_mag"), np.nan
        )
        return Comparison(n_frames=0, zp_err_mag=magnitudes.zp_err_mag, **nothing)
    return Comparison(
        n_frames=len(difference),
        offset_mag=float(np.sum(weight * difference) / np.sum(weight)),
        mean_error_mag=float(np.sum(weight) ** -0.5),
        zp_err_mag=magnitudes.zp_err_mag,
        scatter_mag=float(np.std(difference, ddof=1)) if len(difference) > 1 else np.nan,
        random_mag=float(np.median(random)),
    )


def judge(observatory: "Observatory", root: Path, out: "Console") -> bool:
    """Print every observation against the truth; return whether all reached it."""
    from wombat_dagster.products import read_product
    from wombat_dagster.simulate.night import read_truth

    table = terminal.table_of(
        "Night", "Target", "Filter", "Ended", "T1 − truth", "zp_err", "pull", "scatter", "random"
    )
    all_good = True
    for row in observatory.status.targets():
        unit = row.observation
        cells = [unit.date.isoformat(), unit.target, unit.filter, row.apphot or row.proc or "–"]
        if row.apphot == "validate":
            truth = read_truth(root / "truth" / f"{row.night}.json").of_filter(unit.filter)
            found = compare(read_product(observatory, "standard_magnitudes", unit.key), truth)
            all_good &= found.agrees
            numbers = (found.zp_err_mag, found.scatter_mag, found.random_mag)
            zp_err, scatter, random = (f"{value:.4f}" for value in numbers)
            cells += [f"{found.offset_mag:+.4f}", zp_err, f"{found.pull:+.1f}", scatter, random]
        else:
            all_good = False
        table.add_row(*cells)
    out.print(table)
    out.print(
        "In magnitudes. zp_err: stated error of the night's zero point; pull: T1 − truth in units"
        f" of its stated error, at most {MAX_PULL:g} wanted; scatter about the truth, and the"
        " random error stated for one frame, should be alike."
    )
    return all_good


# ------------------------------------------------------------------------------------- the demo


def main(arguments: list[str]) -> int:
    """Run the demo in the directory named; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m wombat_dagster.demo DIRECTORY\n")
        return terminal.UNREADABLE
    root = Path(arguments[0]).absolute()
    out = terminal.console()
    begun_s = time.monotonic()
    if (root / config.CONFIG_NAME).exists():
        out.print(f"The simulated nights in {root} are there already and are used again.")
    else:
        out.print(f"Simulating two nights, and the AAVSO's answers, in {root} …")
        try:
            write_world(root, port=cli.STAND_IN_PORT)
        except FileExistsError as error:
            sys.stderr.write(f"{error}\n")
            return terminal.UNREADABLE
    with terminal.configured_by(root / config.CONFIG_NAME), serving(root):
        observatory, exit_code = _drive(out)
    all_good = judge(observatory, root, out)
    _show_places(observatory, root, out)
    out.print(f"Took {time.monotonic() - begun_s:.0f} s.")
    if not all_good:
        out.print("NOT AS IT SHOULD BE: see the table; every observation must end as validate.")
    return exit_code or (0 if all_good else progress.OURS)


def _drive(out: "Console") -> "tuple[Observatory, int]":
    """Take every night and observation through the asset graph."""
    from wombat_dagster import runs
    from wombat_dagster.observatory import open_observatory

    observatory = open_observatory()
    solver = observatory.astap
    out.print(
        f"Plate solver: ASTAP {solver.version} ({solver.program})"
        if solver
        else "Plate solver: the embedded one (ASTAP is not installed)"
    )
    observatory.scan()
    planned = runs.Plan(
        nights=tuple(observatory.status.night_keys()),
        observations=tuple(observatory.status.targets()),
    )
    return observatory, progress.carry_out(observatory, planned)


def _show_places(observatory: "Observatory", root: Path, out: "Console") -> None:
    """Print where the products are and how to open the UI."""
    from wombat_dagster.products import PRODUCTS

    layout = observatory.layout
    out.print("Light curves and tables:")
    for row in observatory.status.targets():
        curve = PRODUCTS["light_curve"].path(layout, row.observation.key)
        for path in (curve, layout.phot_table_path(row.observation)):
            if path.exists():
                out.print(f"  {path}", soft_wrap=True)
    out.print(f"Database:\n  {observatory.status.path}", soft_wrap=True)
    command = shlex.quote(str(Path(sys.executable).parent / "wombat"))
    here = shlex.quote(str(root))
    file = shlex.quote(str(root / config.CONFIG_NAME))
    for words, name in (
        ("To look, decide and report, in the browser:", "review"),
        ("The same with Dagster's UI and sensors:", "up"),
    ):
        out.print(words)
        out.print(f"  {command} --config {file} {name}", soft_wrap=True)
    out.print("What is done needs no AAVSO any more; to process more, in another terminal:")
    out.print(f"  {command} stand-in {here}", soft_wrap=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)  # as shells count: 128 and the signal's number
