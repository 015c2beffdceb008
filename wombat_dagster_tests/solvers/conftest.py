"""A patch of synthetic sky for the plate solvers, its pixels by astropy's WCS, not by ours."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.wcs import WCS

from wombat_dagster.domain import Detections, StarTable
from wombat_dagster.solvers.base import SolveRequest

WIDTH_PX, HEIGHT_PX = 900, 700


@dataclass(frozen=True)
class Sky:
    """Stars of random places and magnitudes around a centre, and frames of them."""

    table: StarTable
    ra_deg: float
    dec_deg: float
    scale_arcsec_px: float

    def wcs(self, *, rotation_deg=0.0, mirrored=False, east_px=0.0, north_px=0.0, stretch=1.0):
        """Return astropy's WCS of a frame whose centre is off by pixels to east and north."""
        scale = self.scale_arcsec_px * stretch / 3600.0
        angle = np.radians(rotation_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        cosine = np.cos(np.radians(self.dec_deg))
        wcs.wcs.crval = [self.ra_deg + east_px * scale / cosine, self.dec_deg + north_px * scale]
        wcs.wcs.crpix = [(WIDTH_PX + 1) / 2, (HEIGHT_PX + 1) / 2]
        wcs.wcs.cd = turn @ np.diag([scale if mirrored else -scale, scale])
        return wcs

    def detections(self, wcs, *, seed=0, n_stars=120, n_false=15, missing=0.1, noise_px=0.15):
        """Return what a detection would give: jitter, colour scatter, misses and false stars."""
        rng = np.random.default_rng(seed)
        x, y = wcs.all_world2pix(self.table.ra_deg, self.table.dec_deg, 0)
        mag = self.table.mag + rng.normal(0.0, 0.3, len(self.table))
        inside = (x > 2) & (y > 2) & (x < WIDTH_PX - 3) & (y < HEIGHT_PX - 3)
        row = np.flatnonzero(inside & (rng.random(len(x)) > missing))
        row = row[np.argsort(mag[row])][:n_stars]
        x = np.r_[x[row] + rng.normal(0, noise_px, len(row)), rng.uniform(0, WIDTH_PX, n_false)]
        y = np.r_[y[row] + rng.normal(0, noise_px, len(row)), rng.uniform(0, HEIGHT_PX, n_false)]
        brightness = mag[row] if len(row) else np.array([8.0, 14.0])
        mag = np.r_[mag[row], rng.uniform(brightness.min(), brightness.max(), n_false)]
        return detections_at(x, y, 10 ** (-0.4 * (mag - 20.0)))

    def request(self, detections, **changes):
        """Return the request for a frame of this sky, header right unless changed."""
        known = {
            "file": "frame.fits",
            "image_path": Path("frame.fits"),
            "width_px": WIDTH_PX,
            "height_px": HEIGHT_PX,
            "scale_arcsec_px": self.scale_arcsec_px,
            "ra_deg": self.ra_deg,
            "dec_deg": self.dec_deg,
            "detections": detections,
            "star_table": self.table,
        }
        return SolveRequest(**(known | changes))

    def worst_error_px(self, solution, wcs):
        """Return how far, at most, the solution puts corners and centre from the truth."""
        x = np.array([0, WIDTH_PX - 1, 0, WIDTH_PX - 1, WIDTH_PX / 2])
        y = np.array([0, 0, HEIGHT_PX - 1, HEIGHT_PX - 1, HEIGHT_PX / 2])
        ra, dec = wcs.all_pix2world(x, y, 0)
        x_found, y_found = solution.to_wcs().all_world2pix(ra, dec, 0)
        return float(np.hypot(x_found - x, y_found - y).max())


def detections_at(x, y, flux):
    """Return detections at given places, brightest first."""
    order = np.argsort(-flux)
    n = len(x)
    return Detections(
        x_px=x[order],
        y_px=y[order],
        flux_adu=flux[order],
        peak_adu=flux[order] / 10.0,
        fwhm_px=np.full(n, 3.0),
        axis_ratio=np.full(n, 0.9),
        snr=np.full(n, 50.0),
        sky_adu=300.0,
        sky_rms_adu=10.0,
    )


def make_sky(seed=0, *, ra_deg=100.0, dec_deg=40.0, scale_arcsec_px=2.0, n_stars=1500):
    """Return a sky around RA, Dec; about 100 of 1500 stars fall on a frame."""
    rng = np.random.default_rng(seed)
    frame_deg = WIDTH_PX * scale_arcsec_px / 3600.0
    offset = rng.uniform(-1.7 * frame_deg, 1.7 * frame_deg, (2, n_stars))
    dec = dec_deg + offset[1]
    return Sky(
        table=StarTable(
            ra_deg=np.mod(ra_deg + offset[0] / np.cos(np.radians(dec)), 360.0),
            dec_deg=dec,
            mag=14.0 + np.log10(rng.uniform(1e-4, 1.0, n_stars)) / 0.5,  # slope 0.5 dex/mag
            name="synthetic",
        ),
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        scale_arcsec_px=scale_arcsec_px,
    )


@pytest.fixture(name="sky")
def _sky():
    return make_sky()


@pytest.fixture
def sky_at():
    """The maker of skies, for other places and scales."""
    return make_sky


@pytest.fixture
def stars_at():
    """The maker of detections from positions and fluxes."""
    return detections_at
