"""An invented telescope and an invented field of stars, with everything about them known.

Besides the sky itself this holds what catalogues would say of it: the answers of VSX and VSP as
plain dicts in the services' own formats, and a star table for plate solving. The catalogue
magnitudes of the comps are *not* their true ones: they carry an error drawn from the error the
chart quotes. Serving the answers over HTTP is another module's work; pixels are `night`'s.

Colour terms have a convention of their own here, so that a sign error in the pipeline cannot cancel
against the same error in the simulation::

    instrumental = standard + c * colour + k * X - zero_point        [mag, of electrons per second]

with the colour B-V for filters B and V and V-Ic for Rc and Ic. The AAVSO's ``Tx_yz`` is the slope
of (standard - instrumental) against the colour, therefore ``Tx_yz = -c``.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from astropy.wcs import WCS

from wombat_dagster.domain import BandMagnitude, FloatArray, StarTable

BANDS = ("B", "V", "Rc", "Ic")
J2000_JYEAR = 2000.0

# Where the stars of a field go, in units of the frame's sides and of the FWHM.
FIELD_RADIUS_DIAGONALS = 0.62  # stars reach a little beyond the corners: the telescope drifts
COMP_EDGE_FRACTION = 0.12  # comps keep off the edges, for the same reason
CLEAR_RADIUS_FWHM = 4.0  # no field star falls nearer to T1 or a comp
MAG_SLOPE = 0.30  # log10 N(<m) grows by so much per magnitude (galactic, middle latitudes)
FIELD_MAG_RANGE = (9.5, 17.5)  # V
COMP_ERROR_MAG = (0.01, 0.05)  # range of quoted errors
COMMENT = "Suspected variable NSV 99999. Acceptable to use."
UNQUOTED_ERROR_MAG = 0.05  # true error of a magnitude whose quoted error is null


# ----------------------------------------------------------------------------------- the telescope


@dataclass(frozen=True, slots=True, kw_only=True)
class Passband:
    """One filter of the telescope.

    `zero_point_mag` is the magnitude that gives 1 electron per second above the atmosphere;
    `colour_coefficient` is c of the module's convention, on the index `colour`.
    """

    filter: str  # as the FITS header says
    band: str  # key of Star.mags
    zero_point_mag: float
    extinction_mag: float  # per airmass
    colour: tuple[str, str]
    colour_coefficient: float
    sky_mag_arcsec2: float
    flat_adu: float  # mean level of a flat above the bias
    dust: int = 4  # shadows of dust on the filter

    @property
    def transform_name(self) -> str:
        """Name of the coefficient in the AAVSO's notation, ``Tv_bv``."""
        blue, red = self.colour
        return "T" + f"{self.band[0]}_{blue[0]}{red[0]}".lower()

    @property
    def transform_coefficient(self) -> float:
        """Slope of (standard - instrumental) against the colour: minus c."""
        return -self.colour_coefficient


BESSELL = (
    Passband(
        filter="B",
        band="B",
        zero_point_mag=21.2,
        extinction_mag=0.35,
        colour=("B", "V"),
        colour_coefficient=-0.09,
        sky_mag_arcsec2=20.3,
        flat_adu=18000.0,
    ),
    Passband(
        filter="V",
        band="V",
        zero_point_mag=21.5,
        extinction_mag=0.21,
        colour=("B", "V"),
        colour_coefficient=0.06,
        sky_mag_arcsec2=19.6,
        flat_adu=26000.0,
    ),
    Passband(
        filter="Rc",
        band="Rc",
        zero_point_mag=21.3,
        extinction_mag=0.16,
        colour=("V", "Ic"),
        colour_coefficient=0.04,
        sky_mag_arcsec2=19.0,
        flat_adu=28000.0,
    ),
    Passband(
        filter="Ic",
        band="Ic",
        zero_point_mag=20.8,
        extinction_mag=0.12,
        colour=("V", "Ic"),
        colour_coefficient=-0.03,
        sky_mag_arcsec2=18.3,
        flat_adu=24000.0,
    ),
)
"""Filters of the invented telescope; the extinction is near a sea-level average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Telescope:
    """Optics and camera. The defaults are a 0.35 m telescope under a suburban sky.

    `fwhm_px` is that of the whole profile: two concentric round Gaussians of which the wider, by
    `halo_ratio`, holds `halo_fraction` of the light. `detector_seed` fixes the patterns that belong
    to the chip and the glass: bias columns, hot and dead pixels, pixel response, dust.
    `rotation_deg` is the position angle of +y, north through east.
    """

    camera: str = "Wombat Optics QHW-8300"
    width_px: int = 768
    height_px: int = 512
    scale_arcsec_px: float = 1.5
    rotation_deg: float = 3.2
    mirrored: bool = False
    aperture_m: float = 0.35
    pixel_um: float = 9.0
    passbands: tuple[Passband, ...] = BESSELL
    fwhm_px: float = 3.2
    halo_fraction: float = 0.08
    halo_ratio: float = 2.2
    gain_e_adu: float = 1.3
    read_noise_e: float = 8.0
    bias_adu: float = 1000.0
    bias_column_adu: float = 3.0  # rms of the column pattern
    dark_e_s: float = 0.02
    stop_adu: int = 65535  # the converter's highest count
    vignetting: float = 0.15  # light lost in the corners
    pixel_response_rms: float = 0.008
    hot_fraction: float = 2e-4
    dead_fraction: float = 5e-5
    detector_seed: int = 20251014

    def passband(self, filter: str) -> Passband:
        """Return the filter named `filter`; KeyError names those there are."""
        for passband in self.passbands:
            if passband.filter == filter:
                return passband
        known = ", ".join(passband.filter for passband in self.passbands)
        raise KeyError(f"no filter {filter!r}, the telescope has {known}")

    @property
    def transform_coefficients(self) -> dict[str, float]:
        """The telescope's colour terms as the AAVSO counts them, ``{"Tv_bv": -0.06, …}``."""
        return {p.transform_name: p.transform_coefficient for p in self.passbands}

    @property
    def tv_bv(self) -> float:
        """Slope of V - v against B-V."""
        return self.transform_coefficients["Tv_bv"]

    @property
    def tb_bv(self) -> float:
        """Slope of B - b against B-V."""
        return self.transform_coefficients["Tb_bv"]


def frame_wcs(
    telescope: Telescope, *, ra_deg: float, dec_deg: float, turned_deg: float = 0.0
) -> WCS:
    """Return the TAN WCS of a frame whose centre looks at (`ra_deg`, `dec_deg`).

    `turned_deg` is added to the telescope's rotation. North up, east left is rotation 0; a mirrored
    telescope has east to the right.
    """
    step = telescope.scale_arcsec_px / 3600.0
    angle = np.radians(telescope.rotation_deg + turned_deg)
    east_per_x = step if telescope.mirrored else -step
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [ra_deg, dec_deg]
    # FITS counts pixels from 1, so the centre of n pixels is (n + 1) / 2.
    wcs.wcs.crpix = [(telescope.width_px + 1) / 2, (telescope.height_px + 1) / 2]
    wcs.wcs.cd = [
        [east_per_x * np.cos(angle), step * np.sin(angle)],
        [-east_per_x * np.sin(angle), step * np.cos(angle)],
    ]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.equinox = 2000.0
    wcs.wcs.set()
    return wcs


def electrons_per_second(
    passband: Passband, mags: Mapping[str, FloatArray], airmass: float
) -> FloatArray:
    """Return the electrons per second that stars of the standard magnitudes `mags` give.

    `mags` holds arrays of one shape for the passband's own band and those of its colour. On a pixel
    of response 1; the module's colour convention.
    """
    blue, red = passband.colour
    instrumental = (
        mags[passband.band]
        + passband.colour_coefficient * (mags[blue] - mags[red])
        + passband.extinction_mag * airmass
        - passband.zero_point_mag
    )
    return 10.0 ** (-0.4 * instrumental)


# ---------------------------------------------------------------------------------------- the stars


class Shape(StrEnum):
    """Forms of light curve."""

    CONSTANT = "constant"
    SINE = "sine"
    RR_LYRAE = "rr_lyrae"
    ECLIPSE = "eclipse"


VSX_TYPES = {
    Shape.CONSTANT: "CST",
    Shape.SINE: "DSCT",
    Shape.RR_LYRAE: "RRAB",
    Shape.ECLIPSE: "EA",
}
RR_LYRAE_DECLINE = 0.85  # of the period; the rest is the rise
ECLIPSE_WIDTH = 0.12  # of the period


@dataclass(frozen=True, slots=True, kw_only=True)
class LightCurve:
    """How the variable's magnitude runs, with `epoch_hjd` as the GCVS counts it.

    The epoch is maximum light, for an eclipse its middle. `amplitude_ratio` scales the V amplitude
    in other bands (1 where not named), so the colour may run with the phase; `colours` are band - V
    at maximum light.
    """

    shape: Shape = Shape.RR_LYRAE
    period_d: float = 0.5439
    epoch_hjd: float = 2460963.57
    mag_bright: float = 12.0  # V
    amplitude_mag: float = 0.9  # V
    colours: Mapping[str, float] = field(
        default_factory=lambda: {"B": 0.20, "Rc": -0.13, "Ic": -0.27}
    )
    amplitude_ratio: Mapping[str, float] = field(
        default_factory=lambda: {"B": 1.25, "Rc": 0.85, "Ic": 0.70}
    )

    def mag(self, hjd: FloatArray, band: str) -> FloatArray:
        """Return the standard magnitude in `band` at `hjd`, shaped as `hjd`."""
        amplitude = self.amplitude_mag * self.amplitude_ratio.get(band, 1.0)
        return self.mag_at_maximum(band) + amplitude * self._depth(hjd)

    def mag_at_maximum(self, band: str) -> float:
        """Return the standard magnitude in `band` at maximum light."""
        return self.mag_bright + (0.0 if band == "V" else self.colours[band])

    def _depth(self, hjd: FloatArray) -> FloatArray:
        """Return 0 at maximum and 1 at minimum light."""
        phase = np.mod((np.asarray(hjd, dtype=np.float64) - self.epoch_hjd) / self.period_d, 1.0)
        if self.shape is Shape.SINE:
            return 0.5 - 0.5 * np.cos(2 * np.pi * phase)
        if self.shape is Shape.RR_LYRAE:
            decline = 1.0 - (1.0 - phase / RR_LYRAE_DECLINE) ** 2
            rise = np.cos(np.pi / 2 * (phase - RR_LYRAE_DECLINE) / (1 - RR_LYRAE_DECLINE)) ** 2
            return np.where(phase < RR_LYRAE_DECLINE, decline, rise)
        if self.shape is Shape.ECLIPSE:
            distance = np.minimum(phase, 1.0 - phase) / (ECLIPSE_WIDTH / 2)
            return np.where(distance < 1.0, 0.5 + 0.5 * np.cos(np.pi * distance), 0.0)
        return np.zeros_like(phase)


@dataclass(frozen=True, slots=True, kw_only=True)
class Star:
    """A star as it truly is: position of J2000, standard magnitudes by band.

    A comp has an `auid` and in `catalogue` what the chart says, errors included. The variable's
    `mags` are those of maximum light.
    """

    ra_deg: float
    dec_deg: float
    mags: Mapping[str, float]
    auid: str | None = None
    catalogue: Mapping[str, BandMagnitude] = field(default_factory=dict)
    comment: str = ""
    pm_ra_mas_yr: float = 0.0  # includes cos(dec)
    pm_dec_mas_yr: float = 0.0

    @property
    def is_comp(self) -> bool:
        """Whether the chart lists this star."""
        return bool(self.catalogue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A patch of sky: the variable, the comps of its chart, and all the other stars.

    `ra_deg`, `dec_deg` is where the telescope is pointed; the variable stands near it. `kinds`
    tells what was arranged for some comps, by AUID: ``off_image``, ``too_bright``, ``too_faint``,
    ``no_B``, ``no_V``, ``no_error``, ``crowded``, ``comment``.
    """

    name: str
    seed: int
    ra_deg: float
    dec_deg: float
    variable: Star
    light_curve: LightCurve
    comps: tuple[Star, ...]
    others: tuple[Star, ...]
    kinds: Mapping[str, tuple[str, ...]]

    @property
    def stars(self) -> tuple[Star, ...]:
        """All stars: the variable, the comps, the others."""
        return (self.variable, *self.comps, *self.others)

    def variable_mag(self, hjd: FloatArray, band: str) -> FloatArray:
        """Return the variable's standard magnitude in `band` at `hjd`."""
        return self.light_curve.mag(hjd, band)

    def positions(self, jyear: float = J2000_JYEAR) -> tuple[FloatArray, FloatArray]:
        """Return RA and Dec in degrees (ICRS axes) of `stars` at the Julian year `jyear`."""
        stars = self.stars
        ra, dec = np.array([(s.ra_deg, s.dec_deg) for s in stars]).T
        motion = np.array([(s.pm_ra_mas_yr, s.pm_dec_mas_yr) for s in stars]).T
        moved = motion * (jyear - J2000_JYEAR) / 3.6e6
        return np.mod(ra + moved[0] / np.cos(np.radians(dec)), 360.0), dec + moved[1]

    def mags(self) -> dict[str, FloatArray]:
        """Return the standard magnitudes of `stars` by band; the variable's at maximum light."""
        stars = self.stars
        return {band: np.array([star.mags[band] for star in stars]) for band in BANDS}


def mags_of_colour(v_mag: float, b_v: float) -> dict[str, float]:
    """Return B, V, Rc, Ic of a main-sequence-like star (an invented straight line in B-V)."""
    return {
        "B": v_mag + b_v,
        "V": v_mag,
        "Rc": v_mag - (0.02 + 0.565 * b_v),
        "Ic": v_mag - (0.05 + 1.10 * b_v),
    }


# ------------------------------------------------------------------------------ a field from a seed


def random_field(
    seed: int,
    *,
    telescope: Telescope,
    name: str = "SV Wom",
    ra_deg: float = 335.2,
    dec_deg: float = 38.1,
    n_stars: int = 450,
    n_comps: int = 18,
    light_curve: LightCurve | None = None,
) -> Field:
    """Return a field that fits the telescope's frame, the same for the same arguments.

    Parameters
    ----------
    n_stars
        Field stars on one frame, on average; more lie outside it.
    n_comps
        Stars of the chart, at least 8: two outside the frame, one brighter and one fainter than any
        magnitude window admits, the rest around the variable's range and spread over the frame.

    Raises
    ------
    ValueError
        Fewer than 8 comps.
    """
    if n_comps < 8:
        raise ValueError(f"{n_comps} comps wanted, a field has at least 8")
    rng = np.random.default_rng([seed, 1])
    curve = light_curve or LightCurve()
    wcs = frame_wcs(telescope, ra_deg=ra_deg, dec_deg=dec_deg)
    variable_xy = _near_the_centre(rng, telescope)
    comps_xy = _scatter_comps(rng, telescope, variable_xy, n_comps)
    crowded_index = int(np.argmin(np.hypot(*(comps_xy - variable_xy).T))) if n_comps >= 12 else None
    auids = [_auid(seed, number) for number in range(1, n_comps + 1)]
    comps, kinds = _make_comps(rng, wcs, comps_xy, auids, curve, crowded_index)
    others = _make_others(rng, telescope, wcs, np.vstack([variable_xy, comps_xy]), n_stars=n_stars)
    if crowded_index is not None:
        others = (
            *others,
            _neighbour(telescope, wcs, comps_xy[crowded_index], comps[crowded_index]),
        )
    ra, dec = _sky(wcs, variable_xy[None, :])
    variable = Star(
        ra_deg=round(float(ra[0]), 5),  # VSX gives five decimals
        dec_deg=round(float(dec[0]), 5),
        mags={band: curve.mag_at_maximum(band) for band in BANDS},
        auid=_auid(seed, 0),
        pm_ra_mas_yr=12.34,
        pm_dec_mas_yr=-7.89,
    )
    return Field(
        name=name,
        seed=seed,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        variable=variable,
        light_curve=curve,
        comps=comps,
        others=others,
        kinds=kinds,
    )


def _auid(seed: int, number: int) -> str:
    """Return an invented AUID, shaped as the AAVSO's and outside its range; fields do not share."""
    return f"999-{_letters(seed, 3)}-{number:03d}"


def _letters(number: int, n: int) -> str:
    """Return the last `n` digits of `number` in base 26, A for 0."""
    digits = [number // 26**place % 26 for place in reversed(range(n))]
    return "".join(string.ascii_uppercase[digit] for digit in digits)


def _sky(wcs: WCS, xy: FloatArray) -> tuple[FloatArray, FloatArray]:
    ra, dec = wcs.all_pix2world(xy[:, 0], xy[:, 1], 0)
    return ra, dec


def _near_the_centre(rng: np.random.Generator, telescope: Telescope) -> FloatArray:
    size = np.array([telescope.width_px, telescope.height_px])
    return (size - 1) / 2 + rng.uniform(-0.08, 0.08, 2) * size


def _scatter_comps(
    rng: np.random.Generator, telescope: Telescope, variable_xy: FloatArray, n_comps: int
) -> FloatArray:
    """Return pixel positions (n, 2): each the best of 30 tries, two of them outside the frame."""
    size = np.array([telescope.width_px, telescope.height_px])
    inside = np.array([COMP_EDGE_FRACTION, 1 - COMP_EDGE_FRACTION])
    chosen = [variable_xy]
    for _ in range(n_comps - 2):
        tries = rng.uniform(inside[0], inside[1], (30, 2)) * size
        distance = np.hypot(*(tries[:, None, :] - np.array(chosen)[None, :, :]).transpose(2, 0, 1))
        chosen.append(tries[np.argmax(distance.min(axis=1))])
    outside = np.array([[1.15, 0.4], [0.45, -0.18]]) * size
    return np.vstack([np.array(chosen[1:]), outside])


def _make_comps(
    rng: np.random.Generator,
    wcs: WCS,
    xy: FloatArray,
    auids: list[str],
    curve: LightCurve,
    crowded_index: int | None,
) -> tuple[tuple[Star, ...], dict[str, tuple[str, ...]]]:
    """Return the comps at `xy` and what was arranged for which."""
    faint = curve.mag_bright + curve.amplitude_mag
    kinds = _arrange(rng, len(xy), crowded_index)
    v_mag = rng.uniform(curve.mag_bright - 0.5, faint + 0.8, len(xy))
    b_v = rng.uniform(0.25, 1.35, len(xy))
    ra, dec = _sky(wcs, xy)
    comps = []
    for i, kind in enumerate(kinds):
        if "too_bright" in kind:
            v_mag[i] = curve.mag_bright - 2.3
        if "too_faint" in kind:
            v_mag[i] = faint + 2.2
        mags = mags_of_colour(float(v_mag[i]), float(b_v[i]))
        comps.append(
            Star(
                ra_deg=float(ra[i]),
                dec_deg=float(dec[i]),
                mags=mags,
                auid=auids[i],
                catalogue=_catalogued(rng, mags, kind),
                comment=COMMENT if "comment" in kind else "",
            )
        )
    return tuple(comps), {auids[i]: kind for i, kind in enumerate(kinds) if kind}


def _arrange(
    rng: np.random.Generator, n_comps: int, crowded_index: int | None
) -> list[tuple[str, ...]]:
    """Return what is special about each comp; the last two lie outside the frame."""
    kinds: list[tuple[str, ...]] = [()] * n_comps
    kinds[-2:] = [("off_image",), ("off_image",)]
    wanted = ["too_bright", "too_faint", "no_B", "no_error", "comment"]
    if n_comps >= 14:
        wanted += ["no_B", "no_V"]
    if crowded_index is not None:
        kinds[crowded_index] = ("crowded",)
    plain = [i for i in rng.permutation(n_comps - 2).tolist() if i != crowded_index]
    for index, kind in zip(plain, wanted, strict=False):
        kinds[index] = (kind,)
    return kinds


def _catalogued(
    rng: np.random.Generator, mags: Mapping[str, float], kinds: tuple[str, ...]
) -> dict[str, BandMagnitude]:
    """Return what a catalogue says of a star: truth plus an error drawn from the quoted one."""
    catalogue = {}
    for band in ("V", "B", "Rc", "Ic"):  # in the chart's order
        error = round(float(rng.uniform(*COMP_ERROR_MAG)), 3)
        drawn = float(rng.standard_normal())
        if f"no_{band}" in kinds:
            continue
        quoted = None if "no_error" in kinds else error
        sigma = UNQUOTED_ERROR_MAG if quoted is None else quoted
        catalogue[band] = BandMagnitude(mag=round(mags[band] + sigma * drawn, 3), error_mag=quoted)
    return catalogue


def _make_others(
    rng: np.random.Generator,
    telescope: Telescope,
    wcs: WCS,
    keep_clear_xy: FloatArray,
    *,
    n_stars: int,
) -> tuple[Star, ...]:
    """Return field stars in a circle around the frame, none close to the stars that matter."""
    width, height = telescope.width_px, telescope.height_px
    radius = FIELD_RADIUS_DIAGONALS * float(np.hypot(width, height))
    n = round(n_stars * np.pi * radius**2 / (width * height))
    distance = radius * np.sqrt(rng.uniform(0, 1, n))
    angle = rng.uniform(0, 2 * np.pi, n)
    xy = np.column_stack(
        [(width - 1) / 2 + distance * np.cos(angle), (height - 1) / 2 + distance * np.sin(angle)]
    )
    bright, faint = FIELD_MAG_RANGE
    share = rng.uniform(10.0 ** (-MAG_SLOPE * (faint - bright)), 1.0, n)
    v_mag = faint + np.log10(share) / MAG_SLOPE
    b_v = np.clip(rng.normal(0.72, 0.28, n), 0.0, 1.9)
    apart = np.hypot(*(xy[:, None, :] - keep_clear_xy[None, :, :]).transpose(2, 0, 1)).min(axis=1)
    kept = apart > CLEAR_RADIUS_FWHM * telescope.fwhm_px
    ra, dec = _sky(wcs, xy)
    return tuple(
        Star(
            ra_deg=float(ra[i]),
            dec_deg=float(dec[i]),
            mags=mags_of_colour(float(v_mag[i]), float(b_v[i])),
        )
        for i in np.flatnonzero(kept)
    )


def _neighbour(telescope: Telescope, wcs: WCS, xy: FloatArray, comp: Star) -> Star:
    """Return a star 2 FWHM beside `comp` and 1.5 mag fainter."""
    beside = xy + np.array([1.6, 1.2]) * telescope.fwhm_px
    ra, dec = _sky(wcs, beside[None, :])
    return Star(
        ra_deg=float(ra[0]),
        dec_deg=float(dec[0]),
        mags={band: mag + 1.5 for band, mag in comp.mags.items()},
    )


# --------------------------------------------------------------------------- what catalogues answer


def vsx_object(field: Field) -> dict[str, Any]:
    """Return VSX's ``api.object`` answer for the variable: every value a string."""
    star, curve = field.variable, field.light_curve
    answer = {
        "Name": field.name,
        "AUID": star.auid or "",
        "RA2000": f"{star.ra_deg:.5f}",
        "Declination2000": f"{star.dec_deg:.5f}",
        "ProperMotionRA": f"{star.pm_ra_mas_yr:.4f}",
        "ProperMotionDec": f"{star.pm_dec_mas_yr:.4f}",
        "VariabilityType": VSX_TYPES[curve.shape],
        "Period": f"{curve.period_d:.10g}",
        "Epoch": f"{curve.epoch_hjd:.12g}",
        "MaxMag": f"{curve.mag_bright:.2f} V",
        "MinMag": f"{curve.mag_bright + curve.amplitude_mag:.2f} V",
        "Category": "Variable",
        "OID": str(9_000_000 + field.seed),
        "Constellation": field.name.rsplit(" ", 1)[-1][:3],
    }
    if curve.shape is Shape.CONSTANT:
        del answer["Period"], answer["Epoch"]
    return {"VSXObject": answer}


def vsp_chart(field: Field, *, fov_arcmin: float = 60.0, maglimit: float = 16.5) -> dict[str, Any]:
    """Return VSP's chart answer: the comps within the square `fov_arcmin` and above `maglimit`.

    A quoted error that is not known is None, which JSON writes as null.
    """
    star = field.variable
    half_deg = fov_arcmin / 120.0
    inside = [
        comp
        for comp in sorted(field.comps, key=lambda comp: comp.mags["V"])
        if comp.mags["V"] <= maglimit
        and abs(comp.dec_deg - star.dec_deg) <= half_deg
        and abs((comp.ra_deg - star.ra_deg + 180.0) % 360.0 - 180.0)
        * np.cos(np.radians(star.dec_deg))
        <= half_deg
    ]
    chart_id = _chart_id(field.seed)
    return {
        "chartid": chart_id,
        "image_uri": f"https://apps.aavso.org/vsp/chart/{chart_id}.png?format=json",
        "star": field.name,
        "fov": fov_arcmin,
        "maglimit": maglimit,
        "title": "",
        "comment": "",
        "resolution": 150,
        "dss": False,
        "special": None,
        "photometry": [_chart_star(comp) for comp in inside],
        "auid": star.auid,
        "ra": sexagesimal(star.ra_deg / 15.0, decimals=2),
        "dec": sexagesimal(star.dec_deg, decimals=1),
    }


def _chart_id(seed: int) -> str:
    """Return a chart name of VSP's form, X and five digits and three letters."""
    return f"X{seed % 100_000:05d}W{_letters(seed, 2)}"


def _chart_star(comp: Star) -> dict[str, Any]:
    # The label is V without its point; VSP rounds it as printf does.
    v_mag = comp.catalogue["V"].mag if "V" in comp.catalogue else comp.mags["V"]
    return {
        "auid": comp.auid,
        "ra": sexagesimal(comp.ra_deg / 15.0, decimals=2),
        "dec": sexagesimal(comp.dec_deg, decimals=1),
        "label": f"{v_mag:.1f}".replace(".", ""),
        "bands": [
            {"band": band, "mag": known.mag, "error": known.error_mag}
            for band, known in comp.catalogue.items()
        ],
        "comments": comp.comment,
    }


def sexagesimal(value: float, *, decimals: int, separator: str = ":", plus: bool = False) -> str:
    """Return hours or degrees as ``HH:MM:SS.ss``; a positive sign only with `plus`.

    Rounded once, in units of the last digit, so no 60.0 can appear; ``-00:05:20.1`` keeps its sign.
    """
    unit = 10**decimals
    total = round(abs(value) * 3600 * unit)
    seconds, parts = divmod(total, unit)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if value < 0 and total else "+" if plus else ""
    fraction = f".{parts:0{decimals}d}" if decimals else ""
    return sign + separator.join((f"{hours:02d}", f"{minutes:02d}", f"{seconds:02d}")) + fraction


def star_table(field: Field) -> StarTable:
    """Return positions of J2000 and V magnitudes of all stars, brightest first."""
    ra, dec = field.positions()
    v_mag = field.mags()["V"]
    order = np.argsort(v_mag, kind="stable")
    return StarTable(
        ra_deg=ra[order], dec_deg=dec[order], mag=v_mag[order], name=f"simulated {field.name}"
    )


def write_star_table_csv(field: Field, path: Path) -> None:
    """Write `star_table` with the columns ra_deg, dec_deg, mag."""
    table = star_table(field)
    rows = [
        f"{ra:.7f},{dec:.7f},{mag:.3f}"
        for ra, dec, mag in zip(table.ra_deg, table.dec_deg, table.mag, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["ra_deg,dec_deg,mag", *rows]) + "\n", encoding="ascii")
