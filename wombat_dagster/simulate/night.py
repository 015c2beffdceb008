"""Write a night of raw frames as a capture program would, and beside it what is true of them.

`simulate_night` fills ``data/<night>/{Bias,Dark,Flat,Light/<target>}`` under a root with 16-bit
frames in MaxIm DL's dialect (no WCS: that is the pipeline's to find) and writes
``truth/<night>.json``. Times are JD of UTC at mid-exposure; the variable's light curve runs in HJD
and is averaged, as flux, over the exposure. The airmass is Young's (1994), of the field's centre,
for the whole frame: differential extinction over the field is left out.
"""

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from dataclasses import field as default
from pathlib import Path
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import AltAz, EarthLocation, SkyCoord, get_sun
from astropy.io import fits
from astropy.time import Time
from astropy.utils import iers
from astropy.wcs import WCS
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray, Site
from wombat_dagster.simulate.camera import (
    Detector,
    add_stars,
    expose,
    make_detector,
    read_out,
    with_overscan,
)
from wombat_dagster.simulate.sky import (
    BANDS,
    Field,
    Passband,
    Telescope,
    electrons_per_second,
    frame_wcs,
    sexagesimal,
)

MIN_ALTITUDE_DEG = 25.0
MAX_SUN_ALTITUDE_DEG = -12.0  # nautical dusk
NIGHT_STEP = dt.timedelta(minutes=5)  # in which the Sun is looked for
READOUT_S = 6.0
FLAT_EXPOSURE_S = 3.0
DAWN_FLATS_SUN_DEG = -6.0  # the Sun's altitude when flats of the morning begin
BIAS_DRIFT_ADU = 5.0  # rms of the level from frame to frame, where an overscan tells it
FLAT_LEVEL_SPREAD = 0.2  # flats of one filter differ in level by so much, either way
FOCAL_LENGTH_ERROR = 1.006  # headers know their scale to better than a percent, not exactly
SCINTILLATION_1M_1S = 4.743e-3  # relative rms: 1 m telescope, 1 s, zenith, sea level
TURBULENCE_HEIGHT_M = 8000.0
EXPOSURE_NODES, EXPOSURE_WEIGHTS = np.polynomial.legendre.leggauss(5)

# What MaxIm DL calls the kinds of frame.
BIAS, DARK, FLAT, LIGHT = "Bias Frame", "Dark Frame", "Flat Field", "Light Frame"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How sky and mount behave in a night; the defaults are a decent one."""

    seeing_rms: float = 0.04  # of the FWHM, slowly wandering
    seeing_growth_hour: float = 0.0  # of the FWHM, besides
    transparency_rms_mag: float = 0.015  # grey, slowly wandering, never brighter than clear
    sky_gradient: float = 0.05  # of the sky, from edge to edge
    drift_px_hour: tuple[float, float] = (3.0, -2.0)
    jitter_px: float = 0.6
    rotation_deg_hour: float = 0.01
    altazimuth: bool = False  # the field turns, as it does on a mount without a third axis
    flip_after_hours: float | None = None  # on a German mount: the field then stands on its head
    trails_px: Mapping[int, tuple[float, float]] = default(default_factory=dict)
    """By the light's number: how far the stars went during the exposure, evenly."""
    pointing_error_arcmin: float = 3.0  # how far the header's position is off, in each axis
    pointing_jitter_arcmin: float = 0.1
    cosmic_rays_mpx_minute: float = 2.0
    scintillation: bool = False  # of every star by itself: they are minutes of arc apart


CLEAR = Conditions()


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTruth:
    """What is true of one light frame.

    `t1_mags` are the variable's standard magnitudes, averaged as flux over the exposure;
    `stars_xy` its and the comps' positions by AUID, 0-based, off the frame as well; `wcs` the
    header cards of the solution; `clouds_mag` the grey loss of light; `t1_e` the variable's
    expected electrons before vignetting.
    """

    file: str
    filter: str
    band: str
    exposure_s: float
    jd_utc: float
    hjd_utc: float
    altitude_deg: float
    airmass: float
    fwhm_px: float
    sky_e_px: float
    clouds_mag: float
    t1_mags: dict[str, float]
    t1_e: float
    stars_xy: dict[str, tuple[float, float]]
    wcs: dict[str, Any]
    n_cosmic_ray_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NightTruth:
    """What is true of a night. `comps`: per AUID the true magnitudes, the catalogue's, the kinds.

    `transform` holds the telescope's coefficients in the AAVSO's notation and sign.
    """

    night: str
    date: str
    target: str
    variable_auid: str
    site: dict[str, Any]
    gain_e_adu: float
    read_noise_e: float
    scale_arcsec_px: float
    transform: dict[str, float]
    comps: dict[str, dict[str, Any]]
    n_hot_px: int
    n_dead_px: int
    frames: tuple[FrameTruth, ...]

    def of_filter(self, filter: str) -> tuple[FrameTruth, ...]:
        """Return the frames taken through `filter`, in time order."""
        return tuple(frame for frame in self.frames if frame.filter == filter)

    def write(self, path: Path) -> None:
        """Write this as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_truth(path: Path) -> NightTruth:
    """Return what `NightTruth.write` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    frames = []
    for frame in found.pop("frames"):
        stars_xy = {auid: (x, y) for auid, (x, y) in frame.pop("stars_xy").items()}
        frames.append(FrameTruth(**frame, stars_xy=stars_xy))
    return NightTruth(**found, frames=tuple(frames))


# -------------------------------------------------------------------------------- time and altitude


@contextmanager
def _offline() -> Iterator[None]:
    """Earth orientation from what is installed, however old: arcseconds do not matter here."""
    with (
        iers.conf.set_temp("auto_download", False),
        iers.conf.set_temp("auto_max_age", None),
        iers.conf.set_temp("iers_degraded_accuracy", "ignore"),
    ):
        yield


def _location(site: Site) -> EarthLocation:
    return EarthLocation.from_geodetic(
        lon=site.longitude_deg * u.deg, lat=site.latitude_deg * u.deg, height=site.elevation_m * u.m
    )


def plain_jd(moment: dt.datetime) -> float:
    """Return the calendar Julian date, 86400 seconds to every day, of an aware `moment`."""
    utc = moment.astimezone(dt.UTC)
    midnight = dt.datetime(utc.year, utc.month, utc.day, tzinfo=dt.UTC)
    return utc.toordinal() + 1721424.5 + (utc - midnight) / dt.timedelta(days=1)


def altitudes_deg(jd_utc: FloatArray, site: Site, ra_deg: float, dec_deg: float) -> FloatArray:
    """Return the altitude without refraction at each `jd_utc`."""
    with _offline():
        frame = AltAz(obstime=Time(jd_utc, format="jd", scale="utc"), location=_location(site))
        return SkyCoord(ra_deg * u.deg, dec_deg * u.deg).transform_to(frame).alt.deg


def parallactic_angles_deg(
    jd_utc: FloatArray, site: Site, ra_deg: float, dec_deg: float
) -> FloatArray:
    """Return the angle at the target from the pole to the zenith, continuous over `jd_utc`."""
    with _offline():
        frame = AltAz(obstime=Time(jd_utc, format="jd", scale="utc"), location=_location(site))
        zenith = SkyCoord(az=np.zeros(len(jd_utc)) * u.deg, alt=90 * u.deg, frame=frame).icrs
        angle = SkyCoord(ra_deg * u.deg, dec_deg * u.deg).position_angle(zenith)
    return np.degrees(np.unwrap(angle.rad))


def young_airmass(altitude_deg: FloatArray) -> FloatArray:
    """Return the airmass at an altitude without refraction: Young (1994), Appl. Opt. 33, 1108."""
    c = np.sin(np.radians(altitude_deg))
    return (1.002432 * c**2 + 0.148386 * c + 0.0096467) / (
        c**3 + 0.149864 * c**2 + 0.0102963 * c + 0.000303978
    )


def heliocentric_jd(jd_utc: FloatArray, site: Site, ra_deg: float, dec_deg: float) -> FloatArray:
    """Return HJD on the UTC scale at each `jd_utc`."""
    with _offline():
        times = Time(jd_utc, format="jd", scale="utc", location=_location(site))
        star = SkyCoord(ra_deg * u.deg, dec_deg * u.deg)
        return jd_utc + times.light_travel_time(star, kind="heliocentric").to_value(u.day)


def observable_start(
    date: dt.date,
    site: Site,
    ra_deg: float,
    dec_deg: float,
    *,
    duration_s: float = 3600.0,
    min_altitude_deg: float = MIN_ALTITUDE_DEG,
) -> dt.datetime:
    """Return the first moment (UTC) from which a target stays up in the dark for `duration_s`.

    Up is above `min_altitude_deg`; the night is the one that begins on the evening of `date` at the
    site; steps are five minutes.

    Raises
    ------
    ValueError
        The target does not stay up so long in the dark; the longest run there is is named.
    """
    moments, jd_utc, sun_altitude = _sun_of_night(date, site)
    step = NIGHT_STEP
    up = altitudes_deg(jd_utc, site, ra_deg, dec_deg) > min_altitude_deg
    good = up & (sun_altitude < MAX_SUN_ALTITUDE_DEG)
    longest = 0
    run = 0
    needed = int(np.ceil(duration_s / step.total_seconds())) + 1
    for index, usable in enumerate(good):
        run = run + 1 if usable else 0
        longest = max(longest, run)
        if run == needed:
            start = moments[index - needed + 1]
            return start.replace(microsecond=0)
    raise ValueError(
        f"above {min_altitude_deg:g} degrees in the dark for {max(longest - 1, 0) * 5} minutes on "
        f"{date.isoformat()}, {duration_s / 60:.0f} wanted"
    )


def dawn_flats_start(date: dt.date, site: Site) -> dt.datetime:
    """Return when the Sun has risen to -6 degrees on the morning after the evening of `date`.

    Raises
    ------
    ValueError
        It does not at this site.
    """
    moments, _, sun_altitude = _sun_of_night(date, site)
    for index in range(1, len(moments)):
        if sun_altitude[index - 1] < DAWN_FLATS_SUN_DEG <= sun_altitude[index]:
            return moments[index]
    raise ValueError(f"the Sun does not rise to {DAWN_FLATS_SUN_DEG:g} degrees after {date}")


def _sun_of_night(date: dt.date, site: Site) -> tuple[list[dt.datetime], FloatArray, FloatArray]:
    """Return moments from the noon of `date` to the next, their JD, and the Sun's altitude."""
    noon = dt.datetime.combine(date, dt.time(12), tzinfo=dt.UTC)
    noon -= dt.timedelta(hours=((site.longitude_deg + 180.0) % 360.0 - 180.0) / 15.0)
    moments = [noon + n * NIGHT_STEP for n in range(24 * 12 + 1)]
    jd_utc = np.array([plain_jd(moment) for moment in moments])
    with _offline():
        times = Time(jd_utc, format="jd", scale="utc")
        frame = AltAz(obstime=times, location=_location(site))
        return moments, jd_utc, get_sun(times).transform_to(frame).alt.deg


# ------------------------------------------------------------------------------------ a whole night


def simulate_night(
    root: Path,
    *,
    field: Field,
    telescope: Telescope,
    date: dt.date,
    site: Site,
    seed: int,
    filters: Sequence[str] = ("V",),
    n_lights: int = 10,
    n_bias: int = 7,
    n_flats: int = 7,
    n_darks: int = 0,
    n_dawn_flats: int = 0,
    overscan_px: int = 0,
    exposure_s: float | Mapping[str, float] = 60.0,
    cadence_s: float | None = None,
    start: dt.datetime | None = None,
    night_directory: str | None = None,
    target_directory: str | None = None,
    conditions: Conditions = CLEAR,
    gain_in_header: bool = True,
    site_in_header: bool = False,
) -> NightTruth:
    """Write one night under `root`, deterministic by `seed`, and return its truth.

    Parameters
    ----------
    n_lights, n_flats
        Frames per filter; the filters take turns through the night.
    n_dawn_flats
        Flats per filter of the next morning, besides those of the evening.
    overscan_px
        Columns of overscan, on a bias level that then drifts from frame to frame.
    exposure_s
        Of the lights, or by filter.
    cadence_s
        From one light's start to the next; None: as fast as the camera reads.
    start
        Start of the first light; None: `observable_start`.
    night_directory, target_directory
        Names of the directories; None: ``YYYYMMDD`` and the variable's name.

    Raises
    ------
    ValueError
        The target is not up in the dark long enough.
    KeyError
        The telescope has no such filter.
    """
    night = night_directory or date.strftime("%Y%m%d")
    target = target_directory or field.name
    plan = _plan_lights(filters, n_lights, exposure_s, cadence_s)
    begin = start or observable_start(
        date,
        site,
        field.ra_deg,
        field.dec_deg,
        duration_s=plan[-1].offset_s + plan[-1].exposure_s if plan else 0.0,
    )
    detector = make_detector(telescope, filters)
    writer = _Writer(
        directory=root / "data" / night,
        telescope=telescope,
        site=site if site_in_header else None,
        gain_in_header=gain_in_header,
        seed=seed,
        detector=detector,
        overscan_px=overscan_px,
    )
    _write_biases(writer, detector, n_bias, begin - dt.timedelta(minutes=30))
    _write_flats(writer, detector, filters, n_flats, begin - dt.timedelta(minutes=50))
    if n_dawn_flats:
        morning = dawn_flats_start(date, site)
        _write_flats(writer, detector, filters, n_dawn_flats, morning, first=n_flats + 1)
    exposures = sorted({light.exposure_s for light in plan})
    _write_darks(writer, detector, exposures, n_darks, begin - dt.timedelta(hours=3))
    shots = _shots(plan, begin, field, site, conditions, np.random.default_rng([seed, 0]))
    frames = tuple(
        _write_light(
            writer, detector, field, shot, conditions, target, elevation_m=site.elevation_m
        )
        for shot in shots
    )
    truth = NightTruth(
        night=night,
        date=date.isoformat(),
        target=target,
        variable_auid=field.variable.auid or "",
        site=asdict(site),
        gain_e_adu=telescope.gain_e_adu,
        read_noise_e=telescope.read_noise_e,
        scale_arcsec_px=telescope.scale_arcsec_px,
        transform=telescope.transform_coefficients,
        comps={
            comp.auid or "": {
                "true": dict(comp.mags),
                "catalogue": {band: known.mag for band, known in comp.catalogue.items()},
                "kinds": list(field.kinds.get(comp.auid or "", ())),
            }
            for comp in field.comps
        },
        n_hot_px=int(detector.hot.sum()),
        n_dead_px=int(detector.dead.sum()),
        frames=frames,
    )
    truth.write(root / "truth" / f"{night}.json")
    return truth


@dataclass(frozen=True, slots=True, kw_only=True)
class _Light:
    """One planned light: when it begins after the first, through what, how long."""

    filter: str
    number: int
    offset_s: float
    exposure_s: float


def _plan_lights(
    filters: Sequence[str],
    n_lights: int,
    exposure_s: float | Mapping[str, float],
    cadence_s: float | None,
) -> list[_Light]:
    plan = []
    offset = 0.0
    for number in range(1, n_lights + 1):
        for filter in filters:
            length = exposure_s[filter] if isinstance(exposure_s, Mapping) else exposure_s
            plan.append(
                _Light(filter=filter, number=number, offset_s=offset, exposure_s=float(length))
            )
            offset += max(cadence_s or 0.0, length + READOUT_S)
    return plan


# ------------------------------------------------------------------------------------------- frames


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Where frames go and what every header says; and the one source of randomness."""

    directory: Path
    telescope: Telescope
    site: Site | None
    gain_in_header: bool
    seed: int
    detector: Detector
    overscan_px: int

    def rng(self, kind: str, filter: str | None, number: int) -> np.random.Generator:
        """Return the generator of one frame: no frame depends on how many came before it."""
        return np.random.default_rng([self.seed, number, *f"{kind} {filter}".encode()])

    def write(
        self,
        name: str,
        counts: NDArray[np.uint16],
        *,
        kind: str,
        start: dt.datetime,
        exposure_s: float,
        rng: np.random.Generator,
        filter: str | None = None,
        cards: Mapping[str, Any] | None = None,
    ) -> None:
        """Write `counts` to `name` under the night's directory, unsigned by BZERO."""
        scope = self.telescope
        if self.overscan_px:
            counts = self._with_overscan(counts, name)
        focal_mm = scope.pixel_um * 206.264806 / scope.scale_arcsec_px * FOCAL_LENGTH_ERROR
        header = fits.Header()
        header["DATE-OBS"] = (utc_text(start), "start of exposure, UT")
        header["EXPTIME"] = (float(exposure_s), "seconds")
        header["EXPOSURE"] = (float(exposure_s), "seconds")
        header["SET-TEMP"] = (-20.0, "C")
        header["CCD-TEMP"] = (round(-20.0 + 0.05 * float(rng.standard_normal()), 3), "C")
        header["XPIXSZ"] = (scope.pixel_um, "um, after binning")
        header["YPIXSZ"] = (scope.pixel_um, "um, after binning")
        header["XBINNING"] = 1
        header["YBINNING"] = 1
        header["XORGSUBF"] = 0
        header["YORGSUBF"] = 0
        header["READOUTM"] = "Normal"
        if filter is not None:
            header["FILTER"] = filter
        header["IMAGETYP"] = kind
        header["FOCALLEN"] = (round(focal_mm, 1), "mm")
        header["APTDIA"] = (scope.aperture_m * 1000.0, "mm")
        if self.gain_in_header:
            header["EGAIN"] = (scope.gain_e_adu, "electrons per ADU")
        header["INSTRUME"] = scope.camera
        header["SWCREATE"] = "wombat simulate"
        if self.site is not None:
            header["SITELAT"] = sexagesimal(
                self.site.latitude_deg, decimals=0, separator=" ", plus=True
            )
            header["SITELONG"] = sexagesimal(
                self.site.longitude_deg, decimals=0, separator=" ", plus=True
            )
        for key, value in (cards or {}).items():
            header[key] = value
        if self.overscan_px:
            width, height = scope.width_px, scope.height_px
            header["TRIMSEC"] = f"[1:{width},1:{height}]"
            header["BIASSEC"] = f"[{width + 1}:{width + self.overscan_px},1:{height}]"
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.PrimaryHDU(counts, header).writeto(path, overwrite=True)

    def _with_overscan(self, counts: NDArray[np.uint16], name: str) -> NDArray[np.uint16]:
        rng = self.rng(name, "overscan", 0)  # its own: without overscan nothing else changes
        wide = with_overscan(counts, self.detector, rng, self.overscan_px).astype(np.int64)
        drift_adu = round(BIAS_DRIFT_ADU * float(rng.standard_normal()))
        return np.clip(wide + drift_adu, 0, self.telescope.stop_adu).astype(np.uint16)


def utc_text(moment: dt.datetime) -> str:
    """Return ``2025-10-15T01:23:45.678``."""
    return moment.astimezone(dt.UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")


def _write_biases(writer: _Writer, detector: Detector, n: int, begin: dt.datetime) -> None:
    for number in range(1, n + 1):
        rng = writer.rng(BIAS, None, number)
        writer.write(
            f"Bias/Bias-{number:04d}.fit",
            read_out(detector, rng, None),
            kind=BIAS,
            start=begin + dt.timedelta(seconds=number * READOUT_S),
            exposure_s=0.0,
            rng=rng,
        )


def _write_flats(
    writer: _Writer,
    detector: Detector,
    filters: Sequence[str],
    n: int,
    begin: dt.datetime,
    first: int = 1,
) -> None:
    for filter in filters:
        level_e = detector.telescope.passband(filter).flat_adu * detector.telescope.gain_e_adu
        for number in range(first, first + n):
            rng = writer.rng(FLAT, filter, number)
            level = level_e * rng.uniform(1 - FLAT_LEVEL_SPREAD, 1 + FLAT_LEVEL_SPREAD)
            counts, _ = expose(
                detector, rng, float(level), filter=filter, exposure_s=FLAT_EXPOSURE_S
            )
            begin += dt.timedelta(seconds=FLAT_EXPOSURE_S + READOUT_S)
            writer.write(
                f"Flat/Flat-{number:04d}{filter}.fit",
                counts,
                kind=FLAT,
                start=begin,
                exposure_s=FLAT_EXPOSURE_S,
                rng=rng,
                filter=filter,
            )


def _write_darks(
    writer: _Writer, detector: Detector, exposures_s: Sequence[float], n: int, begin: dt.datetime
) -> None:
    for exposure_s in exposures_s:
        for number in range(1, n + 1):
            rng = writer.rng(DARK, f"{exposure_s:g}", number)
            counts, _ = expose(detector, rng, 0.0, filter=None, exposure_s=exposure_s)
            writer.write(
                f"Dark/Dark-{number:04d}-{exposure_s:g}s.fit",
                counts,
                kind=DARK,
                start=begin,
                exposure_s=exposure_s,
                rng=rng,
            )
            begin += dt.timedelta(seconds=exposure_s + READOUT_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shot:
    """One light with all that time and weather make of it; `hours` since the first."""

    light: _Light
    start: dt.datetime
    jd_utc: float
    hjd_utc: float
    altitude_deg: float
    airmass: float
    hours: float
    seeing: float  # times the telescope's FWHM
    clouds_mag: float
    turned_deg: float
    jitter_px: FloatArray
    pointing_arcmin: FloatArray  # error of the header's position in RA and Dec


def _shots(
    plan: Sequence[_Light],
    begin: dt.datetime,
    field: Field,
    site: Site,
    conditions: Conditions,
    rng: np.random.Generator,
) -> list[_Shot]:
    n = len(plan)
    if n == 0:
        return []
    starts = [begin + dt.timedelta(seconds=light.offset_s) for light in plan]
    half_d = np.array([light.exposure_s for light in plan]) / 2 / 86400.0
    jd_utc = np.array([plain_jd(start) for start in starts]) + half_d
    hours = (jd_utc - jd_utc[0]) * 24.0
    hjd_utc = heliocentric_jd(jd_utc, site, field.variable.ra_deg, field.variable.dec_deg)
    altitude = altitudes_deg(jd_utc, site, field.ra_deg, field.dec_deg)
    airmass = young_airmass(altitude)
    seeing = 1.0 + conditions.seeing_rms * _wander(rng, hours)
    seeing = seeing + conditions.seeing_growth_hour * hours
    turned_deg = conditions.rotation_deg_hour * hours
    if conditions.altazimuth:
        parallactic_deg = parallactic_angles_deg(jd_utc, site, field.ra_deg, field.dec_deg)
        turned_deg = turned_deg + parallactic_deg - parallactic_deg[0]
    if conditions.flip_after_hours is not None:
        turned_deg = turned_deg + np.where(hours > conditions.flip_after_hours, 180.0, 0.0)
    clouds = np.abs(conditions.transparency_rms_mag * _wander(rng, hours))
    jitter = conditions.jitter_px * rng.standard_normal((n, 2))
    pointing = conditions.pointing_error_arcmin * rng.choice([-1.0, 1.0], 2)
    pointing = pointing + conditions.pointing_jitter_arcmin * rng.standard_normal((n, 2))
    return [
        _Shot(
            light=plan[i],
            start=starts[i],
            jd_utc=float(jd_utc[i]),
            hjd_utc=float(hjd_utc[i]),
            altitude_deg=float(altitude[i]),
            airmass=float(airmass[i]),
            hours=float(hours[i]),
            seeing=float(seeing[i]),
            clouds_mag=float(clouds[i]),
            turned_deg=float(turned_deg[i]),
            jitter_px=jitter[i],
            pointing_arcmin=pointing[i],
        )
        for i in range(n)
    ]


def _wander(rng: np.random.Generator, hours: FloatArray) -> FloatArray:
    """Return a smooth random run of rms 1: three sines of 0.4 to 2 hours."""
    phase = rng.uniform(0, 2 * np.pi, 3)
    period = rng.uniform(0.4, 2.0, 3)
    waves = np.sin(2 * np.pi * hours[:, None] / period + phase)
    return waves.sum(axis=1) * np.sqrt(2.0 / 3.0)


def _write_light(
    writer: _Writer,
    detector: Detector,
    field: Field,
    shot: _Shot,
    conditions: Conditions,
    target: str,
    *,
    elevation_m: float,
) -> FrameTruth:
    telescope, light = detector.telescope, shot.light
    passband = telescope.passband(light.filter)
    rng = writer.rng(LIGHT, light.filter, light.number)
    shift_px = np.array(conditions.drift_px_hour) * shot.hours + shot.jitter_px
    wcs = _pointed(telescope, field, shift_px, shot.turned_deg)
    # A Julian year is 365.25 days, counted from J2000.0, JD 2451545.0.
    ra, dec = field.positions(2000.0 + (shot.jd_utc - 2451545.0) / 365.25)
    x, y = wcs.all_world2pix(ra, dec, 0)
    t1_mags = mean_mags(field, shot.hjd_utc, light.exposure_s)
    star_e = expected_electrons(
        field,
        passband,
        t1_mags,
        airmass=shot.airmass,
        clouds_mag=shot.clouds_mag,
        exposure_s=light.exposure_s,
    )
    t1_e = float(star_e[0])
    if conditions.scintillation:
        sigma = scintillation(telescope, shot.airmass, light.exposure_s, elevation_m)
        star_e = star_e * (1.0 + sigma * rng.standard_normal(len(star_e)))
    sky_e_px = light.exposure_s * sky_electrons(telescope, passband)
    fwhm_px = telescope.fwhm_px * shot.seeing
    image = _sky_image(telescope, sky_e_px, conditions.sky_gradient)
    trail_px = conditions.trails_px.get(light.number, (0.0, 0.0))
    add_stars(image, x, y, star_e, telescope=telescope, fwhm_px=fwhm_px, trail_px=trail_px)
    megapixel_minutes = image.size / 1e6 * light.exposure_s / 60.0
    counts, n_hit = expose(
        detector,
        rng,
        image,
        filter=light.filter,
        exposure_s=light.exposure_s,
        cosmic_rays=conditions.cosmic_rays_mpx_minute * megapixel_minutes,
    )
    file = f"Light/{target}/{_file_stem(target)}-{light.number:04d}{light.filter}.fit"
    writer.write(
        file,
        counts,
        kind=LIGHT,
        start=shot.start,
        exposure_s=light.exposure_s,
        rng=rng,
        filter=light.filter,
        cards=_pointing_cards(field, shot.pointing_arcmin),
    )
    return FrameTruth(
        file=file,
        filter=light.filter,
        band=passband.band,
        exposure_s=light.exposure_s,
        jd_utc=shot.jd_utc,
        hjd_utc=shot.hjd_utc,
        altitude_deg=shot.altitude_deg,
        airmass=shot.airmass,
        fwhm_px=fwhm_px,
        sky_e_px=sky_e_px,
        clouds_mag=shot.clouds_mag,
        t1_mags=t1_mags,
        t1_e=t1_e,
        stars_xy={
            star.auid: (float(x[i]), float(y[i]))
            for i, star in enumerate(field.stars)
            if star.auid is not None
        },
        wcs=_wcs_cards(wcs),
        n_cosmic_ray_px=n_hit,
    )


def _file_stem(target: str) -> str:
    return "".join(c if c.isalnum() or c in "+-." else "_" for c in target)


def expected_electrons(
    field: Field,
    passband: Passband,
    t1_mags: Mapping[str, float],
    *,
    airmass: float,
    clouds_mag: float,
    exposure_s: float,
) -> FloatArray:
    """Return the electrons of the field's stars in an exposure, the variable at `t1_mags`."""
    mags = field.mags()
    for band, mag in t1_mags.items():
        mags[band][0] = mag
    dimming = 10.0 ** (-0.4 * clouds_mag)
    return exposure_s * dimming * electrons_per_second(passband, mags, airmass)


def _pointed(telescope: Telescope, field: Field, shift_px: FloatArray, turned_deg: float) -> WCS:
    """Return the WCS of a frame in which the field has moved by `shift_px` from its place."""
    nominal = frame_wcs(telescope, ra_deg=field.ra_deg, dec_deg=field.dec_deg)
    centre = np.array([telescope.width_px - 1, telescope.height_px - 1]) / 2 - shift_px
    ra, dec = nominal.all_pix2world(centre[0], centre[1], 0)
    return frame_wcs(telescope, ra_deg=float(ra), dec_deg=float(dec), turned_deg=turned_deg)


def _wcs_cards(wcs: WCS) -> dict[str, Any]:
    """Return the cards of a TAN WCS; zeros of the CD matrix, which astropy leaves out, included."""
    cards: dict[str, Any] = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"}
    for i in range(2):
        cards[f"CRVAL{i + 1}"] = float(wcs.wcs.crval[i])
        cards[f"CRPIX{i + 1}"] = float(wcs.wcs.crpix[i])
        for j in range(2):
            cards[f"CD{i + 1}_{j + 1}"] = float(wcs.wcs.cd[i, j])
    return cards


def mean_mags(field: Field, hjd_utc: float, exposure_s: float) -> dict[str, float]:
    """Return the variable's magnitudes by band: its mean flux in an exposure about `hjd_utc`."""
    moments = hjd_utc + EXPOSURE_NODES * exposure_s / 2 / 86400.0
    return {
        band: float(
            -2.5
            * np.log10(
                np.sum(EXPOSURE_WEIGHTS / 2 * 10.0 ** (-0.4 * field.variable_mag(moments, band)))
            )
        )
        for band in BANDS
    }


def scintillation(
    telescope: Telescope, airmass: float, exposure_s: float, elevation_m: float
) -> float:
    """Return the relative rms of a star's flux at an ordinary site.

    Young's (1967) law for long exposures, rms ∝ D^(-2/3) X^(3/2) e^(-h/8 km) / √t, at the level of
    measured turbulence: 4.74e-3 for 1 m, 1 s, the zenith and sea level, half as much again as
    Young's own 3.2e-3. Osborn et al. (2015), MNRAS 452, 1707.
    """
    by_telescope = telescope.aperture_m ** (-2 / 3) / float(np.sqrt(exposure_s))
    by_path = airmass**1.5 * float(np.exp(-elevation_m / TURBULENCE_HEIGHT_M))
    return SCINTILLATION_1M_1S * by_telescope * by_path


def sky_electrons(telescope: Telescope, passband: Passband) -> float:
    """Return the sky's electrons per second and pixel; as seen from the ground, unextinguished."""
    mag_px = passband.sky_mag_arcsec2 - 2.5 * np.log10(telescope.scale_arcsec_px**2)
    return float(10.0 ** (0.4 * (passband.zero_point_mag - mag_px)))


def _sky_image(telescope: Telescope, sky_e_px: float, gradient: float) -> FloatArray:
    """Return the sky, `sky_e_px` in the middle, brighter to the upper right."""
    along_x = np.linspace(-0.5, 0.5, telescope.width_px)
    along_y = np.linspace(-0.5, 0.5, telescope.height_px)
    slope = gradient * (0.8 * along_x[None, :] + 0.6 * along_y[:, None])
    return (sky_e_px * (1.0 + slope)).astype(np.float32)


def _pointing_cards(field: Field, error_arcmin: FloatArray) -> dict[str, str]:
    """Return where the mount believes to look, which is not where it looks."""
    ra = field.ra_deg + error_arcmin[0] / 60.0 / np.cos(np.radians(field.dec_deg))
    dec = field.dec_deg + error_arcmin[1] / 60.0
    return {
        "OBJECT": field.name,
        "OBJCTRA": sexagesimal(ra % 360.0 / 15.0, decimals=1, separator=" "),
        "OBJCTDEC": sexagesimal(dec, decimals=0, separator=" ", plus=True),
    }
