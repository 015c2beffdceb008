"""Settings from ``wombat.toml``, checked once; the effective configuration of a run.

Every key, its unit and its default stand here and, for people, in ``wombat.toml.example``; a test
holds the two together. Roots are relative to the file's directory. Without a file every default
holds and nothing is invented: there is no default site, gain or observer.
"""

import datetime as dt
import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from wombat_dagster import domain

CONFIG_ENV = "WOMBAT_CONFIG"
CONFIG_NAME = "wombat.toml"

Section = Annotated[str, Field(pattern=r"^\[\d+:\d+,\d+:\d+\]$")]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Table(BaseModel):
    """A table of the file: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SiteSettings(Table):
    """``[site]``: where the telescope stands. Longitude is positive to the east."""

    latitude_deg: Annotated[float, Field(ge=-90, le=90)]
    longitude_deg: Annotated[float, Field(ge=-180, le=360)]
    elevation_m: float = 0.0

    def site(self) -> domain.Site:
        """Return the domain's value."""
        return domain.Site(
            latitude_deg=self.latitude_deg,
            longitude_deg=self.longitude_deg,
            elevation_m=self.elevation_m,
        )


class ObserverSettings(Table):
    """``[observer]``: who reports."""

    code: str | None = None  # AAVSO observer code


class InstrumentSettings(Table):
    """``[[instrument]]``: one camera. The first whose `camera` occurs in INSTRUME counts."""

    camera: str = ""  # part of INSTRUME; empty matches every camera
    filter: str | None = None  # filter of frames whose header has none
    filters: dict[str, str] = {}  # header filter -> AAVSO code
    gain_e_adu: Positive | None = None
    read_noise_e: NotNegative | None = None
    saturation_adu: Positive | None = None
    linearity_adu: Positive | None = None
    pixel_scale_arcsec: Positive | None = None
    overscan: Section | None = None  # FITS section; else BIASSEC
    trim: Section | None = None  # FITS section; else TRIMSEC
    max_ccd_temperature_c: float | None = None  # warmer frames are not used
    transform: dict[str, float] = {}  # Tv_bv = -0.06
    transform_error: dict[str, NotNegative] = {}
    extinction: dict[str, NotNegative] = {}  # band -> mag per airmass
    extinction_colour: dict[str, float] = {}  # band -> mag per airmass and magnitude of colour
    aperture_m: Positive | None = None  # diameter of the telescope, for the scintillation
    epochs: list[dt.date] = []  # first nights after the optics, the filters or the camera changed

    def epoch_of(self, night: dt.date) -> dt.date | None:
        """Return the first night of the epoch `night` belongs to, None before the first of them."""
        return max((first for first in self.epochs if first <= night), default=None)


class TargetSettings(Table):
    """``[[target]]``: what a target directory means."""

    directory: list[str]
    vsx: str | None = None
    ra_deg: Annotated[float, Field(ge=0, lt=360)] | None = None
    dec_deg: Annotated[float, Field(ge=-90, le=90)] | None = None
    mag_range: tuple[float, float] | None = None  # brightest, faintest, in V
    period_d: Positive | None = None
    colour: dict[str, float] = {}  # "B-V" -> colour index of the variable
    colour_error: dict[str, NotNegative] = {}
    check: str | None = None  # AUID of T2
    comps: list[str] = []  # AUIDs: only these
    ban: list[str] = []  # AUIDs: never these

    @model_validator(mode="after")
    def _both_coordinates(self) -> "TargetSettings":
        if (self.ra_deg is None) != (self.dec_deg is None):
            raise ValueError("ra_deg and dec_deg go together")
        return self


class MasterSettings(Table):
    """``[[master]]``: a dated master frame that the observer supplies."""

    file: str
    kind: Literal["bias", "dark", "flat"] | None = None  # else from the file's name
    filter: str | None = None  # of a flat; else from the file's name or header
    exposure_s: Positive | None = None  # of a dark; else from the header
    valid_from: dt.date | None = None
    valid_until: dt.date | None = None
    forced: bool = False  # before any master of the nights

    @model_validator(mode="after")
    def _range_in_order(self) -> "MasterSettings":
        if self.valid_from and self.valid_until and self.valid_from > self.valid_until:
            raise ValueError("valid_from is after valid_until")
        return self


class CalibrationSettings(Table):
    """``[calibration]``: masters and reduction."""

    min_frames: Annotated[int, Field(ge=3)] = 3
    clip_sigma: Positive = 5.0
    max_age_days: Annotated[int, Field(ge=0)] | None = None
    max_temperature_difference_c: Positive | None = None
    require_calibration: bool = False
    use_calibration_only_nights: bool = False
    organise_flats: Literal["move", "link", "off"] = "move"
    dark_exposure_tolerance: Positive = 0.05
    flat_min_fraction: Positive = 0.05  # of the saturation level: darker flats are refused
    flat_max_fraction: Positive = 0.95  # brighter ones too
    discard_first_n: Annotated[int, Field(ge=0)] = 0  # lights at the start of an observation
    cosmic_rays: bool = False  # clean the lights with L.A.Cosmic
    keep_reduced: bool = True  # False: no reduced frames on disk
    library: str | None = None  # directory of dated masters


class StagingSettings(Table):
    """``[staging]``: raw frames on a slow disk are copied to a fast one ahead of the work."""

    directory: str | None = None
    ahead: Annotated[int, Field(ge=1)] = 4  # frames copied in advance
    retries: Annotated[int, Field(ge=0)] = 3


class AstapSettings(Table):
    """``[astap]``: the plate solver ASTAP."""

    program: str | None = None
    database: str | None = None  # directory of the star database
    timeout_s: Positive = 60.0


class SolveSettings(Table):
    """``[solve]``: plate solving."""

    mode: Literal["auto", "every-frame"] = "auto"
    snr_min: Positive = 10.0
    star_table: str | None = None  # CSV with ra_deg, dec_deg, mag for the embedded solver
    blind: bool = False
    radius_deg: Positive = 5.0
    solve_field: str | None = None  # program, when it is not on PATH


class AavsoSettings(Table):
    """``[aavso]``: the services and how patiently they are asked."""

    vsx_urls: list[str] = [
        "https://vsx.aavso.org/index.php",
        "https://www.aavso.org/vsx/index.php",
    ]
    vsp_urls: list[str] = [
        "https://app.aavso.org/vsp/api/chart/",
        "https://apps.aavso.org/vsp/api/chart/",
        "https://www.aavso.org/apps/vsp/api/chart/",
    ]
    timeout_s: Positive = 30.0
    retries: Annotated[int, Field(ge=0)] = 3
    patience_s: Positive = 90.0  # all tries of one request together
    min_interval_s: NotNegative = 1.0  # between two requests
    maglimit: float = 16.5
    chart_max_age_days: Positive = 30.0
    probe_s: Positive = 300.0  # a service known to be away is asked for a sign of life so often
    vizier_url: str = "https://vizier.cds.unistra.fr"  # for [comps] fallback


class CompSettings(Table):
    """``[comps]``: which chart stars may be used."""

    window: Literal["wide", "literal"] = "wide"
    window_mag: Positive = 1.5
    edge_margin_px: NotNegative = 5.0
    fallback: Literal["off", "apass", "refcat2"] = "off"  # while VSP is away; redone with VSP


class PhotometrySettings(Table):
    """``[photometry]``: PSF stars and apertures."""

    psf_peak_min_adu: Positive = 5000.0
    psf_peak_max_adu: Positive = 30000.0
    psf_frames_tried: Annotated[int, Field(ge=1)] = 10
    radius_fwhm: Positive = 1.7
    sky_inner_fwhm: Positive = 3.4
    sky_outer_fwhm: Positive = 6.8
    min_radius_px: Positive = 2.5
    aperture: Literal["fwhm", "snr", "scan"] = "fwhm"  # how the radius is chosen
    scan_fwhm: tuple[Positive, Positive] = (0.8, 2.5)  # range of radii that "snr" and "scan" try
    follow_fwhm: bool = False  # radii follow each frame's FWHM
    centroid: Literal["windowed", "howell", "off"] = "windowed"
    radius_px: Positive | None = None  # fixed radii instead of those from the FWHM
    sky_inner_px: Positive | None = None
    sky_outer_px: Positive | None = None
    recentre_limit_px: NotNegative | None = None  # default: 1 FWHM of its detections

    @model_validator(mode="after")
    def _radii_together(self) -> "PhotometrySettings":
        fixed = (self.radius_px, self.sky_inner_px, self.sky_outer_px)
        if any(r is None for r in fixed) != all(r is None for r in fixed):
            raise ValueError("radius_px, sky_inner_px and sky_outer_px go together")
        return self

    @model_validator(mode="after")
    def _smaller_first(self) -> "PhotometrySettings":
        if not self.scan_fwhm[0] < self.scan_fwhm[1]:
            raise ValueError("scan_fwhm: the smaller one first")
        return self

    @model_validator(mode="after")
    def _fixed_or_chosen(self) -> "PhotometrySettings":
        if self.radius_px is not None and (self.follow_fwhm or self.aperture != "fwhm"):
            chooser = "follow_fwhm" if self.follow_fwhm else f'aperture = "{self.aperture}"'
            raise ValueError(f"{chooser} and radius_px: a fixed radius is neither chosen nor moved")
        return self


class MagnitudeSettings(Table):
    """``[magnitudes]``: standard magnitudes and their errors."""

    merr: Literal["random", "total"] = "random"
    ensemble: Literal["chart", "field"] = "chart"  # what carries the zero point between frames
    max_field_stars: Annotated[int, Field(ge=10)] = 200
    colour_fit: bool = False  # fit a colour term to the night's own comps


class ReportSettings(Table):
    """``[report]``: files for the AAVSO."""

    per: Literal["night", "observation"] = "night"  # one file each
    obstype: Literal["CCD", "DSLR", "PEP", "VISDIG"] = "CCD"
    notes: str = ""  # words for the NOTES of every line
    changed_mag: NotNegative = 0.01  # an approved night whose magnitudes move by more waits again


class ReviewSettings(Table):
    """``[review]``: the page where a person looks and decides."""

    port: Annotated[int, Field(ge=1, le=65535)] = 3001


class EventSettings(Table):
    """``[events]``: what the observer is told of at once."""

    brighter_mag: Positive | None = 0.5  # than its history or its VSX range
    fainter_mag: Positive | None = 0.5
    eclipse_ahead_h: Annotated[float, Field(ge=0, le=8784)] = 24.0  # 0: eclipses are not foretold
    command: list[str] = []  # program and arguments; the event comes as JSON on its input


class SensorSettings(Table):
    """``[sensors]``: how ./data is watched."""

    interval_s: Annotated[int, Field(ge=1)] = 30
    quiet_s: NotNegative = 60.0  # a directory is left alone until unchanged for so long


class RunSettings(Table):
    """``[runs]``: how long a run may take, and how long it is remembered."""

    time_limit_s: Positive = 7200.0  # of one night's masters, or one observation
    keep_days: Positive = 90.0  # logs, and Dagster's record of runs that newer ones replaced


class Settings(Table):
    """The whole file. `base` is the directory its relative paths start from."""

    base: Path = Path()
    data: Path = Path("data")
    products: Path = Path("products")
    database: Path = Path("wombatpipeline.db")
    cache: Path = Path("cache")
    site: SiteSettings | None = None
    observer: ObserverSettings = ObserverSettings()
    instrument: list[InstrumentSettings] = []
    target: list[TargetSettings] = []
    master: list[MasterSettings] = []
    calibration: CalibrationSettings = CalibrationSettings()
    staging: StagingSettings = StagingSettings()
    astap: AstapSettings = AstapSettings()
    solve: SolveSettings = SolveSettings()
    aavso: AavsoSettings = AavsoSettings()
    comps: CompSettings = CompSettings()
    photometry: PhotometrySettings = PhotometrySettings()
    magnitudes: MagnitudeSettings = MagnitudeSettings()
    report: ReportSettings = ReportSettings()
    review: ReviewSettings = ReviewSettings()
    events: EventSettings = EventSettings()
    sensors: SensorSettings = SensorSettings()
    runs: RunSettings = RunSettings()

    def path(self, relative: Path | str) -> Path:
        """Return a path of the file as an absolute one."""
        return (self.base / relative).absolute()

    def for_camera(self, camera: str | None) -> InstrumentSettings:
        """Return the settings of `camera` (INSTRUME), all defaults when none is configured."""
        for instrument in self.instrument:
            if instrument.camera.casefold() in (camera or "").casefold():
                return instrument
        return InstrumentSettings()

    def for_target(self, directory: str) -> TargetSettings | None:
        """Return what ``[[target]]`` says of a target directory."""
        for target in self.target:
            if directory.casefold() in (name.casefold() for name in target.directory):
                return target
        return None


def config_path() -> Path:
    """Return the configuration file in force: $WOMBAT_CONFIG, else wombat.toml here."""
    return Path(os.environ.get(CONFIG_ENV) or CONFIG_NAME).absolute()


def load(path: Path | None = None) -> Settings:
    """Return the settings of `path` (default: `config_path`); defaults when it does not exist.

    Raises
    ------
    FileNotFoundError
        A path was asked for, by argument or $WOMBAT_CONFIG, and is not there.
    tomllib.TOMLDecodeError, pydantic.ValidationError
        The file is not TOML, or says something unknown or impossible.
    """
    asked = path is not None or CONFIG_ENV in os.environ
    file = (path or config_path()).absolute()
    if not file.exists():
        if asked:
            raise FileNotFoundError(f"no configuration file {file}")
        return Settings(base=file.parent)
    with file.open("rb") as handle:
        return Settings(base=file.parent, **tomllib.load(handle))
