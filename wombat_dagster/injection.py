"""Puts stars of known magnitude into copies of a night's raw frames, and measures them again.

Everything happens in a world of its own below one directory: copies of the raw frames of a finished
observation (of all filters of its night, when a colour needs them), of the calibration frames that
its masters were made of, and of the AAVSO's answers. The real data are only read. Whoever calls
runs the pipeline there, between `inject` and `recover`.

The stars' magnitudes are counts by the night's own zero points and colour term, so what is tested
is everything between the sky and the magnitude but the catalogue: calibration, plate solution,
centring, sky, aperture, and whether the stated errors are those of the light. The comps are the
ones of the night.
"""

import logging
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wombat_dagster.config import Settings
from wombat_dagster.domain import (
    Apphot,
    BadPsf,
    BoolArray,
    CompCandidates,
    FloatArray,
    FrameKind,
    Master,
    Observation,
    PhotometryTable,
    Reduction,
    StandardMagnitudes,
    Variable,
    WcsSolution,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import PRODUCTS, read_product
from wombat_dagster.science import flats, noise
from wombat_dagster.science.astrometry import inside_frame, project, sky
from wombat_dagster.science.profile import FrameProfile, fit_frame_profile
from wombat_dagster.simulate.inject import (
    Camera,
    Profile,
    added_counts,
    net_share,
    rewrite_image,
    star_stamp,
)
from wombat_dagster.stages.photometry import measure_observation, typical_frame
from wombat_dagster.stages.pixels import CalibratedFrames
from wombat_dagster.stages.sequence import Solved, solved_frames
from wombat_dagster.stages.standard import standard_magnitudes_of
from wombat_dagster.store.coefficients import record_coefficients, stored_coefficients
from wombat_dagster.store.frames import read_master, write_bytes_atomic
from wombat_dagster.store.headers import section_bounds
from wombat_dagster.store.layout import OF_PRODUCTS
from wombat_dagster.store.tables import UnreadableProduct

log = logging.getLogger(__name__)

FINISHED = (Apphot.VALIDATE, Apphot.HELD)
MIN_GAP_FWHM = 3.0  # from an injected star to the next detected one
OWN_GAP_FWHM = 2.0  # of an injected star's light beyond the sky annulus of T1, T2 and the comps
TRIES = 4000  # places looked at
SPARE = 4  # as many places as stars wanted are measured for light that no detection tells of
DARK_SIGMA = 2.0  # of the scatter of empty places
DEEP_FRAMES = 10  # on which they are measured
COLOUR_SPREAD_MAG = 0.3  # injected stars differ from T1's colour by so much, either way
FAINTER_MAG = 1.0  # than the faintest comp, when no range is asked for
NO_SERVICE = "http://127.0.0.1:9/"  # the answers are the ones in the cache
MAX_ANSWER_AGE_DAYS = 36500.0
BIN_MAG = 0.5
MAD_TO_SIGMA = 1.4826


class NotFinished(Exception):
    """There are no magnitudes to inject by, or no place to inject at; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedFilter:
    """One observation with all that its magnitudes were made of."""

    observation: Observation
    reduction: Reduction
    solved: Solved
    candidates: CompCandidates
    table: PhotometryTable
    magnitudes: StandardMagnitudes

    @property
    def solutions(self) -> dict[str, WcsSolution]:
        """The plate solutions by the frames' labels, of the frames that were measured."""
        wanted = set(self.table.labels)
        return {frame.label: wcs for frame, _, wcs in self.solved if frame.label in wanted}


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedStar:
    """A star put into the frames; `mags` are its standard magnitudes by filter."""

    name: str
    ra_deg: float
    dec_deg: float
    mags: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """One star as the pipeline measured it through one filter; arrays of shape (n_frames,).

    `error_mag` is the stated random error without that of the zero point, which is the same when
    it is injected and when it is measured. NaN where nothing was measured; `limited` marks stars
    below SNR 3, whose value is a limit.
    """

    star: InjectedStar
    filter: str
    labels: tuple[str, ...]
    departure_mag: FloatArray  # recovered less injected
    error_mag: FloatArray
    limited: BoolArray

    @property
    def mag(self) -> float:
        """Injected magnitude."""
        return self.star.mags[self.filter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """What was recovered of the stars between two magnitudes; NaN where it cannot be said.

    `offset_mag` is the mean of recovered less injected, weighted by the stated errors,
    `offset_error_mag` its own by them; `pull` the robust deviation of single points over their
    stated errors.
    """

    filter: str
    bright_mag: float
    faint_mag: float
    n_stars: int
    n_points: int
    n_lost: int
    offset_mag: float
    offset_error_mag: float
    scatter_mag: float
    stated_mag: float
    pull: float


# ------------------------------------------------------------------------------- what was measured


def finished_filters(
    observatory: Observatory, observations: Sequence[Observation]
) -> tuple[FinishedFilter, ...]:
    """Return the observations with their products. Raises NotFinished when one lacks any."""
    found = []
    for observation in observations:
        key = observation.key
        row = observatory.status.target_row(key)
        if row.apphot not in FINISHED:  # its files may be of a run before
            state = row.apphot or row.proc or "not begun"
            raise NotFinished(
                f"{observation.target} in {observation.filter} is {state}: no magnitudes to "
                f"inject by{f' ({row.reason})' if row.reason else ''}"
            )
        try:
            reduction = read_product(observatory, "reduced_frames", key)
            solutions = read_product(observatory, "wcs_solutions", key)
            found.append(
                FinishedFilter(
                    observation=observation,
                    reduction=reduction,
                    solved=solved_frames(reduction, solutions),
                    candidates=read_product(observatory, "comp_list", key),
                    table=read_product(observatory, "photometry_table", key),
                    magnitudes=read_product(observatory, "standard_magnitudes", key),
                )
            )
        except (FileNotFoundError, UnreadableProduct) as damage:
            what = f"damaged: {damage}"
            if isinstance(damage, FileNotFoundError):
                what = f"{damage.filename} is gone"
            again = f"wombat run {observation.date:%Y%m%d} {shlex.quote(observation.target)}"
            raise NotFinished(f"{what}; {again} makes it anew") from damage
        if found[-1].reduction.detector.gain_e_adu is None:
            raise NotFinished(f"the gain of {observation.filter} is not known: no photon noise")
        if not np.isfinite(_target_mags(found[-1].magnitudes)).any():
            raise NotFinished(f"T1 has no magnitude in {observation.filter}")
    return tuple(found)


def _target_mags(magnitudes: StandardMagnitudes) -> FloatArray:
    return np.where(magnitudes.t1_upper_limit, np.nan, magnitudes.t1_mag)


# ------------------------------------------------------------------------------------ which stars


def choose_stars(
    observatory: Observatory,
    filters: Sequence[FinishedFilter],
    *,
    n_stars: int,
    mag_range: tuple[float, float] | None,
    seed: int,
) -> tuple[InjectedStar, ...]:
    """Return stars at empty places, their magnitudes evenly over `mag_range` of the first filter.

    None: from the brightest comp to a magnitude below the faintest. In the other filters they have
    about T1's colour.

    Raises
    ------
    NotFinished
        Fewer empty places than stars.
    """
    rng = np.random.default_rng([seed, 1])
    ra_deg, dec_deg = _empty_places(observatory, filters, n_stars, rng)
    first = filters[0]
    bright, faint = mag_range or _default_range(first.table)
    mags = rng.permutation(np.linspace(bright, faint, n_stars))
    t1 = [float(np.nanmedian(_target_mags(one.magnitudes))) for one in filters]
    off = rng.uniform(-COLOUR_SPREAD_MAG, COLOUR_SPREAD_MAG, (n_stars, len(filters)))
    off[:, 0] = 0.0
    return tuple(
        InjectedStar(
            name=f"injected {i + 1}",
            ra_deg=float(ra_deg[i]),
            dec_deg=float(dec_deg[i]),
            mags={
                one.observation.filter: float(mags[i] + t1[j] - t1[0] + off[i, j])
                for j, one in enumerate(filters)
            },
        )
        for i in range(n_stars)
    )


def _default_range(table: PhotometryTable) -> tuple[float, float]:
    known = [mag for i in table.ensemble if (mag := table.stars[i].catalogue_mag) is not None]
    return min(known), max(known) + FAINTER_MAG


def _empty_places(
    observatory: Observatory,
    filters: Sequence[FinishedFilter],
    n_stars: int,
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Return (ra_deg, dec_deg) of places on all frames, the emptiest first."""
    first = filters[0]
    group, table = first.reduction.group, first.table
    pixels = CalibratedFrames(observatory, first.observation, first.reduction)
    frame, _, wcs = next(
        s for s in first.solved if s[0].label == table.labels[typical_frame(table.frame_fwhm_px)]
    )
    stars = pixels.stars(frame)
    x, y = rng.uniform(0, group.width_px, TRIES), rng.uniform(0, group.height_px, TRIES)
    ra_deg, dec_deg = sky(wcs, x, y)
    good = np.ones(TRIES, dtype=bool)
    for one in filters:
        margin_px = one.table.aperture.sky_outer_px
        for solution in one.solutions.values():
            at = project(solution, ra_deg, dec_deg)
            good &= inside_frame(*at, group.width_px, group.height_px, margin_px=margin_px)
    fwhm_px = float(np.median(table.frame_fwhm_px))
    own_gap_px = table.aperture.sky_outer_px + OWN_GAP_FWHM * fwhm_px
    known = [(s.ra_deg, s.dec_deg) for s in table.stars]
    known += [(s.ra_deg, s.dec_deg) for s in first.candidates.ranked]
    known_x, known_y = project(wcs, *np.array(known).T)
    good &= _nearest_px(x, y, known_x, known_y) > own_gap_px
    gap_px = _nearest_px(x, y, stars.x_px, stars.y_px)
    good &= gap_px > MIN_GAP_FWHM * fwhm_px
    apart: list[int] = []
    for index in np.argsort(-gap_px):
        taken = np.hypot(x[apart] - x[index], y[apart] - y[index])
        if good[index] and (taken > own_gap_px).all():
            apart.append(int(index))
        if len(apart) == SPARE * n_stars:
            break
    dark = _dark(observatory, filters, ra_deg[apart], dec_deg[apart])
    chosen = np.array(apart, dtype=int)[dark][:n_stars]
    if len(chosen) < n_stars:
        raise NotFinished(f"{len(chosen)} empty places on the frames, {n_stars} wanted")
    return ra_deg[chosen], dec_deg[chosen]


def _dark(
    observatory: Observatory,
    filters: Sequence[FinishedFilter],
    ra_deg: FloatArray,
    dec_deg: FloatArray,
) -> BoolArray:
    """Tell at which places an aperture holds no light, by the mean of some frames of each filter.

    A star too faint to be detected on one frame would add to every star put on it.
    """
    dark = np.ones(len(ra_deg), dtype=bool)
    for one in filters if len(dark) else ():
        pixels = CalibratedFrames(observatory, one.observation, one.reduction)
        measured = one.solutions
        frames = [frame for frame, _, _ in one.solved if frame.label in measured]
        some = frames[:: max(1, len(frames) // DEEP_FRAMES)]
        light = np.array(
            [
                _aperture_light(image, *project(measured[frame.label], ra_deg, dec_deg), one.table)
                for frame, (image, _) in zip(some, pixels.stream(some), strict=True)
            ]
        )
        mean = np.median(light, axis=0)
        centre = float(np.median(mean))
        sigma = MAD_TO_SIGMA * float(np.median(np.abs(mean - centre)))
        dark &= np.abs(mean - centre) <= DARK_SIGMA * sigma
    return dark


def _aperture_light(
    image: FloatArray, x: FloatArray, y: FloatArray, table: PhotometryTable
) -> FloatArray:
    """Return what apertures of whole pixels hold above the median of their annuli."""
    aperture = table.aperture
    half = int(np.ceil(aperture.sky_outer_px))
    dy, dx = np.mgrid[-half : half + 1, -half : half + 1]
    distance = np.hypot(dx, dy)
    inside = distance <= aperture.radius_px
    around = (distance >= aperture.sky_inner_px) & (distance <= aperture.sky_outer_px)
    light = []
    for a, b in zip(np.rint(x).astype(int), np.rint(y).astype(int), strict=True):
        rows, columns = (
            np.clip(b + dy, 0, image.shape[0] - 1),
            np.clip(a + dx, 0, image.shape[1] - 1),
        )
        cut = image[rows, columns]
        light.append(cut[inside].sum() - inside.sum() * np.median(cut[around]))
    return np.array(light, dtype=float)


def _nearest_px(x: FloatArray, y: FloatArray, to_x: FloatArray, to_y: FloatArray) -> FloatArray:
    """Return the distance from each place to the nearest of others, infinite where none is."""
    on_frame = np.isfinite(to_x) & np.isfinite(to_y)
    if not on_frame.any():
        return np.full(len(x), np.inf)
    from scipy.spatial import cKDTree

    tree = cKDTree(np.column_stack([to_x[on_frame], to_y[on_frame]]))
    return np.asarray(tree.query(np.column_stack([x, y]))[0], dtype=float)


# ------------------------------------------------------------------------------- a world of its own


def scratch_settings(settings: Settings, root: Path) -> Settings:
    """Return `settings` for a world below `root`: other roots, no service, all else alike."""

    def absolute(path: str | None) -> str | None:
        return str(settings.path(path)) if path is not None else None

    return settings.model_copy(
        update={
            "base": root,
            "data": Path("data"),
            "products": Path("products"),
            "database": Path("wombatpipeline.db"),
            "cache": Path("cache"),
            "master": [
                one.model_copy(update={"file": absolute(one.file)}) for one in settings.master
            ],
            "calibration": settings.calibration.model_copy(
                update={
                    "library": absolute(settings.calibration.library),
                    "use_calibration_only_nights": True,  # lenders come without their lights
                }
            ),
            "staging": type(settings.staging)(),
            "solve": settings.solve.model_copy(
                update={"star_table": absolute(settings.solve.star_table)}
            ),
            "astap": settings.astap.model_copy(
                update={"database": absolute(settings.astap.database)}
            ),
            "aavso": settings.aavso.model_copy(
                update={
                    "vsx_urls": [NO_SERVICE],
                    "vsp_urls": [NO_SERVICE],
                    "retries": 0,
                    "min_interval_s": 0.0,
                    "chart_max_age_days": MAX_ANSWER_AGE_DAYS,
                }
            ),
        }
    )


def copy_world(
    observatory: Observatory, filters: Sequence[FinishedFilter], scratch: Observatory
) -> None:
    """Copy what `filters` need: calibration frames, the AAVSO's answers, stored coefficients."""
    data, layout = scratch.layout.data, observatory.layout
    for path in _calibration_files(observatory, filters):
        copy = data / path
        if path.startswith(f"{OF_PRODUCTS}/"):  # a master of a night that cannot be written
            copy = data / path.split("/")[1] / Path(path).name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(layout.raw_path(path), copy)
    if layout.cache.is_dir():
        shutil.copytree(layout.cache, scratch.layout.cache, dirs_exist_ok=True)
    record_coefficients(scratch.status, stored_coefficients(observatory.status))


def _calibration_files(observatory: Observatory, filters: Sequence[FinishedFilter]) -> set[str]:
    """Return the raw frames of the masters in use, and masters that a person supplied."""
    chosen = [one.reduction.choice for one in filters]
    masters = {m.path: m for c in chosen for m in (c.bias, c.dark, c.flat) if m is not None}
    lenders = {m.bias_hash for m in masters.values()}
    masters |= {m.path: m for m in observatory.status.masters() if m.content_hash in lenders}
    dates = {m.date for m in masters.values() if m.made_by_us}
    dates |= {one.observation.date for one in filters}
    names = {one.observation.filter for one in filters}
    frames = {
        frame.path
        for date in dates
        for frame in observatory.status.night_frames(date)
        if frame.reason is None
        and frame.kind is not FrameKind.LIGHT
        and (frame.kind is not FrameKind.FLAT or frame.filter in names)
    }
    theirs = {m.path for m in masters.values() if not m.made_by_us and not m.from_library}
    return frames | theirs


def inject(
    observatory: Observatory,
    filters: Sequence[FinishedFilter],
    stars: Sequence[InjectedStar],
    *,
    data: Path,
    seed: int,
) -> None:
    """Write the raw lights of `filters` into `data`, with `stars` in those that were measured.

    Raises
    ------
    NotFinished
        A raw frame's pixels cannot be replaced.
    """
    for one in filters:
        _inject(observatory, one, filters, stars, data=data, seed=seed)


def _inject(
    observatory: Observatory,
    one: FinishedFilter,
    filters: Sequence[FinishedFilter],
    stars: Sequence[InjectedStar],
    *,
    data: Path,
    seed: int,
) -> None:
    """Do `inject` for the filter `one`.

    Raises
    ------
    NotFinished
        A raw frame's pixels cannot be replaced.
    """
    pixels = CalibratedFrames(observatory, one.observation, one.reduction)
    raw = {f.path: f for f in observatory.status.light_frames(one.observation)}
    profiles = _profiles(pixels, one)
    light = _light_adu(one, filters, stars, seed)
    facts = one.reduction.detector
    assert facts.gain_e_adu is not None
    flat = _flat(observatory, one.reduction)
    camera = Camera(gain_e_adu=facts.gain_e_adu.value, highest_adu=facts.stop_adu, flat=flat)
    place = {label: index for index, label in enumerate(one.table.labels)}
    solutions = one.solutions
    for number, frame in enumerate(one.reduction.frames):
        source, copy = observatory.layout.raw_path(frame.raw), data / frame.raw
        index = place.get(frame.label)
        if index is None or not np.isfinite(light[index]).all():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
            continue
        x, y = project(
            solutions[frame.label], [s.ra_deg for s in stars], [s.dec_deg for s in stars]
        )
        profile = profiles[index]
        stamps = [star_stamp(float(a), float(b), profile) for a, b in zip(x, y, strict=True)]
        shares = np.array([net_share(stamp, one.table.aperture) for stamp in stamps])
        group = one.reduction.group
        added = added_counts(
            (group.height_px, group.width_px),
            stamps,
            list(light[index] / shares),
            camera=camera,
            rng=np.random.default_rng([seed, number, *one.observation.filter.encode()]),
        )
        left, bottom = _trimmed(raw[frame.raw].trim)

        def brighter(
            counts: FloatArray, added: FloatArray = added, x_0: int = left, y_0: int = bottom
        ) -> FloatArray:
            counts[y_0 : y_0 + added.shape[0], x_0 : x_0 + added.shape[1]] += added
            return counts

        try:
            rewrite_image(source, copy, brighter, highest_adu=facts.stop_adu)
        except ValueError as error:
            raise NotFinished(f"stars cannot be put into {error}") from error


def _trimmed(section: str | None) -> tuple[int, int]:
    """Return how many columns and rows the raw frame has before the ones kept."""
    bounds = section_bounds(section)
    return (0, 0) if bounds is None else (bounds[0] - 1, bounds[2] - 1)


def _light_adu(
    one: FinishedFilter,
    filters: Sequence[FinishedFilter],
    stars: Sequence[InjectedStar],
    seed: int,
) -> FloatArray:
    """Return the counts of the stars in the aperture, shape (n_frames, n_stars), by zero point.

    The colour term is T1's, and what another colour changes of it. Where the telescope's aperture
    is known, scintillation makes the light of every star on every frame waver.
    """
    found, table = one.magnitudes, one.table
    filter = one.observation.filter
    mags = np.array([star.mags[filter] for star in stars])
    zero_point = found.zero_point_mag[:, None] + _colour_term(one, filters, stars)[None, :]
    light = table.exposure_s[:, None] * 10 ** (-0.4 * (mags[None, :] - zero_point))
    if table.telescope_aperture_m is None or table.site_elevation_m is None:
        return np.asarray(light)
    sigma = noise.scintillation(
        table.times.airmass,
        table.exposure_s,
        telescope_aperture_m=table.telescope_aperture_m,
        site_elevation_m=table.site_elevation_m,
    )
    rng = np.random.default_rng([seed, 2, *filter.encode()])
    return np.asarray(light * (1 + sigma[:, None] * rng.standard_normal(light.shape)))


def _colour_term(
    one: FinishedFilter, filters: Sequence[FinishedFilter], stars: Sequence[InjectedStar]
) -> FloatArray:
    """Return what is added to the zero point for each star's colour, shape (n_stars,).

    Where the colour's two filters are not both injected the stars have T1's colour.
    """
    found = one.magnitudes
    of_t1 = _target_mags(found) - found.t1_instrumental_mag - found.zero_point_mag
    term = np.full(len(stars), float(np.nanmedian(of_t1)))
    by = found.transformation
    filter_of = {other.magnitudes.band: other.observation.filter for other in filters}
    if not found.transformed or by.coefficient is None or by.colour_index is None:
        return term
    blue, _, red = by.colour_index.partition("-")
    if by.target_colour is None or blue not in filter_of or red not in filter_of:
        return term
    colours = np.array([s.mags[filter_of[blue]] - s.mags[filter_of[red]] for s in stars])
    return np.asarray(term + by.coefficient * (colours - by.target_colour))


def _profiles(pixels: CalibratedFrames, one: FinishedFilter) -> list[Profile]:
    """Return the profile of every measured frame; the night's medians where none can be fitted."""
    by_label = {frame.label: frame for frame, _, _ in one.solved}
    frames = [by_label[label] for label in one.table.labels]
    facts = one.reduction.detector
    fitted: list[FrameProfile | None] = []
    for frame, (image, mask) in zip(frames, pixels.stream(frames), strict=True):
        try:
            fitted.append(
                fit_frame_profile(
                    image,
                    mask,
                    pixels.stars(frame),
                    gain_e_adu=facts.gain_e_adu.value if facts.gain_e_adu else None,
                    linearity_adu=facts.linearity_adu.value,
                    stop_adu=facts.stop_adu,
                )
            )
        except BadPsf:
            fitted.append(None)
    good = [profile for profile in fitted if profile is not None]
    if not good:
        raise NotFinished(f"no frame in {one.observation.filter} has a star profile")
    beta = float(np.median([profile.beta for profile in good]))
    ratio = float(np.median([profile.axis_ratio for profile in good]))
    angles = _angles_deg(one.table)
    return [
        Profile(
            fwhm_px=profile.fwhm_px if profile else float(one.table.frame_fwhm_px[index]),
            beta=profile.beta if profile else beta,
            axis_ratio=profile.axis_ratio if profile else ratio,
            angle_deg=float(angles[index]),
        )
        for index, profile in enumerate(fitted)
    ]


def _angles_deg(table: PhotometryTable) -> FloatArray:
    """Return the direction of the stars' major axis on each frame, shape (n_frames,).

    The mean over the stars of the doubled angle: 1 degree and 179 are 2 apart.
    """
    doubled = np.exp(2j * np.radians(table.measured.angle_deg))
    mean = np.where(np.isfinite(doubled), doubled, 0).sum(axis=1)
    return np.asarray(np.degrees(np.angle(mean)) / 2)


def _flat(observatory: Observatory, reduction: Reduction) -> FloatArray | None:
    """Return the master flat as it is divided out, 1 where it is not used; None without one."""
    master: Master | None = reduction.choice.flat
    if master is None or "flat" in reduction.choice.already_done:
        return None
    image, mask, _ = read_master(observatory.layout.raw_path(master.path))
    if master.made_by_us:
        unusable = ~(image > 0) if mask is None else mask > 0
    else:
        image, unusable = flats.normalised_master_flat(image)
    return np.where(unusable | ~np.isfinite(image), 1.0, image).astype(float)


# ---------------------------------------------------------------------------------------- recovery


def recover(
    scratch: Observatory, filters: Sequence[FinishedFilter], stars: Sequence[InjectedStar]
) -> tuple[Recovered, ...]:
    """Return what the pipeline measures of every star in the scratch world, which has been run.

    Each star takes the variable's place in turn, with the comps of the real night's `filters`,
    through the stages from the measurement on.

    Raises
    ------
    NotFinished
        The scratch world did not come as far as the real one.
    """
    anew = finished_filters(scratch, [one.observation for one in filters])
    for real, copy in zip(filters, anew, strict=True):
        if copy.reduction.choice.version != real.reduction.choice.version:
            log.warning("%s: the copies have other masters", real.observation.key)
    recovered = []
    for star in stars:
        for real, copy in zip(filters, anew, strict=True):
            table = _measured_as_variable(scratch, copy, real.candidates, star)
            _keep_table(scratch, copy.observation, table)
        recovered += [_recovered(scratch, copy, star) for copy in anew]
        log.info("%s: measured through %d filters", star.name, len(anew))
    for copy in anew:  # the world is left as its own run made it
        _keep_table(scratch, copy.observation, copy.table)
    return tuple(recovered)


def _measured_as_variable(
    scratch: Observatory, one: FinishedFilter, comps: CompCandidates, star: InjectedStar
) -> PhotometryTable:
    mag = star.mags[one.observation.filter]
    variable = Variable(
        name=star.name,
        ra_deg=star.ra_deg,
        dec_deg=star.dec_deg,
        mag_bright=mag,
        mag_faint=mag,
        match="configuration",
        source="injection",
    )
    return measure_observation(
        scratch,
        one.observation,
        one.reduction,
        [solution for _, solution, _ in one.solved],
        replace(comps, variable=variable),
    )


def _keep_table(scratch: Observatory, observation: Observation, table: PhotometryTable) -> None:
    """Put a measurement table where the sibling filters look for it."""
    product = PRODUCTS["photometry_table"]
    data = product.encode(table)
    write_bytes_atomic(product.path(scratch.layout, observation.key), data)


def _recovered(scratch: Observatory, one: FinishedFilter, star: InjectedStar) -> Recovered:
    table = read_product(scratch, "photometry_table", one.observation.key)
    found = standard_magnitudes_of(scratch, one.observation, one.reduction, table)
    own = found.t1_random_mag**2 - found.zero_point_random_mag**2
    return Recovered(
        star=star,
        filter=one.observation.filter,
        labels=found.labels,
        departure_mag=found.t1_mag - star.mags[one.observation.filter],
        error_mag=np.sqrt(np.where(own > 0, own, np.nan)),
        limited=found.t1_upper_limit,
    )


# ----------------------------------------------------------------------------------- what it shows


def bins(recovered: Sequence[Recovered], *, width_mag: float = BIN_MAG) -> tuple[Bin, ...]:
    """Return what was recovered by filter and magnitude, brightest first."""
    found = []
    for filter in dict.fromkeys(one.filter for one in recovered):
        mine = [one for one in recovered if one.filter == filter]
        places = sorted({int(np.floor(one.mag / width_mag)) for one in mine})
        for place in places:
            inside = [one for one in mine if int(np.floor(one.mag / width_mag)) == place]
            found.append(_bin(filter, place * width_mag, (place + 1) * width_mag, inside))
    return tuple(found)


def _bin(filter: str, bright: float, faint: float, stars: Sequence[Recovered]) -> Bin:
    departure = np.concatenate([one.departure_mag for one in stars])
    error = np.concatenate([one.error_mag for one in stars])
    limited = np.concatenate([one.limited for one in stars])
    good = np.isfinite(departure) & np.isfinite(error) & ~limited
    departure, error = departure[good], error[good]
    weights = 1 / error**2
    offset = float(np.average(departure, weights=weights)) if departure.size else float("nan")
    return Bin(
        filter=filter,
        bright_mag=bright,
        faint_mag=faint,
        n_stars=len(stars),
        n_points=int(good.sum()),
        n_lost=int((~good).sum()),
        offset_mag=offset,
        offset_error_mag=float(1 / np.sqrt(weights.sum())) if departure.size else float("nan"),
        scatter_mag=_robust_sd(departure),
        stated_mag=float(np.median(error)) if error.size else float("nan"),
        pull=_robust_sd(departure / error),
    )


def _robust_sd(values: FloatArray) -> float:
    """Return 1.4826 times the median distance from the median; NaN of fewer than 3."""
    if len(values) < 3:
        return float("nan")
    return MAD_TO_SIGMA * float(np.median(np.abs(values - np.median(values))))


CSV_HEADINGS = (
    "star,filter,ra_deg,dec_deg,injected_mag,frame,recovered_mag,departure_mag,error_mag,limit"
)


def as_csv(recovered: Sequence[Recovered]) -> str:
    """Return every star on every frame as CSV; what is not known is empty."""

    def number(value: float) -> str:
        return f"{value:.5f}" if np.isfinite(value) else ""

    lines = [CSV_HEADINGS]
    for one in recovered:
        star = one.star
        for label, departure, error, limit in zip(
            one.labels, one.departure_mag, one.error_mag, one.limited, strict=True
        ):
            values = (one.mag, one.mag + departure, departure, error)
            injected, measured, off, stated = (number(float(v)) for v in values)
            lines.append(
                f"{star.name},{one.filter},{star.ra_deg:.6f},{star.dec_deg:.6f},{injected},"
                f"{label},{measured},{off},{stated},{'yes' if limit else ''}"
            )
    return "\n".join(lines) + "\n"
