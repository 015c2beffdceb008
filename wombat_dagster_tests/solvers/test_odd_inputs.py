"""Every odd input of PLATE_SOLVING.md section 1 on our road: file, pixels, stars, ladder.

Each ends with a solution, with a solver's word, or as a file that cannot be read, says why, and
leaves the observer's file alone, to the bit.
"""

import gzip
import hashlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import SolveStatus
from wombat_dagster.science.detection import detect_stars
from wombat_dagster.simulate.astap_database import write_astap_database
from wombat_dagster.simulate.camera import add_stars
from wombat_dagster.simulate.sky import Telescope
from wombat_dagster.solvers.astap import find_astap
from wombat_dagster.solvers.base import Reason, SolveRequest
from wombat_dagster.solvers.catalogue import CatalogueSolver
from wombat_dagster.solvers.ladder import solve_frame
from wombat_dagster.solvers.star_database import StarDatabase
from wombat_dagster.store.frames import UnreadableFrame, read_image

WIDTH_PX, HEIGHT_PX = 900, 700


def photographed(sky, *, width_px=WIDTH_PX, height_px=HEIGHT_PX):
    """Return a frame of a sky with sky background 400 and noise 6, counts of 16 bits."""
    wcs = sky.wcs(rotation_deg=25.0, east_px=40)
    wcs.wcs.crpix = [(width_px + 1) / 2, (height_px + 1) / 2]
    x, y = wcs.all_world2pix(sky.table.ra_deg, sky.table.dec_deg, 0)
    inside = (x > 0) & (y > 0) & (x < width_px) & (y < height_px)
    pixels = np.random.default_rng(3).normal(400.0, 6.0, (height_px, width_px))
    flux = 1200.0 * 10 ** (0.4 * (sky.table.mag.max() - sky.table.mag))
    scope = Telescope(width_px=width_px, height_px=height_px)
    add_stars(pixels, x[inside], y[inside], flux[inside], telescope=scope, fwhm_px=3.0)
    return np.clip(pixels, 0, 65535).astype(np.uint16)


@pytest.fixture(scope="module", name="patch")
def _patch():
    """A patch of sky, for the whole module."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("solver_skies", Path(__file__).with_name("conftest.py"))
    skies = module_from_spec(spec)
    spec.loader.exec_module(skies)
    return skies.make_sky(21)


@pytest.fixture(scope="module", name="pixels")
def _pixels(patch):
    return photographed(patch)


@pytest.fixture(scope="module", name="database")
def _database(patch, tmp_path_factory):
    return written(patch, tmp_path_factory.mktemp("stars"))


def written(sky, folder):
    stars = sky.table
    centre = (sky.ra_deg, sky.dec_deg, 2.0)
    write_astap_database(folder, stars.ra_deg, stars.dec_deg, stars.mag, field=centre)
    return folder


@pytest.fixture(
    params=[
        "embedded",
        pytest.param(
            "astap",
            marks=[
                pytest.mark.needs_astap,
                pytest.mark.skipif(
                    shutil.which("astap_cli") is None, reason="astap_cli is not on PATH"
                ),
            ],
        ),
    ]
)
def solvers(request, database):
    """The keyword arguments of `solve_frame` for one solver alone."""
    source = StarDatabase(database).around
    if request.param == "embedded":
        return {"astap": None, "embedded": CatalogueSolver(source), "stars": source}
    astap = find_astap("astap_cli", database=str(database))
    return {"astap": astap, "embedded": None, "stars": source}


def content_hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def request_for(image, sky, path):
    return SolveRequest(
        file=path.name,
        image_path=path,
        width_px=image.shape[1],
        height_px=image.shape[0],
        scale_arcsec_px=sky.scale_arcsec_px,
        ra_deg=sky.ra_deg,
        dec_deg=sky.dec_deg,
        detections=detect_stars(image),
    )


def sent_down_the_road(path, sky, solvers):
    """Return the frame's solution: read, private copy, stars, ladder; the file stays as it is."""
    before, beside = content_hash(path), sorted(path.parent.iterdir())
    mode = path.stat().st_mode
    try:
        image, _ = read_image(path)
        with tempfile.TemporaryDirectory() as folder:
            private = Path(folder) / "private.fits"
            fits.writeto(private, image)
            return solve_frame(request_for(image, sky, private), **solvers)
    finally:
        assert content_hash(path) == before
        assert path.stat().st_mode == mode
        assert sorted(path.parent.iterdir()) == beside


def with_nan(pixels):
    image = pixels.astype(np.float32)
    image[200:230, 300:340] = np.nan
    return image


def in_8_bits(pixels):
    return np.clip((pixels.astype(float) - 380.0) / 8.0, 0, 255).astype(np.uint8)


def as_primary(path, image):
    fits.PrimaryHDU(image).writeto(path)


def as_extension(path, image):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(image)]).writeto(path)


def packed(path, image):
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image)]).writeto(path)


def zipped(path, image):
    fits.PrimaryHDU(image).writeto(path.with_suffix(""))
    path.write_bytes(gzip.compress(path.with_suffix("").read_bytes(), 1))


SOLVED = {
    "plain": ("a.fits", as_primary, lambda p: p),
    "image in extension 1": ("a.fits", as_extension, lambda p: p),
    "tile-compressed": ("a.fits.fz", packed, lambda p: p),
    "gzip": ("a.fits.gz", zipped, lambda p: p),
    "one plane of a cube": ("a.fits", as_primary, lambda p: p[None]),
    "float 0..1": ("a.fits", as_primary, lambda p: (p / 65535.0).astype(np.float32)),
    "negative counts": ("a.fits", as_primary, lambda p: p.astype(np.float32) - 450.0),
    "NaN": ("a.fits", as_primary, with_nan),
    "int32": ("a.fits", as_primary, lambda p: p.astype(np.int32) * 100),
    "uint8": ("a.fits", as_primary, in_8_bits),
    "float64": ("a.fits", as_primary, lambda p: p.astype(np.float64)),
    "blanks in the name": ("SV Wom 60 s.fits", as_primary, lambda p: p),
    "unicode in the name": ("Großer Wömbat ★.fits", as_primary, lambda p: p),
    "dots and a suffix in capitals": ("a.b.2025.10.15.FIT", as_primary, lambda p: p),
}


@pytest.mark.parametrize("case", SOLVED)
def test_what_is_odd_but_whole_is_solved(case, tmp_path, pixels, patch, solvers):
    name, write, change = SOLVED[case]
    path = tmp_path / name
    write(path, change(pixels))
    frame = sent_down_the_road(path, patch, solvers)
    assert frame.status is SolveStatus.SOLVED, f"{frame.reason}: {frame.message}"
    truth = patch.wcs(rotation_deg=25.0, east_px=40)
    assert patch.worst_error_px(frame.solution, truth) < 0.5


def no_stars(shape):
    return np.random.default_rng(0).normal(400.0, 6.0, shape).astype(np.float32)


STARLESS = {
    "noise": lambda: no_stars((HEIGHT_PX, WIDTH_PX)),
    "zeros": lambda: np.zeros((HEIGHT_PX, WIDTH_PX), np.uint16),
    "zeros in float": lambda: np.zeros((HEIGHT_PX, WIDTH_PX), np.float32),
    "nothing but NaN": lambda: np.full((HEIGHT_PX, WIDTH_PX), np.nan, np.float32),
}


@pytest.mark.parametrize("case", STARLESS)
def test_a_frame_without_stars_has_no_stars(case, tmp_path, patch, solvers):
    """Of float zeros ASTAP 2022 dies with exit code 0; what we see, nothing, is the reason."""
    as_primary(tmp_path / "a.fits", STARLESS[case]())
    frame = sent_down_the_road(tmp_path / "a.fits", patch, solvers)
    assert (frame.status, frame.reason) == (SolveStatus.FAILED, Reason.NO_STARS)


def cut_data(path, image):
    as_primary(path, image)
    path.write_bytes(path.read_bytes()[: 2880 + image.nbytes // 2])


def cut_header(path, image):
    as_primary(path, image)
    path.write_bytes(path.read_bytes()[:1500])


UNREADABLE = {
    "truncated": cut_data,
    "header damaged or cut": cut_header,
    "empty file": lambda path, image: path.write_bytes(b""),
    "not a FITS file": lambda path, image: path.write_bytes(b"garbage" * 4000),
    "cube of 900x700x3": lambda path, image: as_primary(path, np.stack([image] * 3)),
    "cube of 900x700x5": lambda path, image: as_primary(path, np.stack([image] * 5)),
}


@pytest.mark.parametrize("words", UNREADABLE)
def test_what_is_not_a_whole_image_never_reaches_a_solver(words, tmp_path, pixels, patch):
    """ASTAP itself would solve a frame cut in the middle, and a cube's first plane."""
    path = tmp_path / "a.fits"
    UNREADABLE[words](path, pixels)
    with pytest.raises(UnreadableFrame, match=words):
        sent_down_the_road(path, patch, {"astap": None, "embedded": None})


def test_stars_of_another_sky_match_nothing(tmp_path, sky_at, patch, solvers):
    as_primary(tmp_path / "a.fits", photographed(sky_at(99)))
    frame = sent_down_the_road(tmp_path / "a.fits", patch, solvers)
    assert (frame.status, frame.reason) == (SolveStatus.FAILED, Reason.NO_MATCH)


def test_a_read_only_file_in_a_read_only_folder_is_solved(tmp_path, pixels, patch, solvers):
    """ASTAP would leave with exit code 0 and nothing done: it gets a folder of its own."""
    folder = tmp_path / "archive"
    folder.mkdir()
    as_primary(folder / "a.fits", pixels)
    (folder / "a.fits").chmod(0o444)
    folder.chmod(0o555)
    try:
        before = content_hash(folder / "a.fits")
        request = request_for(pixels, patch, folder / "a.fits")
        assert solve_frame(request, **solvers).status is SolveStatus.SOLVED
        assert content_hash(folder / "a.fits") == before
        assert [path.name for path in folder.iterdir()] == ["a.fits"]
        assert (folder / "a.fits").stat().st_mode & 0o777 == 0o444
    finally:
        folder.chmod(0o755)


def test_four_at_once_on_one_file_are_all_solved_and_it_survives(tmp_path, pixels, patch, solvers):
    """With -update on one file ASTAP 2022 lost it (PLATE_SOLVING section 0)."""
    path = tmp_path / "a.fits"
    as_primary(path, pixels)
    before = content_hash(path)
    request = request_for(pixels, patch, path)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: solve_frame(request, **solvers), range(4)))
    assert [one.status for one in done] == [SolveStatus.SOLVED] * 4
    assert len({one.solution for one in done}) == 1
    assert content_hash(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_frame_of_24_million_pixels_is_solved(tmp_path, sky_at, solvers, request):
    sky = sky_at(4, scale_arcsec_px=2.0)
    fine = replace(sky, scale_arcsec_px=0.5)
    big = photographed(fine, width_px=6000, height_px=4000)
    source = StarDatabase(written(sky, tmp_path / "stars")).around
    solvers = solvers | {"stars": source}
    if solvers["embedded"] is not None:
        solvers["embedded"] = CatalogueSolver(source)
    else:
        solvers["astap"] = replace(solvers["astap"], database=tmp_path / "stars")
    (tmp_path / "night").mkdir()
    as_primary(tmp_path / "night" / "a.fits", big)
    frame = sent_down_the_road(tmp_path / "night" / "a.fits", fine, solvers)
    assert frame.status is SolveStatus.SOLVED, f"{frame.reason}: {frame.message}"
    assert frame.rms_px < 0.5


# ------------------------------------------------------------------------------- star databases


def empty_folder(database, folder):
    folder.mkdir()


def empty_tiles(database, folder):
    shutil.copytree(database, folder)
    for tile in folder.iterdir():
        tile.write_bytes(tile.read_bytes()[:110])


def half_a_set(database, folder):
    shutil.copytree(database, folder)
    (folder / "h18_0101.1476").unlink()


def other_records(database, folder):
    shutil.copytree(database, folder)
    for tile in folder.iterdir():
        tile.write_bytes(tile.read_bytes()[:109] + bytes([11]))


UNUSABLE = {
    "no set of .1476 or .290 tiles": empty_folder,
    "all of them empty": empty_tiles,
    "tiles of h18, but no h18_0101, half a set": half_a_set,
    "records of 11 bytes": other_records,
}


@pytest.mark.parametrize("words", UNUSABLE)
def test_an_unusable_database_is_the_reason_and_not_the_sky(
    words, tmp_path, pixels, patch, database
):
    UNUSABLE[words](database, tmp_path / "stars")
    as_primary(tmp_path / "a.fits", pixels)
    source = StarDatabase(tmp_path / "stars").around
    solvers = {"astap": None, "embedded": CatalogueSolver(source), "stars": source}
    frame = sent_down_the_road(tmp_path / "a.fits", patch, solvers)
    assert (frame.status, frame.reason) == (SolveStatus.FAILED, Reason.NO_DATABASE)


@pytest.mark.needs_astap
@pytest.mark.skipif(shutil.which("astap_cli") is None, reason="astap_cli is not on PATH")
@pytest.mark.parametrize("words", UNUSABLE)
def test_with_an_unusable_database_of_astap_other_stars_serve(
    words, tmp_path, pixels, patch, database
):
    UNUSABLE[words](database, tmp_path / "stars")
    as_primary(tmp_path / "a.fits", pixels)
    source = StarDatabase(database).around
    astap = find_astap("astap_cli", database=str(tmp_path / "stars"))
    solvers = {"astap": astap, "embedded": CatalogueSolver(source), "stars": source}
    frame = sent_down_the_road(tmp_path / "a.fits", patch, solvers)
    assert frame.status is SolveStatus.SOLVED
    assert frame.solver == "catalogue"
    assert frame.attempts[0].outcome in (Reason.NO_DATABASE, Reason.NO_MATCH)


@pytest.mark.needs_astap
@pytest.mark.skipif(shutil.which("astap_cli") is None, reason="astap_cli is not on PATH")
def test_a_missing_tile_does_not_end_the_climb(tmp_path, pixels, patch, database):
    """A set for one field: the first rung meets the hole, the rung of RA in hours does not."""
    shutil.copytree(database, tmp_path / "stars")
    as_primary(tmp_path / "a.fits", pixels)
    astap = find_astap("astap_cli", database=str(tmp_path / "stars"))
    read, _ = read_image(tmp_path / "a.fits")
    request = request_for(read, patch, tmp_path / "a.fits")
    misled = replace(request, ra_deg=patch.ra_deg / 15.0)
    frame = solve_frame(misled, astap=astap, embedded=None, stars=StarDatabase(database).around)
    assert [one.rung for one in frame.attempts][-1] == "2 RA in hours"
    assert frame.attempts[0].outcome == Reason.NO_MATCH
    assert "Error reading star database" in frame.attempts[0].message
    assert "of 1476 tiles" in frame.attempts[0].message
