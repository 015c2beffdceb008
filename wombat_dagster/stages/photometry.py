"""Measures an observation: frames, times and chart stars in, a measurement table out.

In order: the star profile, the radii (which may take a pass over the frames of its own), then every
frame once: T1 and the chart's stars in full, the field's stars in the same apertures.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.config import PhotometrySettings, SiteSettings
from wombat_dagster.domain import (
    Aperture,
    ApertureScan,
    BadPsf,
    CompCandidates,
    DetectorFacts,
    FieldStars,
    Flag,
    FloatArray,
    FrameSolution,
    FrameTimes,
    LedgerEntry,
    NoFrames,
    Observation,
    PhotometryTable,
    ReducedFrame,
    Reduction,
    Site,
    StarMeasurements,
    Variable,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science import apertures, hot_pixels
from wombat_dagster.science.apertures import choose_aperture
from wombat_dagster.science.astrometry import position_at_epoch, project
from wombat_dagster.science.field_stars import select_field_stars, steady_field_stars
from wombat_dagster.science.hot_pixels import HotPixels
from wombat_dagster.science.photometry import (
    StarSums,
    measure_stars,
    relative_fluxes,
    sum_stars,
)
from wombat_dagster.science.profile import ELONGATED, FrameProfile, fit_frame_profile
from wombat_dagster.science.quality import clouded_frames
from wombat_dagster.science.sequence import assign_roles, crowded
from wombat_dagster.science.site import choose_site
from wombat_dagster.science.timing import frame_times
from wombat_dagster.stages.bad_pixels import read_map
from wombat_dagster.stages.pixels import CalibratedFrames
from wombat_dagster.stages.sequence import (
    Solved,
    aperture_of,
    persons_choices,
    solved_frames,
)
from wombat_dagster.stages.standard import transformation_of
from wombat_dagster.store.frames import read_master

log = logging.getLogger(__name__)

COLOUR_BANDS = {"B-V": ("B", "V"), "V-I": ("V", "Ic")}

MAX_SCANNED_FRAMES = 150
SNR_FRAMES = 5  # with the most usual seeing: the growth curve is that of the night
FIELD_STARS_OF_SCAN = 60  # that judge the radii, where the field is not the ensemble
SHARPEST_STARS = 0.8  # of the typical frame's: fewer are thin cloud's
HOT_PIXEL_FRAMES = (5, 12)  # read to know what hot pixels add: a tenth of the night
MIN_FRAMES_FOR_HOT_PIXELS = 30


def measure_observation(
    observatory: Observatory,
    observation: Observation,
    reduction: Reduction,
    solutions: Sequence[FrameSolution],
    candidates: CompCandidates,
) -> PhotometryTable:
    """Measure T1, T2, C3… on every solved frame.

    Raises
    ------
    NoSite, BadSite, NoTime
        The times and airmasses cannot be had, or cannot be right.
    BadPsf
        No frame has a star to take the aperture from.
    NoComps
        Not one candidate survives saturation, crowding and noise.
    """
    dropped = set(candidates.dropped_frames)
    solved = [s for s in solved_frames(reduction, solutions) if s[0].label not in dropped]
    if not solved:
        raise NoFrames("no solved frame shows the variable")
    settings, facts = observatory.settings, reduction.detector
    frames = [frame for frame, _, _ in solved]
    site = _site(observatory, frames, candidates.variable)
    exposure_s = np.array([frame.exposure_s for frame in frames])
    times = _times(frames, exposure_s, candidates.variable, site)
    pixels = CalibratedFrames(observatory, observation, reduction)
    profile, reference = night_profile(pixels, solved, facts, settings.photometry)
    fwhm_px = _frame_fwhm(solved, profile, reference)
    typical = typical_frame(fwhm_px)
    place = position_at_epoch(candidates.variable, float(np.median(times.jd_utc)))
    ra_deg = np.array([place[0], *(star.ra_deg for star in candidates.ranked)])
    dec_deg = np.array([place[1], *(star.dec_deg for star in candidates.ranked)])
    dark_e_px = _dark_e_px(observatory, reduction, facts, exposure_s)
    night = _Night(
        pixels=pixels,
        solved=solved,
        facts=facts,
        settings=settings.photometry,
        times=times,
        fwhm_px=fwhm_px,
        typical=typical,
        sharpest=_sharpest_frame(pixels, frames, fwhm_px),
        dark_e_px=np.zeros(len(frames)) if dark_e_px is None else dark_e_px,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        field=_field_places(
            observatory, pixels, reduction, solved, candidates, fwhm_px, ra_deg, dec_deg
        ),
    )
    hot = _hot_pixels(observatory, reduction, night)
    radii = _choose_radii(night, hot)
    series, sums = [], []
    crowding: list[str | None] = [None] * len(candidates.ranked)
    for index, (image, mask) in night.stream(range(len(frames)), hot):
        series.append(night.measure(index, image, mask, radii.of_frame(index)))
        if night.n_field:
            sums.append(night.sum_field(index, image, mask, radii.of_frame(index)))
        if index in (night.typical, night.sharpest):
            x_px, y_px = night.predicted(index)
            found = crowded(
                x_px[1:],
                y_px[1:],
                series[-1].source_sky_adu[1:],
                pixels.stars(frames[index]),
                radius_px=radii.of_frame(night.typical).radius_px,
                fwhm_px=night.median_fwhm_px,
            )
            crowding = [before or words for before, words in zip(crowding, found, strict=True)]
    places = {record.file: night.predicted(i) for i, (_, record, _) in enumerate(solved)}
    observatory.status.record_target_places(
        observation, {file: (float(x[0]), float(y[0])) for file, (x, y) in places.items()}
    )
    measured = night.flagged(StarMeasurements.stack(series), radii)
    transformation = transformation_of(observatory, observation, reduction, candidates.band)
    stars, indices, ledger = assign_roles(
        candidates,
        measured,
        crowding=crowding,
        colour_index=COLOUR_BANDS.get(transformation.colour_index or ""),
        target_colour=transformation.target_colour,
    )
    kept = measured.stars(indices)
    field = night.field_stars(sums, radii)
    log.info(
        "%s: %d frames, %d stars, %d of the field",
        observation.key,
        len(frames),
        len(stars),
        0 if field is None else field.ra_deg.size,
    )
    flat = reduction.choice.flat
    return PhotometryTable(
        target=observation.target,
        filter=observation.filter,
        band=candidates.band,
        comp_band=candidates.comp_band,
        band_confirmed=candidates.band_confirmed,
        chart_id=candidates.chart_id,
        variable=candidates.variable,
        labels=tuple(frame.label for frame in frames),
        raw_hashes=tuple(frame.raw_hash for frame in frames),
        times=times,
        exposure_s=exposure_s,
        ccd_temperature_c=np.array(
            [np.nan if f.ccd_temperature_c is None else f.ccd_temperature_c for f in frames]
        ),
        frame_fwhm_px=fwhm_px,
        stars=tuple(stars),
        measured=kept,
        aperture=radii.aperture,
        frame_height_px=reduction.group.height_px,
        gain_e_adu=night.gain_e_adu,
        read_noise_e=night.read_noise_e,
        saturation_adu=facts.saturation_adu.value,
        linearity_adu=facts.linearity_adu.value,
        ledger=ledger,
        relative=relative_fluxes(kept, stars),
        pedestal_removed="bias" not in reduction.choice.missing,
        notes=(
            *_missing_calibration(reduction),
            *candidates.variable.notes,
            *candidates.notes,
            *_words_on_check(observatory, observation, candidates, ledger),
            *profile.notes,
            *radii.notes,
            *_cured_words(hot),
            *_words_on_t1(kept.flags[:, 0]),
        ),
        camera=reduction.group.camera,
        radii_px=radii.per_frame_px,
        frame_axis_ratio=night.axis_ratio,
        field=field,
        scan=radii.scan,
        flat_noise=flat.noise if flat is not None else None,
        dark_e_px=dark_e_px,
        telescope_aperture_m=settings.for_camera(reduction.group.camera).aperture_m,
        site_elevation_m=known_elevation_m(observatory.settings.site, site),
    )


# ------------------------------------------------------------------------------------- the night


@dataclass(frozen=True, slots=True, kw_only=True)
class _Radii:
    """The night's aperture, and each frame's where they follow its FWHM."""

    aperture: Aperture
    per_frame_px: FloatArray | None = None  # shape (n_frames, 3)
    scan: ApertureScan | None = None
    notes: tuple[str, ...] = ()

    def of_frame(self, index: int) -> Aperture:
        if self.per_frame_px is None:
            return self.aperture
        radius, inner, outer = (float(one) for one in self.per_frame_px[index])
        return Aperture(radius_px=radius, sky_inner_px=inner, sky_outer_px=outer)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Night:
    """What is measured, and by what: the frames, the stars' places, the detector's numbers.

    `ra_deg`, `dec_deg`: T1, then the candidates; `field`: (ra_deg, dec_deg) of the field's stars.
    """

    pixels: CalibratedFrames
    solved: Solved
    facts: DetectorFacts
    settings: PhotometrySettings
    times: FrameTimes
    fwhm_px: FloatArray
    typical: int
    sharpest: int  # shows what bad seeing merges
    dark_e_px: FloatArray
    ra_deg: FloatArray
    dec_deg: FloatArray
    field: tuple[FloatArray, FloatArray]

    @property
    def gain_e_adu(self) -> float | None:
        return self.facts.gain_e_adu.value if self.facts.gain_e_adu else None

    @property
    def read_noise_e(self) -> float | None:
        return self.facts.read_noise_e.value if self.facts.read_noise_e else None

    @property
    def median_fwhm_px(self) -> float:
        return float(np.median(self.fwhm_px))

    @property
    def n_field(self) -> int:
        return self.field[0].size

    @property
    def axis_ratio(self) -> FloatArray:
        """Each frame's, of its detections; NaN where it is not known."""
        ratios = [record.axis_ratio_median for _, record, _ in self.solved]
        return np.array([np.nan if ratio is None else ratio for ratio in ratios])

    @property
    def all_places(self) -> tuple[FloatArray, FloatArray]:
        """Of T1, the candidates and the field's stars, in this order."""
        ra_deg, dec_deg = self.field
        return np.concatenate([self.ra_deg, ra_deg]), np.concatenate([self.dec_deg, dec_deg])

    def predicted(self, index: int) -> tuple[FloatArray, FloatArray]:
        """Return where T1 and the candidates should be on a frame."""
        return project(self.solved[index][2], self.ra_deg, self.dec_deg)

    def stream(
        self, indices: Sequence[int], hot: HotPixels | None
    ) -> Iterator[tuple[int, tuple[FloatArray, NDArray[np.uint8]]]]:
        """Yield image and mask of the frames, less what hot pixels add."""
        frames = [self.solved[index][0] for index in indices]
        for index, frame, (image, mask) in zip(
            indices, frames, self.pixels.stream(frames), strict=True
        ):
            if hot is not None and len(hot):
                image = np.require(image, requirements="W")  # a copy only of what is read-only
                mask = np.require(mask, requirements="W")
                jd = float(self.times.jd_utc[index])
                hot_pixels.cure(image, mask, hot, jd=jd, exposure_s=frame.exposure_s)
            yield index, (image, mask)

    def measure(
        self, index: int, image: FloatArray, mask: NDArray[np.uint8], aperture: Aperture
    ) -> StarMeasurements:
        x_px, y_px = self.predicted(index)
        return measure_stars(
            image,
            mask,
            x_px,
            y_px,
            aperture=aperture,
            gain_e_adu=self.gain_e_adu,
            read_noise_e=self.read_noise_e,
            recentre_limit_px=self._recentre_limit_px(index),
            dark_e_px=float(self.dark_e_px[index]),
            solution=self.solved[index][2],
            fwhm_px=float(self.fwhm_px[index]),
            centroid=self.settings.centroid,
        )

    def sum_field(
        self, index: int, image: FloatArray, mask: NDArray[np.uint8], aperture: Aperture
    ) -> StarSums:
        radius_px = np.array([aperture.radius_px])
        return self._sum(index, image, mask, self.field, radius_px, aperture)

    def sum_all(
        self,
        index: int,
        image: FloatArray,
        mask: NDArray[np.uint8],
        radii_px: FloatArray,
        annulus: Aperture,
    ) -> StarSums:
        """Return the light of `all_places` in several apertures."""
        return self._sum(index, image, mask, self.all_places, radii_px, annulus)

    def _sum(
        self,
        index: int,
        image: FloatArray,
        mask: NDArray[np.uint8],
        places: tuple[FloatArray, FloatArray],
        radii_px: FloatArray,
        annulus: Aperture,
    ) -> StarSums:
        return sum_stars(
            image,
            mask,
            *project(self.solved[index][2], *places),
            radii_px=radii_px,
            sky_inner_px=annulus.sky_inner_px,
            sky_outer_px=annulus.sky_outer_px,
            gain_e_adu=self.gain_e_adu,
            read_noise_e=self.read_noise_e,
            recentre_limit_px=self._recentre_limit_px(index),
            dark_e_px=float(self.dark_e_px[index]),
            fwhm_px=float(self.fwhm_px[index]),
            centroid=self.settings.centroid,
        )

    def _recentre_limit_px(self, index: int) -> float:
        limit_px = self.settings.recentre_limit_px
        return limit_px if limit_px is not None else float(self.fwhm_px[index])

    def flagged(self, measured: StarMeasurements, radii: _Radii) -> StarMeasurements:
        """Return the measurements of T1 and the candidates with what the frames say of them."""
        more = self._blended((self.ra_deg, self.dec_deg), measured.source_sky_adu, radii)
        more |= self._elongated() | self._clouded(measured.source_sky_adu[:, 1:])
        return replace(measured, flags=measured.flags | more)

    def neighbour_px(
        self, places: tuple[FloatArray, FloatArray], flux_adu: FloatArray
    ) -> FloatArray:
        """Return how far the nearest star is that matters, on the typical or the sharpest frame.

        `places`: (ra_deg, dec_deg); `flux_adu` of shape (n_frames, n_stars).
        """
        away_px = np.full(flux_adu.shape[1], np.inf)
        for index in (self.typical, self.sharpest):
            frame, _, solution = self.solved[index]
            x_px, y_px = project(solution, *places)
            here_px = apertures.neighbour_px(
                x_px,
                y_px,
                flux_adu[index],
                self.pixels.stars(frame),
                fwhm_px=self.median_fwhm_px,
            )
            away_px = np.minimum(away_px, here_px)
        return away_px

    def _blended(
        self, places: tuple[FloatArray, FloatArray], flux_adu: FloatArray, radii: _Radii
    ) -> NDArray[np.int64]:
        """Return BLENDED, frames by stars."""
        away_px = self.neighbour_px(places, flux_adu)
        radius_px = np.array([radii.of_frame(i).radius_px for i in range(len(self.solved))])
        blended = apertures.is_blended(
            away_px, radius_px=radius_px[:, None], fwhm_px=self.fwhm_px[:, None]
        )
        return np.where(blended, Flag.BLENDED, 0)

    def _elongated(self) -> NDArray[np.int64]:
        return np.where(self.axis_ratio < ELONGATED, Flag.ELONGATED, 0)[:, None]

    def _clouded(self, source_sky_adu: FloatArray) -> NDArray[np.int64]:
        """Return CLOUD by what constant stars lose, shape (n_frames, 1)."""
        exposure_s = np.array([frame.exposure_s for frame, _, _ in self.solved])
        return np.where(clouded_frames(source_sky_adu, exposure_s), Flag.CLOUD, 0)[:, None]

    def field_stars(self, sums: Sequence[StarSums], radii: _Radii) -> FieldStars | None:
        """Return the field's stars that are fit and constant; None without any."""
        if not sums:
            return None
        names = ("source_sky_adu", "source_error_adu", "snr")
        columns = {name: np.stack([getattr(one, name)[:, 0] for one in sums]) for name in names}
        flags = np.stack([one.flags[:, 0] for one in sums])
        keep = steady_field_stars(columns["source_sky_adu"], columns["snr"], flags)
        if not keep.any():
            return None
        flags = flags | self._elongated() | self._clouded(columns["source_sky_adu"][:, keep])
        flags |= self._blended(self.field, columns["source_sky_adu"], radii)
        for name in ("x_px", "y_px", "sky_adu_px", "n_sky_px"):
            columns[name] = np.stack([getattr(one, name) for one in sums])
        return FieldStars(
            ra_deg=self.field[0][keep],
            dec_deg=self.field[1][keep],
            flags=flags[:, keep],
            **{name: values[:, keep] for name, values in columns.items()},
        )


def _field_places(
    observatory: Observatory,
    pixels: CalibratedFrames,
    reduction: Reduction,
    solved: Solved,
    candidates: CompCandidates,
    fwhm_px: FloatArray,
    ra_deg: FloatArray,
    dec_deg: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return (ra_deg, dec_deg) of the field's stars to measure, by the typical frame.

    None where neither the zero point nor the choice of the radius wants them: sixty cost as much as
    everything else that is done with a small frame.
    """
    settings = observatory.settings
    frame, _, solution = solved[typical_frame(fwhm_px)]
    median_fwhm_px = float(np.median(fwhm_px))
    usual = aperture_of(settings.photometry, median_fwhm_px)
    known = candidates.known_variables or ()
    wanted = settings.magnitudes.max_field_stars
    if settings.magnitudes.ensemble != "field":
        by_fwhm = settings.photometry.aperture == "fwhm" or settings.photometry.radius_px
        wanted = 0 if by_fwhm else min(wanted, FIELD_STARS_OF_SCAN)
    if not wanted:
        return np.empty(0), np.empty(0)
    return select_field_stars(
        pixels.stars(frame),
        solution,
        [one for _, _, one in solved],
        width_px=reduction.group.width_px,
        height_px=reduction.group.height_px,
        margin_px=usual.sky_outer_px,
        radius_px=usual.radius_px,
        fwhm_px=median_fwhm_px,
        linearity_adu=reduction.detector.linearity_adu.value,
        avoid_ra_deg=np.array([*ra_deg, *(star.ra_deg for star in known)]),
        avoid_dec_deg=np.array([*dec_deg, *(star.dec_deg for star in known)]),
        max_stars=wanted,
    )


# ------------------------------------------------------------------------------------- the radii


def _choose_radii(night: _Night, hot: HotPixels | None) -> _Radii:
    """Return the night's radii as configured; those of the FWHM where a scan is not possible."""
    settings, fwhm_px = night.settings, night.median_fwhm_px
    usual = aperture_of(settings, fwhm_px)
    if settings.radius_px is not None:
        return _Radii(aperture=usual)
    notes: tuple[str, ...] = ()
    aperture, scan = usual, None
    if settings.aperture != "fwhm":
        scan = _scan(night, usual, hot)
        if scan is None:
            notes = ("radius by the FWHM: too few comps and field stars to choose it by",)
        else:
            aperture = _aperture(settings, float(scan.radii_px[scan.chosen]), fwhm_px)
            notes = (_scan_words(scan, fwhm_px, len(night.solved)),)
    if not settings.follow_fwhm:
        return _Radii(aperture=aperture, scan=scan, notes=notes)
    multiple = aperture.radius_px / fwhm_px
    per_frame = [_aperture(settings, multiple * float(one), float(one)) for one in night.fwhm_px]
    return _Radii(
        aperture=aperture,
        per_frame_px=np.array(
            [(one.radius_px, one.sky_inner_px, one.sky_outer_px) for one in per_frame]
        ),
        scan=scan,
        notes=notes,
    )


def _aperture(settings: PhotometrySettings, radius_px: float, fwhm_px: float) -> Aperture:
    """Return the aperture of a radius, with the annulus by the configured rule."""
    return choose_aperture(
        fwhm_px,
        radius_fwhm=radius_px / fwhm_px,
        sky_inner_fwhm=settings.sky_inner_fwhm,
        sky_outer_fwhm=settings.sky_outer_fwhm,
        min_radius_px=settings.min_radius_px,
    )


def _scan_words(scan: ApertureScan, fwhm_px: float, n_frames: int) -> str:
    radius_px = float(scan.radii_px[scan.chosen])
    return (
        f"radius {radius_px:.2f} px ({radius_px / fwhm_px:.2f} FWHM) of {scan.radii_px.size} from "
        f"{scan.radii_px[0]:.2f} to {scan.radii_px[-1]:.2f} px, where the {scan.criterion} is "
        f"least: {scan.n_stars} stars on {scan.n_frames} of {n_frames} frames"
    )


def _scan(night: _Night, usual: Aperture, hot: HotPixels | None) -> ApertureScan | None:
    """Return how well each radius of the configured range does; None: too few stars to say.

    Costs a pass over the frames, of which no pixels are kept.
    """
    settings, fwhm_px = night.settings, night.median_fwhm_px
    unknown = np.full((len(night.solved), night.ra_deg.size), np.nan)
    away_px = night.neighbour_px((night.ra_deg, night.dec_deg), unknown)
    radii_px = apertures.scanned_radii(
        fwhm_px,
        settings.scan_fwhm,
        min_radius_px=settings.min_radius_px,
        usual_px=usual.radius_px,
        neighbour_px=float(away_px[0]),
    )
    frames = _scanned_frames(night)
    source, n_sky_px, bad = [], [], []
    for index, (image, mask) in night.stream(frames, hot):
        follows = float(night.fwhm_px[index]) / fwhm_px if settings.follow_fwhm else 1.0
        scaled_px = np.maximum(radii_px * follows, settings.min_radius_px)
        annulus = _aperture(settings, float(scaled_px[-1]), fwhm_px * follows)
        sums = night.sum_all(index, image, mask, scaled_px, annulus)
        source.append(sums.source_sky_adu)
        n_sky_px.append(sums.n_sky_px)
        bad.append((sums.flags & (Flag.SATURATED | Flag.NON_LINEAR | Flag.UNMEASURED)) != 0)
    light = np.where(np.stack(bad), np.nan, np.stack(source))
    of_t1 = light[:, 0, radii_px.size // 2]
    like_adu = float(np.median(of_t1[np.isfinite(of_t1)])) if np.isfinite(of_t1).any() else np.nan
    lonely = ~apertures.is_blended(away_px, radius_px=usual.radius_px, fwhm_px=fwhm_px)
    judges = np.concatenate([[False], lonely[1:], np.ones(night.n_field, bool)])
    if settings.aperture == "snr":
        return apertures.best_signal(
            radii_px,
            light[:, judges],
            np.stack(n_sky_px)[:, judges],
            sky_rms_adu=np.array(
                [night.pixels.stars(night.solved[index][0]).sky_rms_adu for index in frames]
            ),
            gain_e_adu=night.gain_e_adu,
            like_adu=like_adu,
        )
    jd, airmass = night.times.jd_utc[frames], night.times.airmass[frames]
    return apertures.steadiest(
        radii_px,
        light[:, judges],
        like_adu=like_adu,
        terms=np.column_stack([jd - jd.mean(), airmass]),
    )


def _scanned_frames(night: _Night) -> list[int]:
    """Return the frames to choose the radius on, in time order."""
    n_frames = len(night.solved)
    if night.settings.aperture == "snr":
        usual_first = np.argsort(np.abs(night.fwhm_px - night.median_fwhm_px), kind="stable")
        return sorted(int(index) for index in usual_first[:SNR_FRAMES])
    return _spread(n_frames, MAX_SCANNED_FRAMES)


def _spread(n_frames: int, at_most: int) -> list[int]:
    """Return at most so many frames, evenly spread over the night."""
    places = np.linspace(0, n_frames - 1, min(n_frames, at_most)).round()
    return [int(place) for place in places]


# ------------------------------------------------------------------------------------ hot pixels


def _hot_pixels(observatory: Observatory, reduction: Reduction, night: _Night) -> HotPixels | None:
    """Return the hot pixels that a star meets and that add a known, steady count.

    A tenth of the frames is read for it, at most twelve; none where no star meets such a pixel, or
    the night is short: there they stay bad.
    """
    chosen, n_frames = reduction.choice.bad_pixels, len(night.solved)
    if chosen is None or n_frames < MIN_FRAMES_FOR_HOT_PIXELS:
        return None
    usual = aperture_of(night.settings, night.median_fwhm_px)
    where = [project(solution, *night.all_places) for _, _, solution in night.solved]
    x_px, y_px = hot_pixels.hot_in_apertures(
        read_map(observatory, chosen),
        np.stack([x for x, _ in where]),
        np.stack([y for _, y in where]),
        usual.radius_px + 1.0,
    )
    if not x_px.size:
        return None
    least, most = HOT_PIXEL_FRAMES
    frames = _spread(n_frames, min(max(n_frames // 10, least), most))
    samples, exposure_s, sky_rms_adu = [], [], []
    for index, (image, mask) in night.stream(frames, None):
        frame, stars = night.solved[index][0], night.pixels.stars(night.solved[index][0])
        fwhm_px = float(night.fwhm_px[index])
        samples.append(
            hot_pixels.excess_adu(
                image, mask, x_px, y_px, stars, places_px=where[index], fwhm_px=fwhm_px
            )
        )
        exposure_s.append(frame.exposure_s)
        sky_rms_adu.append(stars.sky_rms_adu)
    return hot_pixels.steady(
        x_px,
        y_px,
        np.stack(samples),
        jd=night.times.jd_utc[frames],
        exposure_s=np.array(exposure_s),
        sky_rms_adu=float(np.median(sky_rms_adu)),
    )


def _cured_words(hot: HotPixels | None) -> list[str]:
    if hot is None or not len(hot):
        return []
    return [
        f"{len(hot)} hot pixels near the stars serve, less the steady counts they add "
        f"(median {np.median(hot.rate_adu_s):.3g} ADU/s)"
    ]


def _words_on_check(
    observatory: Observatory,
    observation: Observation,
    candidates: CompCandidates,
    ledger: Sequence[LedgerEntry],
) -> list[str]:
    """Return why the check star a person asked for, a candidate, does not serve when measured."""
    asked = persons_choices(observatory, observation.target).check
    if asked not in {star.auid for star in candidates.ranked}:
        return []  # that is among the candidates' notes
    return [
        f"the check star asked for, {asked}, is not usable: {entry.detail}"
        for entry in ledger
        if entry.auid == asked and entry.reason is not None
    ]


def _words_on_t1(flags: NDArray[np.int64]) -> list[str]:
    """Return what a person should know of the variable's places, (n_frames,)."""
    words = {
        Flag.BLENDED: "another star shines into T1's aperture",
        Flag.OFF_CENTRE: "T1's centroid is too far off: measured where the plate solution has it",
        Flag.ELONGATED: "stars elongated",
    }
    counts = {flag: np.count_nonzero(flags & flag) for flag in words}
    return [f"{words[f]} ({n} of {len(flags)} frames)" for f, n in counts.items() if n]


# ------------------------------------------------------------------------------ what comes first


def _missing_calibration(reduction: Reduction) -> list[str]:
    missing = reduction.choice.missing
    return [f"not calibrated for: {', '.join(missing)}"] if missing else []


def _site(observatory: Observatory, frames: Sequence[ReducedFrame], variable: Variable) -> Site:
    configured = observatory.settings.site
    return choose_site(
        configured.site() if configured else None,
        next((frame.site_hint for frame in frames if frame.site_hint), None),
        [frame.start_utc for frame in frames],
        [frame.exposure_s for frame in frames],
        ra_deg=variable.ra_deg,
        dec_deg=variable.dec_deg,
        airmass_header=[frame.airmass_header for frame in frames],
    )


def known_elevation_m(configured: SiteSettings | None, site: Site) -> float | None:
    """Return the elevation that somebody stated, None where the 0 of `site` only stands in for it.

    For times sea level is near enough; scintillation at 2000 m is a fifth less.
    """
    if configured is not None:
        return configured.elevation_m if "elevation_m" in configured.model_fields_set else None
    return site.elevation_m or None


def _times(
    frames: Sequence[ReducedFrame], exposure_s: FloatArray, variable: Variable, site: Site
) -> FrameTimes:
    return frame_times(
        [frame.start_utc for frame in frames],
        exposure_s,
        ra_deg=variable.ra_deg,
        dec_deg=variable.dec_deg,
        pm_ra_mas_yr=variable.pm_ra_mas_yr,
        pm_dec_mas_yr=variable.pm_dec_mas_yr,
        site=site,
    )


def night_profile(
    pixels: CalibratedFrames,
    solved: Solved,
    facts: DetectorFacts,
    settings: PhotometrySettings,
) -> tuple[FrameProfile, int]:
    """Return the profile of the first frame that allows a fit, and which one that is.

    A frame with elongated stars serves only where all the others tried are no better.
    """
    elongated, failures = None, []
    for index, (frame, _, _) in enumerate(solved[: settings.psf_frames_tried]):
        image, mask = pixels.read(frame)
        try:
            profile = fit_frame_profile(
                image,
                mask,
                pixels.stars(frame),
                gain_e_adu=facts.gain_e_adu.value if facts.gain_e_adu else None,
                linearity_adu=facts.linearity_adu.value,
                peak_min_adu=settings.psf_peak_min_adu,
                peak_max_adu=settings.psf_peak_max_adu,
                stop_adu=facts.stop_adu,
            )
        except BadPsf as failure:
            failures.append(str(failure))
            continue
        if not profile.elongated:
            return profile, index
        elongated = elongated or (profile, index)
    if elongated is not None:
        return elongated
    raise BadPsf(f"none of {len(failures)} frames has a good star profile; first: {failures[0]}")


def _frame_fwhm(solved: Solved, profile: FrameProfile, reference: int) -> FloatArray:
    """Return every frame's FWHM: the fitted one, carried by the detections' from frame to frame."""
    detected = np.array([s.fwhm_median_px or np.nan for _, s, _ in solved])
    fwhm_px = profile.fwhm_px * detected / detected[reference]
    return np.where(np.isfinite(fwhm_px), fwhm_px, profile.fwhm_px)


def typical_frame(fwhm_px: FloatArray) -> int:
    """Return the frame nearest the night's median FWHM."""
    return int(np.argmin(np.abs(fwhm_px - np.median(fwhm_px))))


def _sharpest_frame(
    pixels: CalibratedFrames, frames: Sequence[ReducedFrame], fwhm_px: FloatArray
) -> int:
    """Return the frame with the narrowest stars, of those that show about as many as the typical.

    Close pairs that are one star on the others are two on it.
    """
    typical = typical_frame(fwhm_px)
    n_wanted = SHARPEST_STARS * len(pixels.stars(frames[typical]))
    for index in np.argsort(fwhm_px, kind="stable"):
        if len(pixels.stars(frames[index])) >= n_wanted:
            return int(index)
    return typical


def _dark_e_px(
    observatory: Observatory, reduction: Reduction, facts: DetectorFacts, exposure_s: FloatArray
) -> FloatArray | None:
    """Return the dark signal of each exposure that was subtracted; None where it is not known."""
    dark = reduction.choice.dark
    if dark is None or reduction.choice.bias is None or facts.gain_e_adu is None:
        return None
    if not dark.exposure_s:
        return None
    image, _, _ = read_master(observatory.layout.raw_path(dark.path))
    rate_e_s = max(0.0, float(np.median(image))) * facts.gain_e_adu.value / dark.exposure_s
    return rate_e_s * exposure_s
