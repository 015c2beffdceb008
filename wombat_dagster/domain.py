"""The words of wombat: frozen values that travel between the layers, and the ways a stage ends.

No pixels are read here, no file opened, no clock asked, and Dagster is unknown. Conventions, stated
once: pixel positions are ``(x, y)``, 0-based, integer at pixel centres (FITS and AstroImageJ count
differently and are converted at their border); arrays are ``[y, x]``; JD means JD(UTC) at
mid-exposure unless a name says otherwise; ``None`` (in arrays NaN) means *not known*.
"""

import datetime as dt
import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from astropy.wcs import WCS

FloatArray = NDArray[np.floating[Any]]
BoolArray = NDArray[np.bool_]

# ---------------------------------------------------------------------------------- status words


class FrameKind(StrEnum):
    """What a raw frame was taken for."""

    BIAS = "bias"
    DARK = "dark"
    FLAT = "flat"
    LIGHT = "light"


class Proc(StrEnum):
    """Words of the column ``target.proc``."""

    CALIBRATED = "calibrated"
    PARTIAL = "partial"
    SOLVED = "solved"
    NOWCS = "nowcs"
    NOFRAMES = "noframes"


class Apphot(StrEnum):
    """Words of the column ``target.apphot``."""

    NOWCS = "nowcs"
    NOSITE = "nosite"
    NOTIME = "notime"
    BADSITE = "badsite"
    VSXDOWN = "vsxdown"
    NOVSX = "novsx"
    AMBIGUOUS = "ambiguous"
    NOVSP = "novsp"
    NOCOMPS = "nocomps"
    OFFIMAGE = "offimage"
    BADPSF = "badpsf"
    NOSTD = "nostd"
    HELD = "held"
    VALIDATE = "validate"


NOCAL = "nocal"
"""Word of ``proc_bias``, ``proc_flat`` and ``proc_dark``: no matching master was found."""

# --------------------------------------------------------------------------------- how things end


class Shortfall(Exception):
    """A stage ends without a product, for a reason in the sky or in the data.

    The message says what was found and what was wanted, with numbers. ``proc`` and ``apphot`` are
    the words the status row gets; None leaves that column alone.
    """

    proc: ClassVar[Proc | None] = None
    apphot: ClassVar[Apphot | None] = None


class NoCalibration(Shortfall):
    """Too few or unfit frames for a master, or no master where one is required."""


class NoFrames(Shortfall):
    """No usable light frame is left."""

    proc = Proc.NOFRAMES


class NoWcs(Shortfall):
    """No frame of the observation could be solved."""

    proc = Proc.NOWCS
    apphot = Apphot.NOWCS


class NoSite(Shortfall):
    """The observer's position is neither configured nor in the header."""

    apphot = Apphot.NOSITE


class NoTime(Shortfall):
    """The frames carry no usable time."""

    apphot = Apphot.NOTIME


class BadSite(Shortfall):
    """The target stands below the horizon: site or time is wrong."""

    apphot = Apphot.BADSITE


class UnknownVariable(Shortfall):
    """VSX answered and does not know the name."""

    apphot = Apphot.NOVSX


class AmbiguousVariable(Shortfall):
    """VSX answered with several stars that could be meant."""

    apphot = Apphot.AMBIGUOUS


class NoComps(Shortfall):
    """VSP answered and nothing usable is in the chart."""

    apphot = Apphot.NOCOMPS


class OffImage(Shortfall):
    """The variable lies outside the frames."""

    apphot = Apphot.OFFIMAGE


class BadPsf(Shortfall):
    """No frame has a star that a profile can be fitted to."""

    apphot = Apphot.BADPSF


class NoStandard(Shortfall):
    """Measured, but no standard magnitude can be derived."""

    apphot = Apphot.NOSTD


class ServiceUnavailable(Exception):
    """An AAVSO service is away, after all retries: the observation is parked.

    An outage is never an empty answer and never an unknown name.
    """

    apphot: ClassVar[Apphot]


class VsxUnavailable(ServiceUnavailable):
    """VSX did not answer usefully."""

    apphot = Apphot.VSXDOWN


class VspUnavailable(ServiceUnavailable):
    """VSP did not answer usefully."""

    apphot = Apphot.NOVSP


# -------------------------------------------------------------------------- nights, observations

_KEY_UNSAFE = re.compile(r"[^A-Za-z0-9.+-]+")
_DEVICE_NAME = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
MAX_SLUG = 80  # three of them, a date and a suffix make a file name


def slug(text: str) -> str:
    """Return `text` as a part of a partition key or a file name, safe in shells and on Windows.

    Only ``[A-Za-z0-9.+-]`` with single ``_`` between; accents and leading dots and dashes are
    dropped; a name that has nothing left becomes a hash, a very long one ends in one, and Windows'
    device names get an ``x``. Two names may share a slug: whoever assigns keys must check
    (`distinct_slug`).
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    safe = _KEY_UNSAFE.sub("_", plain).strip("_. ").lstrip("-_. ")
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    if not re.search(r"[A-Za-z0-9]", safe):
        return "x" + digest
    if len(safe) > MAX_SLUG:
        safe = f"{safe[: MAX_SLUG - 9].rstrip('_.')}-{digest}"
    return f"x_{safe}" if _DEVICE_NAME.match(safe) else safe


def distinct_slug(text: str, taken: Mapping[str, str]) -> str:
    """Return the slug of `text`, suffixed by a hash when it belongs to another name in `taken`.

    `taken` maps casefolded slugs to the names that own them (file systems may ignore case).
    """
    plain = slug(text)
    if taken.get(plain.casefold(), text) == text:
        return plain
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One target through one filter in one night: the unit of work.

    `filter` is what the FITS header says, stripped; `target` the directory name, verbatim.
    `key` is the partition key ``20251015__TX_Eri__V``.
    """

    date: dt.date
    target: str
    filter: str
    key: str


# ------------------------------------------------------------------------------------ raw frames


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameGroup:
    """What two frames must share to be combined or subtracted from one another."""

    width_px: int
    height_px: int
    binning: str  # "1x1"
    camera: str | None
    readout: str | None  # gain setting and readout mode as the header words them

    @property
    def shape_words(self) -> str:
        """Words for a reason: ``1024x1024 1x1``."""
        return f"{self.width_px}x{self.height_px} {self.binning}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RawFrame:
    """One raw file as the scan found it; `reason` says why it is quarantined, None when usable.

    `path` is relative to the data root, with forward slashes. `start_utc` is ISO 8601 without
    offset, on the UTC scale, at the start of the exposure.
    """

    path: str
    night_directory: str
    date: dt.date
    kind: FrameKind
    target: str | None
    filter: str | None
    size_bytes: int
    mtime_ns: int
    pixel_hash: str | None
    group: FrameGroup | None
    exposure_s: float | None
    start_utc: str | None
    ccd_temperature_c: float | None
    ra_hint_deg: float | None
    dec_hint_deg: float | None
    scale_hint_arcsec_px: float | None
    site_hint: "Site | None"
    airmass_header: float | None
    gain_header_e_adu: float | None
    gain_header_source: str | None
    read_noise_header_e: float | None
    saturation_header_adu: float | None
    pedestal_adu: float | None
    bayer_pattern: str | None
    calibration_status: str | None  # CALSTAT, when a program has already calibrated the frame
    warnings: tuple[str, ...] = ()
    reason: str | None = None
    overscan: str | None = None  # FITS section of the raw image, "[1:32,1:1024]"
    trim: str | None = None  # FITS section that is kept; `group` has its shape

    @property
    def steps_done(self) -> frozenset[str]:
        """Which of ``bias``, ``dark``, ``flat`` the capture program has already applied."""
        return steps_done(self.calibration_status)


_STEP_OF_LETTER = {"B": "bias", "D": "dark", "F": "flat"}


def steps_done(calibration_status: str | None) -> frozenset[str]:
    """Return which of ``bias``, ``dark``, ``flat`` a CALSTAT like ``BDF`` speaks of.

    A subtracted dark took the bias with it: MaxIm DL's ``D`` alone means both.
    """
    letters = (calibration_status or "").upper()
    done = {step for letter, step in _STEP_OF_LETTER.items() if letter in letters}
    return frozenset(done | {"bias"} if "dark" in done else done)


# ------------------------------------------------------------------------- place, time, the star


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the telescope stands; longitude positive to the east."""

    latitude_deg: float
    longitude_deg: float
    elevation_m: float = 0.0
    source: str = "configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTimes:
    """Times and altitudes of n frames; every array has shape (n,).

    JDs are plain calendar Julian dates with 86400-second days, as AstroImageJ and WebObs count.
    `altitude_deg` is apparent (refraction added); `airmass` is -1 at or below the horizon.
    """

    jd_start_utc: FloatArray
    jd_utc: FloatArray
    hjd_utc: FloatArray
    bjd_tdb: FloatArray
    altitude_deg: FloatArray
    airmass: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """The variable star, T1. Magnitudes: `mag_bright` is maximum light, numerically smallest."""

    name: str
    ra_deg: float
    dec_deg: float
    pm_ra_mas_yr: float | None = None  # includes cos(dec)
    pm_dec_mas_yr: float | None = None
    auid: str | None = None
    oid: str | None = None
    variability_type: str | None = None
    period_d: float | None = None
    epoch_hjd: float | None = None
    period_text: str | None = None  # as the source writes it: "0.6422550", "95:", "<300", "(50)"
    epoch_text: str | None = None
    eclipse_duration_percent: float | None = None  # of the period
    mag_bright_is_limit: bool = False  # at least so bright
    mag_faint_is_limit: bool = False  # at least so faint
    mag_bright: float | None = None
    mag_faint: float | None = None
    mag_bright_band: str | None = None
    mag_faint_band: str | None = None
    match: str = "name"  # name | variant | position | configuration
    source: str = "VSX"
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """What a star's history goes by over the nights: VSX's number, else the position."""
        if self.oid and self.oid.strip("0"):  # 0 is no number of VSX's
            return f"oid:{self.oid}"
        return f"{self.ra_deg:.3f}{self.dec_deg:+.3f}"


# ------------------------------------------------------------------------------ comparison stars


@dataclass(frozen=True, slots=True, kw_only=True)
class BandMagnitude:
    """A catalogue magnitude; `error_mag` None means the catalogue gives none."""

    mag: float
    error_mag: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompStar:
    """One star of an AAVSO chart, identified by its AUID, never by its label."""

    auid: str
    label: str
    ra_deg: float
    dec_deg: float
    bands: Mapping[str, BandMagnitude]
    comment: str = ""

    def colour(self, blue: str, red: str) -> float | None:
        """Return the colour index blue - red, or None where a band is missing."""
        if blue in self.bands and red in self.bands:
            return self.bands[blue].mag - self.bands[red].mag
        return None


VSP: Final = "VSP"  # the source of a chart that is the AAVSO's


def not_of_the_aavso(source: str | None) -> str | None:
    """Return what to tell of comps from a catalogue; None of the AAVSO's, and of unknown ones."""
    if source in (None, VSP):
        return None
    return f"comps from {source}, not the AAVSO's chart: done again when VSP is back"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompSequence:
    """The photometry of one chart. `fov_arcmin`, `maglimit`: as asked for.

    `band_notes` is to be noted, by band, where magnitudes in that band are used.
    """

    chart_id: str
    ra_deg: float
    dec_deg: float
    fov_arcmin: float
    maglimit: float
    stars: tuple[CompStar, ...]
    fetched_utc: str  # ISO 8601
    source: str = VSP
    notes: tuple[str, ...] = ()
    band_notes: Mapping[str, str] = field(default_factory=dict)


class Unused(StrEnum):
    """Why a star of the chart is not used: the closed list."""

    OFF_IMAGE = "off_image"
    NO_BAND = "no_band"
    TOO_BRIGHT = "too_bright"
    TOO_FAINT = "too_faint"
    VARIABLE = "variable"
    IS_TARGET = "is_target"
    BANNED = "banned"
    SATURATED = "saturated"
    CROWDED = "crowded"
    LOW_SNR = "low_snr"
    NOT_MEASURED = "not_measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """What became of one chart star: its role (``T2``, ``C3``) or one reason, with the numbers."""

    auid: str
    label: str
    role: str | None
    reason: Unused | None
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownVariable:
    """A star of the field that VSX lists as variable."""

    name: str
    ra_deg: float
    dec_deg: float
    auid: str | None = None
    variability_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartRequest:
    """What a chart was asked for, rounded as VSP is asked: many nights share one."""

    ra_deg: float
    dec_deg: float
    fov_arcmin: float
    maglimit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompCandidates:
    """The chart stars that may be used, best check star first, and the ledger of the others."""

    variable: Variable
    chart_id: str
    chart_source: str
    chart_fetched_utc: str
    filter: str
    band: str  # AAVSO code, for the report
    comp_band: str  # band of the catalogue magnitudes
    band_confirmed: bool
    ranked: tuple[CompStar, ...]
    scores: tuple[float, ...]
    ledger: tuple[LedgerEntry, ...]
    dropped_frames: tuple[str, ...] = ()  # labels of frames that alone cost too many comps
    notes: tuple[str, ...] = ()
    known_variables: tuple[KnownVariable, ...] | None = None  # None: VSX could not be asked
    chart_request: ChartRequest | None = None  # None: chosen before it was written down
    chart_version: str | None = None  # hash of the chart's stars inside the request


# -------------------------------------------------------------------------------- plate solutions


@dataclass(frozen=True, slots=True, kw_only=True)
class Sip:
    """A lens's distortion as polynomials in pixels u, v from the reference point.

    u + a(u, v), v + b(u, v) go through the CD matrix; U + ap(U, V), V + bp(U, V) lead back to the
    pixel, approximately: those two are for other programs, `tangent` iterates. Coefficients stand
    in the order of `sip_powers(2, order)`, of the inverse in that of `sip_powers(0,
    inverse_order)`. Beyond `reach_px` from the reference point, where nothing was fitted, the
    distortion is taken to be that at `reach_px`.

    Shupe et al. (2005), ASP Conf. Ser. 347, 491.
    """

    order: int
    a: tuple[float, ...]
    b: tuple[float, ...]
    inverse_order: int
    ap: tuple[float, ...]
    bp: tuple[float, ...]
    reach_px: float

    def header_cards(self) -> dict[str, str | float]:
        """Return the FITS cards of the polynomials, zeros left out."""
        cards: dict[str, str | float] = {}
        for letter, order, lowest, coefficients in (
            ("A", self.order, 2, self.a),
            ("B", self.order, 2, self.b),
            ("AP", self.inverse_order, 0, self.ap),
            ("BP", self.inverse_order, 0, self.bp),
        ):
            cards[f"{letter}_ORDER"] = order
            for (p, q), value in zip(sip_powers(lowest, order), coefficients, strict=True):
                if value != 0.0:
                    cards[f"{letter}_{p}_{q}"] = value
        return cards


def sip_powers(lowest: int, highest: int) -> tuple[tuple[int, int], ...]:
    """Return the (p, q) of all u^p v^q with `lowest` <= p + q <= `highest`, in a fixed order."""
    return tuple((n - q, q) for n in range(lowest, highest + 1) for q in range(n + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class WcsSolution:
    """A TAN solution, with `sip` a TAN-SIP one. `crpix_x`, `crpix_y` are FITS pixels (from 1).

    Scales, rotation and parity are those of the linear part, which are those at the reference
    point. With `sip` that point is the image's centre: the distortion belongs to the detector.
    """

    ra_deg: float  # CRVAL1
    dec_deg: float  # CRVAL2
    crpix_x: float
    crpix_y: float
    cd11: float
    cd12: float
    cd21: float
    cd22: float
    sip: Sip | None = None

    @property
    def scale_x_arcsec_px(self) -> float:
        """Length of one pixel step in x."""
        return 3600.0 * float(np.hypot(self.cd11, self.cd21))

    @property
    def scale_y_arcsec_px(self) -> float:
        """Length of one pixel step in y."""
        return 3600.0 * float(np.hypot(self.cd12, self.cd22))

    @property
    def scale_arcsec_px(self) -> float:
        """Geometric mean of both scales."""
        return 3600.0 * float(np.sqrt(abs(self.determinant)))

    @property
    def determinant(self) -> float:
        """Determinant of the CD matrix; negative on an unmirrored sky image."""
        return self.cd11 * self.cd22 - self.cd12 * self.cd21

    @property
    def parity(self) -> int:
        """-1 as the sky is seen, +1 mirrored."""
        return 1 if self.determinant > 0 else -1

    @property
    def rotation_deg(self) -> float:
        """Position angle of the image's +y axis, north through east, in [-180, 180)."""
        angle = np.degrees(np.arctan2(self.cd12, self.cd22))
        return float((angle + 180.0) % 360.0 - 180.0)

    def header_cards(self) -> dict[str, str | float]:
        """Return the FITS cards of this solution."""
        suffix = "-SIP" if self.sip is not None else ""
        distortion = self.sip.header_cards() if self.sip is not None else {}
        return {
            "CTYPE1": f"RA---TAN{suffix}",
            "CTYPE2": f"DEC--TAN{suffix}",
            "CUNIT1": "deg",
            "CUNIT2": "deg",
            "RADESYS": "ICRS",
            "EQUINOX": 2000.0,
            "CRPIX1": self.crpix_x,
            "CRPIX2": self.crpix_y,
            "CRVAL1": self.ra_deg,
            "CRVAL2": self.dec_deg,
            "CD1_1": self.cd11,
            "CD1_2": self.cd12,
            "CD2_1": self.cd21,
            "CD2_2": self.cd22,
            **distortion,
        }

    def to_wcs(self) -> "WCS":
        """Return the astropy WCS of this solution."""
        from astropy.io import fits
        from astropy.wcs import WCS

        return WCS(fits.Header(self.header_cards()), naxis=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Stars found on one frame, brightest first; every array has shape (n,)."""

    x_px: FloatArray
    y_px: FloatArray
    flux_adu: FloatArray
    peak_adu: FloatArray  # above the local sky
    fwhm_px: FloatArray
    axis_ratio: FloatArray  # minor/major, 0..1
    snr: FloatArray
    sky_adu: float  # median background of the frame
    sky_rms_adu: float

    def __len__(self) -> int:
        return len(self.x_px)


@dataclass(frozen=True, slots=True, kw_only=True)
class StarTable:
    """Catalogue stars for plate solving; every array has shape (n,)."""

    ra_deg: FloatArray
    dec_deg: FloatArray
    mag: FloatArray
    name: str

    def __len__(self) -> int:
        return len(self.ra_deg)


class SolveStatus(StrEnum):
    """Words of ``WCS.status``."""

    SOLVED = "solved"
    PROPAGATED = "propagated"
    FAILED = "failed"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveAttempt:
    """One rung of the ladder on one frame, as it goes into ``WCS.attempts``."""

    rung: str
    solver: str
    outcome: str  # "solved", a `FrameSolution.reason`, or "rejected:<check>"
    fov_deg: float | None = None
    radius_deg: float | None = None
    max_stars: int | None = None
    seconds: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSolution:
    """Everything known of one frame's plate solution: one row of the table ``WCS``."""

    file: str  # raw frame, relative to the data root
    raw_hash: str | None = None  # of its pixels, and of what they were calibrated with
    status: SolveStatus
    solution: WcsSolution | None
    solver: str | None = None
    solver_version: str | None = None
    database: str | None = None
    command: str | None = None
    exit_code: int | None = None
    reason: str | None = None  # no_stars no_database bad_file no_match timeout crashed rejected:…
    message: str = ""
    attempts: tuple[SolveAttempt, ...] = ()
    fov_tried_deg: float | None = None
    fov_used_deg: float | None = None
    ra_hint_deg: float | None = None
    dec_hint_deg: float | None = None
    scale_header_arcsec_px: float | None = None
    n_stars: int | None = None
    n_quads: int | None = None
    n_matched: int | None = None
    n_expected: int | None = None
    rms_arcsec: float | None = None
    rms_px: float | None = None
    hfd_median_px: float | None = None
    hfd_source: str | None = None
    fwhm_median_px: float | None = None
    axis_ratio_median: float | None = None
    sky_adu: float | None = None
    reference_file: str | None = None
    seconds: float | None = None
    solved_at_utc: str | None = None


# ------------------------------------------------------------------------------------ calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Master:
    """One master frame on disk. `path` is relative to the root of its kind (data directory)."""

    kind: FrameKind
    date: dt.date
    filter: str | None
    group: FrameGroup
    path: str
    content_hash: str  # of the pixels
    n_used: int
    n_refused: int
    exposure_s: float | None = None
    ccd_temperature_c: float | None = None
    made_by_us: bool = True
    read_noise_adu: float | None = None
    read_noise_error_adu: float | None = None
    gain_e_adu: float | None = None
    gain_error_e_adu: float | None = None
    dark_current_adu_s: float | None = None  # median over the pixels of a bias-free dark
    dark_current_error_adu_s: float | None = None
    noise: float | None = None  # 1-sigma random error of one pixel: ADU, of a flat relative
    rejected_fraction: float | None = None
    bias_hash: str | None = None  # of the master subtracted from flats or darks, or CALSTAT
    pedestal_adu: float | None = None  # still to be added; 0: in the counts; None: not known
    valid_from: dt.date | None = None  # of a dated master from the observer's library
    valid_until: dt.date | None = None
    from_library: bool = False
    forced: bool = False  # before any master of the nights
    notes: tuple[str, ...] = ()


class DetectorQuantity(StrEnum):
    """What is measured of a detector every night; the word names the unit."""

    READ_NOISE = "read_noise_adu"
    GAIN = "gain_e_adu"
    DARK_CURRENT = "dark_current_adu_s"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorMeasurement:
    """One quantity of one detector on one night; `error` is 1 sigma, `n_frames` those behind it.

    `step` says in words how it differs from the nights before; None when it does not.
    """

    date: dt.date
    group: FrameGroup
    quantity: DetectorQuantity
    value: float
    error: float
    n_frames: int
    ccd_temperature_c: float | None = None
    step: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BadPixelMap:
    """A night's map of bad pixels on disk; `path` is relative to the products.

    `sources` says what it was found in (bias, dark, flat, light).
    """

    date: dt.date
    group: FrameGroup
    path: str
    content_hash: str
    n_bad: int
    sources: tuple[FrameKind, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerUp:
    """A master that was not chosen, and why: ``2 nights closer, but 1024x1024 2x2``."""

    kind: FrameKind
    path: str
    date: dt.date
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationChoice:
    """The masters an observation is calibrated with; None: no matching one (`nocal`)."""

    bias: Master | None
    dark: Master | None
    flat: Master | None
    reasons: tuple[str, ...]  # why each was chosen, or why one is missing
    bad_pixels: BadPixelMap | None = None
    runners_up: tuple[RunnerUp, ...] = ()
    already_done: tuple[str, ...] = ()  # steps of bias, dark, flat that the frames come with

    @property
    def version(self) -> str:
        """Content version: ``20251015:ab12cd34/20251014:…/nocal``."""
        chosen = [self.bias, self.dark, self.flat, self.bad_pixels]
        return "/".join(f"{m.date:%Y%m%d}:{m.content_hash[:12]}" if m else NOCAL for m in chosen)

    @property
    def missing(self) -> tuple[str, ...]:
        """Which of bias and flat the frames go without; a dark without bias holds the bias."""
        held = {"bias": self.bias or self.dark, "flat": self.flat}
        return tuple(
            name
            for name, master in held.items()
            if master is None and name not in self.already_done
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sourced:
    """A number and where it comes from, e.g. ``(2.07, "EGAIN")``."""

    value: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorFacts:
    """Gain, read noise and limits of the observation, each with its source; None: not known."""

    gain_e_adu: Sourced | None
    read_noise_e: Sourced | None
    saturation_adu: Sourced  # on raw counts
    linearity_adu: Sourced  # on raw counts
    stop_adu: float | None = None  # where the raw counts pile up, when they do


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducedFrame:
    """One calibrated light frame; `path` is relative to the products, `raw` to the data root.

    `path` None: not kept, it is calibrated again whenever its pixels are wanted.
    """

    raw: str
    path: str | None
    label: str  # file name, as the measurement table calls it
    raw_hash: str
    exposure_s: float
    start_utc: str
    ccd_temperature_c: float | None
    airmass_header: float | None
    site_hint: Site | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """The calibrated frames of an observation, in time order, and what they were made with."""

    frames: tuple[ReducedFrame, ...]
    group: FrameGroup
    detector: DetectorFacts
    choice: CalibrationChoice
    left_out: tuple[tuple[str, str], ...]  # raw path and reason of every frame not used
    notes: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------- photometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Aperture:
    """Radii in pixels of the star aperture and of the sky annulus."""

    radius_px: float
    sky_inner_px: float
    sky_outer_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StarMeasurements:
    """What is measured of each star; shape (n_stars,) for a frame, (n_frames, n_stars) for a night.

    AstroImageJ's definitions (DOMAIN section 4): `source_sky_adu` is the aperture sum less the sky,
    `peak_adu` the highest pixel in the aperture (sky not subtracted), `mean_adu` is
    source_sky / n_source_px, `sky_adu_px` the annulus mean after rejection. Pixels 0-based.
    `flags` is a bit field of `Flag`, `n_bad_px` the number of unusable aperture pixels.
    """

    x_px: FloatArray
    y_px: FloatArray
    ra_deg: FloatArray
    dec_deg: FloatArray
    source_sky_adu: FloatArray
    n_source_px: FloatArray
    source_error_adu: FloatArray
    snr: FloatArray
    peak_adu: FloatArray
    mean_adu: FloatArray
    sky_adu_px: FloatArray
    n_sky_px: FloatArray
    fwhm_px: FloatArray
    width_px: FloatArray
    x_width_px: FloatArray
    y_width_px: FloatArray
    angle_deg: FloatArray
    roundness: FloatArray
    flags: NDArray[np.int64]
    n_bad_px: FloatArray  # NaN where the aperture leaves the frame

    @classmethod
    def stack(cls, frames: "list[StarMeasurements]") -> "StarMeasurements":
        """Return one night's (n_frames, n_stars) arrays out of per-frame ones."""
        names = cls.__slots__
        return cls(**{name: np.stack([getattr(f, name) for f in frames]) for name in names})

    def stars(self, indices: "list[int]") -> "StarMeasurements":
        """Return the same for the stars at `indices` of the last axis, in that order."""
        names = type(self).__slots__
        return type(self)(**{name: getattr(self, name)[..., indices] for name in names})


class Flag:
    """Bits of `StarMeasurements.flags`."""

    SATURATED = 1  # a pixel of the aperture is `MaskBit.SATURATED`
    NON_LINEAR = 2  # ... `MaskBit.NON_LINEAR`
    NEAR_EDGE = 4  # aperture or annulus leaves the frame
    BAD_PIXEL = 8  # a masked pixel inside the aperture
    OFF_CENTRE = 16  # centroid further from the predicted place than allowed: predicted place used
    LOW_SNR = 32  # SNR below 3
    UNMEASURED = 64  # aperture off the frame or more than 10 % of it masked: values are NaN
    BLENDED = 128  # another star shines into the aperture
    ELONGATED = 256  # the frame's stars are no longer round: trailed or out of focus
    CLOUD = 512  # the frame's stars are more than 1 mag dimmer than on the night's best frames


class MaskBit:
    """Bits of the mask of reduced frames and masters; 0 is a good pixel.

    Plain numbers, as `Flag`: NumPy widens an array of bytes that meets an IntFlag.
    """

    BAD = 1  # hot, dead, or no data: nothing can be said of the pixel
    SATURATED = 2  # raw count at or above the saturation level
    NON_LINEAR = 4  # raw count above the linearity level
    EDGE = 8  # outside the calibrated area


@dataclass(frozen=True, slots=True, kw_only=True)
class ApertureStar:
    """One aperture of the table. Catalogue values are in the observation's comparison band."""

    role: str  # T1, T2, C3, C4…
    name: str
    auid: str | None
    ra_deg: float
    dec_deg: float
    catalogue_mag: float | None
    catalogue_error_mag: float | None
    colour: float | None = None  # catalogue colour index of the transformation, when known


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeFluxes:
    """AstroImageJ's relative fluxes of a night (DOMAIN section 4).

    `tot_c_adu` and `tot_c_err_adu` have shape (n_frames,), the others (n_frames, n_stars). NaN
    where a star or a comp of the sum has no value.
    """

    rel_flux: FloatArray
    rel_flux_err: FloatArray
    rel_flux_snr: FloatArray
    tot_c_adu: FloatArray
    tot_c_err_adu: FloatArray
    source_amag: FloatArray
    source_amag_err: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldStars:
    """Stars of the field that are neither T1 nor of the chart: they steady the zero point.

    Unsaturated, unblended, not known as variable, inside all frames. `ra_deg` and `dec_deg` have
    shape (n_stars,), the rest (n_frames, n_stars), measured with the apertures of the other stars.
    """

    ra_deg: FloatArray
    dec_deg: FloatArray
    x_px: FloatArray
    y_px: FloatArray
    source_sky_adu: FloatArray
    source_error_adu: FloatArray
    snr: FloatArray
    sky_adu_px: FloatArray
    n_sky_px: FloatArray
    flags: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApertureScan:
    """How steady the comparison stars are by radius, on which the aperture was chosen.

    `scatter_mag` of shape (n_radii,): what is to be smallest, in words `criterion`; NaN where
    a radius could not be judged. `chosen` is the place of the radius taken.
    """

    radii_px: FloatArray
    scatter_mag: FloatArray
    chosen: int
    criterion: str
    n_stars: int
    n_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotometryTable:
    """A night's measurements of T1, T2, C3… on every solved frame, in time order.

    `frame_fwhm_px` has shape (n_frames,), `measured` arrays (n_frames, n_stars). `radii_px`, shape
    (n_frames, 3), holds each frame's aperture and annulus radii where they follow its FWHM; None:
    `aperture` on every frame.
    """

    target: str
    filter: str
    band: str
    comp_band: str
    band_confirmed: bool
    chart_id: str
    variable: Variable
    labels: tuple[str, ...]
    raw_hashes: tuple[str, ...]
    times: FrameTimes
    exposure_s: FloatArray
    ccd_temperature_c: FloatArray  # NaN where the header has none
    frame_fwhm_px: FloatArray
    stars: tuple[ApertureStar, ...]
    measured: StarMeasurements
    aperture: Aperture
    frame_height_px: int
    gain_e_adu: float | None
    read_noise_e: float | None
    saturation_adu: float
    linearity_adu: float
    ledger: tuple[LedgerEntry, ...]
    notes: tuple[str, ...] = ()
    relative: RelativeFluxes | None = None  # filled by science.photometry.relative_fluxes
    pedestal_removed: bool = True  # False: the sky holds the bias, its error counts it as photons
    camera: str | None = None  # INSTRUME
    radii_px: FloatArray | None = None
    frame_axis_ratio: FloatArray | None = None  # shape (n_frames,), of the detections; 1: round
    field: FieldStars | None = None
    scan: ApertureScan | None = None
    flat_noise: float | None = None  # relative 1-sigma error of one pixel of the master flat
    dark_e_px: FloatArray | None = None  # shape (n_frames,), of each exposure; None: not known
    telescope_aperture_m: float | None = None
    site_elevation_m: float | None = None
    comp_source: str | None = None  # of the chart: "VSP", "APASS DR9 (VizieR)"; None: not recorded

    def star_index(self, role: str) -> int | None:
        """Return the position of `role` among the apertures, None when it is absent."""
        for index, star in enumerate(self.stars):
            if star.role == role:
                return index
        return None

    @property
    def ensemble(self) -> list[int]:
        """Positions of the ensemble comps (C3, C4…)."""
        return [i for i, star in enumerate(self.stars) if star.role.startswith("C")]


# ------------------------------------------------------------------------------ standard magnitudes


@dataclass(frozen=True, slots=True, kw_only=True)
class Transformation:
    """How instrumental magnitudes become standard ones; coefficient None: no colour term."""

    coefficient_name: str | None = None  # "Tv_bv"
    coefficient: float | None = None
    coefficient_error: float | None = None
    colour_index: str | None = None  # "B-V"
    target_colour: float | None = None
    target_colour_error: float | None = None
    source: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompResidual:
    """How far one ensemble comp lies from the others' zero point over the night.

    `residual_mag` is its night-mean magnitude by the ensemble less its catalogue magnitude, after
    the colour term if there is one; `catalogue_error_mag` None: the catalogue has none. The same
    sign for `leave_one_out_mag`: positive is measured too faint.
    """

    name: str  # AUID, or the table's name of a star without
    residual_mag: float
    catalogue_error_mag: float | None
    n_frames: int
    weight: float = 1.0  # robust, 0…1: what its catalogue magnitude counts for in the level
    leave_one_out_mag: float | None = None  # the same against the other comps alone
    leave_one_out_sigma: float | None = None  # that over its expected error
    scatter_mag: float | None = None  # frame to frame, against the others
    suspect: bool = False  # named as the culprit


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardMagnitudes:
    """Standard magnitudes of T1 and T2 over one night; arrays have shape (n_frames,).

    `random_mag` is the frame-to-frame 1-sigma error, `zp_err_mag` the night's one zero-point error;
    they are kept apart (DOMAIN section 6). `t1_merr_mag` is what a report would quote. Neither
    error is ever 0. NaN where a frame has no value. `t1_upper_limit` marks T1 below SNR 3.
    """

    target: str
    filter: str
    band: str
    comp_band: str
    chart_id: str
    labels: tuple[str, ...]
    raw_hashes: tuple[str, ...]
    jd_utc: FloatArray
    hjd_utc: FloatArray
    bjd_tdb: FloatArray
    airmass: FloatArray
    t1_mag: FloatArray
    t1_random_mag: FloatArray
    t1_merr_mag: FloatArray
    t1_instrumental_mag: FloatArray
    t1_upper_limit: BoolArray
    t2_mag: FloatArray
    t2_random_mag: FloatArray
    t2_instrumental_mag: FloatArray
    zero_point_mag: FloatArray
    zero_point_random_mag: FloatArray
    n_comps: NDArray[np.int64]
    proposed_rejected: tuple[str, ...]  # per frame: reasons joined by ",", "" when none
    zp_err_mag: float
    ensemble_reference_mag: float  # mean catalogue magnitude of the ensemble (CREFMAG)
    check_name: str | None
    check_catalogue_mag: float | None
    check_catalogue_error_mag: float | None
    check_offset_mag: float | None  # median T2 less catalogue
    check_scatter_mag: float | None
    transformation: Transformation
    transformed: bool  # TRANS=YES by evidence
    method: str  # single | ensemble | ensemble+colour | two-filter | colour-fit
    comp_names: tuple[str, ...]
    held_reason: str | None = None
    notes: tuple[str, ...] = ()
    merr: str = "random"  # what t1_merr_mag holds: random | total (zp_err_mag in quadrature)
    sibling_versions: Mapping[str, str] = field(
        default_factory=dict
    )  # tables by key, "coefficients"
    comp_residuals: tuple[CompResidual, ...] = ()
    ensemble: str = "chart"  # what carries the zero point from frame to frame: chart | field
    n_field_stars: int = 0
    camera: str | None = None
    check_reference_mag: float | None = None  # what T2 was judged against
    check_allowed_mag: float | None = None  # by how much it may differ from that
    comp_source: str | None = None  # of the chart: "VSP", "APASS DR9 (VizieR)"; None: not recorded
    made_with: Mapping[str, str] = field(default_factory=dict)  # masters, radii…; empty: unrecorded


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionReport:
    """Observed and expected scatter of the stars of a night; arrays of shape (n_stars,), mag.

    `roles` are T1, T2, C3…, and "" of field stars, which come last. `magnitude_mag` is each star's
    median on one scale: that of the comps' catalogue magnitudes in `band` when `zero_point_mag` is
    known, else instrumental. `rms_mag` is the robust scatter of a star less the weighted others
    over the clear frames, `successive_rms_mag` that of neighbouring frames' differences over √2:
    of a variable the nearer to its noise. `expected_mag` is the median expected error and `parts`
    what it is made of, by cause, squares adding up nearly (medians). `pull` is the robust scatter
    over the error frame by frame: 1 when errors are honest, also through clouds.
    `binned_rms_mag` is the scatter of `bin_min` minutes' means of `n_in_bin` frames in the median,
    `bin_expected_mag` rms/√n, `bin_ratio` the one over the other: above 1 where noise is red.
    `curves` are the parts and "total" against `curve_mag`, of a star on the median frame.
    NaN: cannot be had.
    """

    target: str
    filter: str
    band: str
    jd_first: float
    n_frames: int  # clear ones
    n_clouded: int
    roles: tuple[str, ...]
    names: tuple[str, ...]
    magnitude_mag: FloatArray
    zero_point_mag: float | None
    rms_mag: FloatArray
    successive_rms_mag: FloatArray
    expected_mag: FloatArray
    parts: Mapping[str, FloatArray]
    pull: FloatArray
    n_measured: FloatArray  # clear frames with a value
    bin_min: float
    n_in_bin: float | None  # None: the cadence or the length of the night allows no bins
    binned_rms_mag: FloatArray
    bin_expected_mag: FloatArray
    bin_ratio: FloatArray
    curve_mag: FloatArray
    curves: Mapping[str, FloatArray]
    unknown: tuple[str, ...] = ()  # what the expected errors leave out, in words

    def star_index(self, role: str) -> int | None:
        """Return the place of `role`, None when it is absent."""
        return self.roles.index(role) if role in self.roles else None


# ---------------------------------------------------------------------------- what nights add up to


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckNight:
    """What one night's check star says, for the control chart over nights.

    `magnitude_mag` is the median of T2, standardised; `error_mag` its 1-sigma error with the
    night's zero point. Standard bands are judged against the catalogue, others against T2's
    earlier nights.
    """

    key: str  # of the observation
    date: dt.date
    star: str  # the variable's identity
    band: str
    camera: str | None
    check_name: str
    magnitude_mag: float
    error_mag: float
    catalogue_mag: float | None
    catalogue_error_mag: float | None
    zp_err_mag: float
    scatter_mag: float | None
    n_frames: int
    held: bool
    reference_mag: float | None = None  # what the night was judged against
    allowed_mag: float | None = None  # by how much it may differ from that


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One transformation coefficient by TG's name (``Tv_bv``), from one night or pooled over many.

    `error` None: not known (an imported file that leaves it out).
    """

    name: str
    value: float
    error: float | None
    n_stars: int | None = None
    r_squared: float | None = None
    date: dt.date | None = None  # the night; None: pooled or imported without one
    camera: str | None = None
    epoch: dt.date | None = None  # first night of the instrument epoch it belongs to
    source: str = "fit"  # fit <target> | pooled | a file's name
    n_nights: int = 1
    outside_atmosphere: bool = False  # second-order extinction was taken out; else it is in it


# ------------------------------------------------------------------------- frames and clocks judged


class Grade(StrEnum):
    """How fit a frame is, against the other frames of its night."""

    GOOD = "good"
    POOR = "poor"
    BAD = "bad"


class FaultKind(StrEnum):
    """What is wrong with a frame: the closed list."""

    LEFT_OUT = "left_out"  # never reduced; the words say why
    CLOUD = "cloud"  # the stars are dimmer or fewer than on the night's best frames
    FOCUS = "focus"  # wider stars: focus, seeing, dew
    TRAIL = "trail"  # stars that are not round
    SKY = "sky"  # brighter or noisier background: twilight, the Moon, a lamp
    JUMP = "jump"  # the telescope pointed elsewhere than before and after
    STARS = "stars"  # fewer or odder stars than usual, by none of the other causes
    UNSOLVED = "unsolved"
    LOW = "low"  # close to the horizon


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFault:
    """One thing wrong with a frame; `words` say it with numbers."""

    kind: FaultKind
    grade: Grade  # poor or bad
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameGrade:
    """One frame of an observation, left out or not; None: not known.

    `dimming_mag` is by how much the stars are dimmer than on the night's best frames, by
    `n_matched` of them; offsets are the field centre's against the reference frame, in its pixels.
    `score` in 0…1 says how good the frame is for a reference; only frames that are used have one.
    """

    raw: str  # relative to the data root
    start_utc: str | None
    exposure_s: float | None
    grade: Grade
    faults: tuple[FrameFault, ...]
    used: bool
    n_stars: int | None = None
    fwhm_px: float | None = None
    axis_ratio: float | None = None
    sky_adu: float | None = None
    sky_rms_adu: float | None = None
    dimming_mag: float | None = None
    n_matched: int | None = None
    offset_x_px: float | None = None
    offset_y_px: float | None = None
    altitude_deg: float | None = None
    airmass: float | None = None
    solved: bool = False
    score: float | None = None

    @property
    def words(self) -> str:
        """All faults in words, the worst first; empty on a good frame."""
        return "; ".join(fault.words for fault in self.faults)


class Severity(StrEnum):
    """How loudly a finding is to be said."""

    WARNING = "warning"  # magnitudes or times may be wrong
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the audit of times and place found; `about` is one of a few short words for programs."""

    severity: Severity
    about: str  # sun | horizon | site | longitude | sign | zone | cards | order | files | date
    words: str


MAX_BAD_PART = 0.2
MAX_UNFIT_PART = 0.5  # bad and poor frames


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTriage:
    """The frames of an observation, graded, in time order, and the audit of times and place."""

    key: str  # of the observation
    grades: tuple[FrameGrade, ...]
    findings: tuple[Finding, ...]
    best_frame: str | None  # raw path
    usual: Mapping[str, float]  # the night's own values that frames were judged against
    notes: tuple[str, ...] = ()

    def of_grade(self, grade: Grade) -> tuple[FrameGrade, ...]:
        """Return the frames that were used and have this grade."""
        return tuple(one for one in self.grades if one.used and one.grade is grade)

    @property
    def unfit_words(self) -> str | None:
        """Which faults too many frames have, or why nothing was judged; None when the night is fit.

        Too many: more than a fifth of the used frames bad, or half of them bad or poor.
        """
        n_used = sum(one.used for one in self.grades)
        if not n_used:
            return "; ".join(self.notes) or "no frame was judged"
        bad, poor = self.of_grade(Grade.BAD), self.of_grade(Grade.POOR)
        if len(bad) <= MAX_BAD_PART * n_used and len(bad + poor) <= MAX_UNFIT_PART * n_used:
            return None
        kinds = [kind for one in bad + poor for kind in {fault.kind for fault in one.faults}]
        named = ", ".join(f"{kind} {kinds.count(kind)}" for kind in FaultKind if kind in kinds)
        return f"{len(bad)} of {n_used} frames bad, {len(poor)} poor ({named})"

    @property
    def doubts(self) -> str | None:
        """The audit's warnings on times and place in words, None when there are none."""
        loud = [one.words for one in self.findings if one.severity is Severity.WARNING]
        return "; ".join(loud) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeClaim:
    """A header card that says when a frame was taken, beside the one that wombat goes by.

    `jd` is the plain Julian date of what stands there, whatever its scale; `resolution_s` what its
    decimals can tell apart.
    """

    card: str
    jd: float
    moment: str  # ut (start, middle or end) | end | local | heliocentric | barycentric
    resolution_s: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderClaims:
    """What one frame's header says of its time and place, card by card; None: no such card."""

    raw: str
    start_card: str | None  # what `RawFrame.start_utc` was taken from
    times: tuple[TimeClaim, ...] = ()
    sidereal_h: float | None = None
    sidereal_card: str = ""
    hour_angle_h: float | None = None  # -12…12
    hour_angle_card: str = ""
    altitude_deg: float | None = None
    altitude_card: str = ""
    airmass: float | None = None
    ra_deg: float | None = None  # where the telescope pointed
    dec_deg: float | None = None


# --------------------------------------------------------------------- what the person decides


class Submitted(StrEnum):
    """Words of `target.submitted`; NULL: the person has not decided."""

    APPROVED = "approved"
    REJECTED = "usrrej"
    EXPORTED = "exported"  # written into a report
    SUBMITTED = "submitted"  # the person says that it was uploaded


class DecisionKind(StrEnum):
    """What a person may decide of an observation, or of some of its points."""

    APPROVE = "approve"
    REJECT = "reject"
    REJECT_POINTS = "reject-points"
    RESTORE_POINTS = "restore-points"  # proposed rejections and one's own alike
    CONFIRM_STAR = "confirm-star"  # the star found by position alone is the one
    EXPORT = "export"  # written into a report, by the person's wish
    SUBMIT = "submit"
    RECALL = "recall"  # by wombat: magnitudes moved after the approval, it waits again


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision, kept for good; `undone_utc` None: it holds.

    `raw_hashes` are the points it is about, empty: the observation. `version` is that of the
    magnitudes it was taken on.
    """

    id: int
    key: str  # of the observation
    kind: DecisionKind
    raw_hashes: tuple[str, ...]
    who: str
    why: str | None
    decided_utc: str
    version: str | None
    undone_utc: str | None = None


class PointState(StrEnum):
    """What becomes of one point of a light curve."""

    GOOD = "good"
    PROPOSED = "proposed"  # to be rejected, says wombat; not reported unless restored
    REJECTED = "rejected"  # says the person
    RESTORED = "restored"  # was proposed, the person keeps it


# ------------------------------------------------------------------------- reports to the AAVSO


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportLine:
    """One line of AAVSO's Extended File Format, field by field, as text in the file's order."""

    star_id: str
    date: str
    magnitude: str
    error: str
    band: str
    transformed: str  # YES | NO
    magnitude_type: str  # STD | DIF
    comp_name: str
    comp_mag: str
    check_name: str
    check_mag: str
    airmass: str
    group: str
    chart: str
    notes: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPoint:
    """A line that may be reported, and the frame that it is from."""

    key: str  # of the observation
    raw_hash: str
    label: str
    line: ReportLine


@dataclass(frozen=True, slots=True, kw_only=True)
class LintFinding:
    """What a rule of the report format says of a file; `line_number` from 1, None: of the whole."""

    rule: str  # name of the check, kebab-case
    is_error: bool  # False: a warning, the file may be uploaded
    line_number: int | None
    words: str
