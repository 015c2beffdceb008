"""Real MicroObservatory frames of HAT-P-32: trailed, saturated, drifting by 276 px in the night.

Every thirtieth of the 142. Header position and scale are those of the frames; 5.163 arcsec/px was
measured by others (``data/README.md``).
"""

import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import SolveStatus
from wombat_dagster.science.detection import detect_stars
from wombat_dagster.solvers.astap import find_astap
from wombat_dagster.solvers.base import Reference, SolveRequest
from wombat_dagster.solvers.catalogue import CatalogueSolver
from wombat_dagster.solvers.ladder import first_good_frame, propagate_frame, solve_frame
from wombat_dagster.solvers.star_database import read_star_database, read_star_table_csv

DATA = Path(os.environ.get("WOMBAT_REFERENCE_DATA", "/nonexistent"))
NIGHT = DATA / "microobservatory" / "20171219"
FIELD = {"ra_deg": 31.312099, "dec_deg": 46.769087}

pytestmark = pytest.mark.skipif(
    not NIGHT.is_dir(), reason="WOMBAT_REFERENCE_DATA does not name a directory with the frames"
)


@pytest.fixture(scope="module", name="database")
def _database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("astap")
    with tarfile.open(DATA / "astap" / "astap-hatp32-field.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return next(folder.rglob("*_0101.1476")).parent


@pytest.fixture(scope="module", name="requests")
def _requests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    requests = []
    for packed in sorted(NIGHT.rglob("*.fz"))[::30]:
        with fits.open(packed, ignore_missing_simple=True) as hdus:
            pixels = next(hdu.data for hdu in hdus if hdu.data is not None)
        path = folder / f"{packed.name}.fits"
        fits.writeto(path, pixels)
        requests.append(
            SolveRequest(
                file=packed.name,
                image_path=path,
                width_px=pixels.shape[1],
                height_px=pixels.shape[0],
                scale_arcsec_px=5.21,
                detections=detect_stars(pixels, saturation_adu=4095),
                **FIELD,
            )
        )
    return requests


@pytest.fixture(params=["ASTAP database", "Tycho-2"])
def table(request, database):
    if request.param == "Tycho-2":
        return read_star_table_csv(DATA / "catalogs" / "tycho2_hatp32.csv")
    return read_star_database(database, radius_deg=1.6, **FIELD)


def with_table(request, table, **changes):
    return replace(request, star_table=table, **changes)


def test_the_embedded_solver_needs_no_astap(requests, table):
    for request in requests:
        frame = solve_frame(with_table(request, table), astap=None, embedded=CatalogueSolver())
        assert frame.status is SolveStatus.SOLVED
        assert frame.solution.scale_arcsec_px == pytest.approx(5.163, abs=0.005)
        assert frame.rms_px < 0.5
        assert frame.n_matched > 0.8 * frame.n_expected


def test_the_night_is_propagated_from_one_frame(requests, table):
    detections = [request.detections for request in requests]
    first = first_good_frame(detections)
    whole = solve_frame(with_table(requests[first], table), astap=None, embedded=CatalogueSolver())
    reference = Reference(solution=whole.solution, detections=detections[first], file=whole.file)
    for star_table in (None, table):
        for request in requests:
            frame = propagate_frame(with_table(request, star_table), reference)
            assert frame.status is SolveStatus.PROPAGATED
            assert frame.rms_px < 0.5
            alone = solve_frame(
                with_table(request, table), astap=None, embedded=CatalogueSolver()
            ).solution
            apart_deg = np.hypot(
                (frame.solution.ra_deg - alone.ra_deg) * np.cos(np.radians(alone.dec_deg)),
                frame.solution.dec_deg - alone.dec_deg,
            )
            assert apart_deg * 3600 < 0.5 * 5.163


@pytest.mark.needs_astap
@pytest.mark.skipif(shutil.which("astap_cli") is None, reason="astap_cli is not on PATH")
def test_astap_solves_the_raw_frames(requests, table, database):
    astap = find_astap("astap_cli", database=str(database))
    for request in requests:
        frame = solve_frame(with_table(request, table), astap=astap, embedded=None)
        assert frame.status is SolveStatus.SOLVED
        assert frame.attempts[-1].rung.startswith(("1", "2"))
        assert frame.n_matched > 0.8 * frame.n_expected
        assert frame.solution.scale_arcsec_px == pytest.approx(5.163, abs=0.02)
