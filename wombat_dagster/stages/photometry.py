"""Measures an observation: frames, times and chart stars in, a measurement table out.

In order: the star profile, the radii (which may take a pass over the frames of its own), then every
frame once: T1 and the chart's stars in full, the field's stars in the same apertures.

What is found on a frame is kept beside the products, by all that it depends on: when late frames
arrive, only those are read. So what belongs to the whole night and enters the measurement of every
frame (radii, windows, the frames that stand for the others) is made not to change with each frame
more, and never depends on what was there before: a night measured in parts is one measured at once.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

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
from wombat_dagster.science.apertures import choose_aperture, in_tenths, scaled_aperture
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
from wombat_dagster.science.sampling import spread
from wombat_dagster.science.sequence import assign_roles, crowded
from wombat_dagster.science.site import choose_site
from wombat_dagster.science.timing import frame_times
from wombat_dagster.stages.bad_pixels import read_map
from wombat_dagster.stages.calibrator import LOOK_RULES
from wombat_dagster.stages.pixels import CalibratedFrames
from wombat_dagster.stages.sequence import (
    Solved,
    aperture_of,
    persons_choices,
    solved_frames,
)
from wombat_dagster.stages.standard import transformation_of
from wombat_dagster.store.arrays import KeptArrays, content_key
from wombat_dagster.store.frames import read_master
from wombat_dagster.store.tables import dump_json, load_json

log = logging.getLogger(__name__)

COLOUR_BANDS = {"B-V": ("B", "V"), "V-I": ("V", "Ic")}

MAX_SCANNED_FRAMES = 150
SNR_FRAMES = 5  # with the most usual seeing: the growth curve is that of the night
FIELD_STARS_OF_SCAN = 60  # that judge the radii, where the field is not the ensemble
SHARPEST_STARS = 0.8  # of the typical frame's: fewer are thin cloud's
HOT_PIXEL_FRAMES = 10  # at most, and more than five, are read to know what hot pixels add
MIN_FRAMES_FOR_HOT_PIXELS = 30
# Each goes up when it would come out otherwise from the same pixels.
MEASURING_RULES = "1"
PROFILE_RULES = "1"

Columns = dict[str, NDArray[Any]]


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
    pixels = CalibratedFrames(observatory, observation, reduction)
    gone = {s[0].raw: words for s in solved if (words := pixels.why_gone(s[0])) is not None}
    n_solved, solved = len(solved), [s for s in solved if s[0].raw not in gone]
    left_out = tuple(f"{PurePosixPath(path).name} left out: {gone[path]}" for path in gone)
    if not solved:
        raise NoFrames(f"0 of {n_solved} solved frames can be read: {left_out[0]}")
    settings, facts = observatory.settings, reduction.detector
    frames = [frame for frame, _, _ in solved]
    site = _site(observatory, frames, candidates.variable)
    exposure_s = np.array([frame.exposure_s for frame in frames])
    times = _times(frames, exposure_s, candidates.variable, site)
    per_frame = KeptArrays(_kept_directory(observatory, observation))
    profile, reference = night_profile(pixels, solved, facts, settings.photometry, per_frame)
    fwhm_px = _frame_fwhm(solved, profile, reference)
    typical = typical_frame(fwhm_px)
    place = position_at_epoch(candidates.variable, _midnight_jd(times.jd_utc, site))
    ra_deg = np.array([place[0], *(star.ra_deg for star in candidates.ranked)])
    dec_deg = np.array([place[1], *(star.dec_deg for star in candidates.ranked)])
    dark_e_px = _dark_e_px(observatory, reduction, facts, exposure_s)
    night = _Night(
        pixels=pixels,
        kept=per_frame,
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
    series, sums = night.measured(radii, hot)
    per_frame.remove_others()
    crowding: list[str | None] = [None] * len(candidates.ranked)
    for index in sorted({night.typical, night.sharpest}):
        x_px, y_px = night.predicted(index)
        found = crowded(
            x_px[1:],
            y_px[1:],
            series[index].source_sky_adu[1:],
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
        comp_source=candidates.chart_source,
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
            *left_out,
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
class _Work:
    """What is made of frames, one by one: arrays out of a frame's pixels.

    `needs` tells of a frame all that they depend on beside its pixels.
    """

    name: str
    needs: Callable[[int], tuple[object, ...]]
    make: Callable[[int, FloatArray, NDArray[np.uint8]], Columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stars:
    """Stars to be measured, by right ascension: a chart's order changes with its magnitudes.

    `places`: where each of those asked for is among them.
    """

    ra_deg: FloatArray
    dec_deg: FloatArray
    places: NDArray[np.intp]

    @classmethod
    def of(cls, ra_deg: FloatArray, dec_deg: FloatArray) -> "_Stars":
        order = np.lexsort((dec_deg, ra_deg))
        return cls(ra_deg=ra_deg[order], dec_deg=dec_deg[order], places=np.argsort(order))

    def as_asked(self, columns: Columns) -> Columns:
        """Return arrays whose first axis is the stars in the order that was asked for."""
        return {name: values[self.places] for name, values in columns.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Night:
    """What is measured, and by what: the frames, the stars' places, the detector's numbers.

    `ra_deg`, `dec_deg`: T1, then the candidates; `field`: (ra_deg, dec_deg) of the field's stars.
    """

    pixels: CalibratedFrames
    kept: KeptArrays
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
        return usual_fwhm_px(self.fwhm_px)

    def width_px(self, index: int) -> float:
        """Return the FWHM that a frame's stars are looked for with: that of its detections.

        It is the frame's own: the fitted one comes from another frame, which need not always be
        the same.
        """
        detected_px = self.solved[index][1].fwhm_median_px
        return in_tenths(detected_px or float(self.fwhm_px[index]))

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

    def measured(
        self, radii: _Radii, hot: HotPixels | None
    ) -> tuple[list[StarMeasurements], list[StarSums]]:
        """Return, of every frame, T1 and the candidates, and the light of the field's stars."""
        stars, field = _Stars.of(self.ra_deg, self.dec_deg), _Stars.of(*self.field)
        works = [self._measuring(stars, radii, hot)]
        if self.n_field:
            works.append(self._summing(field, lambda i: _one_radius(radii.of_frame(i)), hot))
        series, *sums = self.of_frames(range(len(self.solved)), hot, *works)
        return (
            [StarMeasurements(**stars.as_asked(columns)) for columns in series],
            [StarSums(**field.as_asked(columns)) for columns in (sums[0] if sums else [])],
        )

    def sum_all(
        self,
        frames: Sequence[int],
        hot: HotPixels | None,
        radii_of: Callable[[int], tuple[FloatArray, Aperture]],
    ) -> list[StarSums]:
        """Return the light of `all_places` in several apertures, of each of the frames.

        `radii_of` a frame gives the radii and the annulus.
        """
        stars = _Stars.of(*self.all_places)
        (sums,) = self.of_frames(frames, hot, self._summing(stars, radii_of, hot))
        return [StarSums(**stars.as_asked(columns)) for columns in sums]

    def of_frames(
        self, frames: Sequence[int], hot: HotPixels | None, *works: _Work
    ) -> list[list[Columns]]:
        """Return what each of the works makes of each of the frames, made now or kept from before.

        Only frames of which something is missing are read.
        """
        keys = [[self._key(work, index) for index in frames] for work in works]
        found = [[self.kept.get(key) for key in of_work] for of_work in keys]
        to_read = [at for at in range(len(frames)) if any(made[at] is None for made in found)]
        pixels = self.stream([frames[at] for at in to_read], hot)
        for at, (index, (image, mask)) in zip(to_read, pixels, strict=True):
            for work, of_work, made in zip(works, keys, found, strict=True):
                if made[at] is None:
                    new = work.make(index, image, mask)
                    self.kept.put(of_work[at], new)
                    made[at] = new
        return [[columns for columns in made if columns is not None] for made in found]

    def _key(self, work: _Work, index: int) -> str:
        frame, _, solution = self.solved[index]
        pixels = self.pixels.key(frame)
        return content_key(
            MEASURING_RULES, work.name, pixels, dump_json(solution), *work.needs(index)
        )

    def _hot_near(
        self, index: int, hot: HotPixels | None, stars: _Stars, outer_px: float
    ) -> tuple[NDArray[Any], ...]:
        """Return (x, y, counts taken off) of the hot pixels that the stars may meet on a frame."""
        if hot is None or not len(hot):
            return ()
        reach_px = outer_px + 3.0 * (self._recentre_limit_px(index) + self.width_px(index))
        x_px, y_px = project(self.solved[index][2], stars.ra_deg, stars.dec_deg)
        near = np.zeros(len(hot), bool)
        for x, y in zip(x_px, y_px, strict=True):
            near |= (np.abs(hot.x - x) <= reach_px) & (np.abs(hot.y - y) <= reach_px)
        exposure_s = self.solved[index][0].exposure_s
        taken_adu = hot.excess_adu(float(self.times.jd_utc[index]), exposure_s)
        return hot.x[near], hot.y[near], taken_adu[near]

    def _by(self, index: int) -> dict[str, Any]:
        """Return the numbers that the light of a frame's stars is measured with."""
        return {
            "gain_e_adu": self.gain_e_adu,
            "read_noise_e": self.read_noise_e,
            "recentre_limit_px": self._recentre_limit_px(index),
            "dark_e_px": float(self.dark_e_px[index]),
            "fwhm_px": self.width_px(index),
            "centroid": self.settings.centroid,
        }

    def _measuring(self, stars: _Stars, radii: _Radii, hot: HotPixels | None) -> _Work:
        def needs(index: int) -> tuple[object, ...]:
            aperture = radii.of_frame(index)
            near = self._hot_near(index, hot, stars, aperture.sky_outer_px)
            by = dump_json(aperture), dump_json(self._by(index))
            return stars.ra_deg, stars.dec_deg, *by, *near

        def make(index: int, image: FloatArray, mask: NDArray[np.uint8]) -> Columns:
            solution = self.solved[index][2]
            return _columns(
                measure_stars(
                    image,
                    mask,
                    *project(solution, stars.ra_deg, stars.dec_deg),
                    aperture=radii.of_frame(index),
                    solution=solution,
                    **self._by(index),
                )
            )

        return _Work(name="stars", needs=needs, make=make)

    def _summing(
        self,
        stars: _Stars,
        radii_of: Callable[[int], tuple[FloatArray, Aperture]],
        hot: HotPixels | None,
    ) -> _Work:
        def needs(index: int) -> tuple[object, ...]:
            radii_px, annulus = radii_of(index)
            near = self._hot_near(index, hot, stars, annulus.sky_outer_px)
            by = dump_json(annulus), dump_json(self._by(index))
            return stars.ra_deg, stars.dec_deg, radii_px, *by, *near

        def make(index: int, image: FloatArray, mask: NDArray[np.uint8]) -> Columns:
            radii_px, annulus = radii_of(index)
            return _columns(
                sum_stars(
                    image,
                    mask,
                    *project(self.solved[index][2], stars.ra_deg, stars.dec_deg),
                    radii_px=radii_px,
                    sky_inner_px=annulus.sky_inner_px,
                    sky_outer_px=annulus.sky_outer_px,
                    **self._by(index),
                )
            )

        return _Work(name="sums", needs=needs, make=make)

    def _recentre_limit_px(self, index: int) -> float:
        limit_px = self.settings.recentre_limit_px
        return float(limit_px) if limit_px is not None else self.width_px(index)

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


def _columns(measured: StarMeasurements | StarSums) -> Columns:
    return {field.name: getattr(measured, field.name) for field in fields(measured)}


def _one_radius(aperture: Aperture) -> tuple[FloatArray, Aperture]:
    return np.array([aperture.radius_px]), aperture


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
    median_fwhm_px = usual_fwhm_px(fwhm_px)
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
    least_px = settings.min_radius_px
    per_frame = [
        scaled_aperture(aperture, float(one) / fwhm_px, min_radius_px=least_px)
        for one in night.fwhm_px
    ]
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

    Costs a pass over the frames.
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

    def radii_of(index: int) -> tuple[FloatArray, Aperture]:
        follows = night.width_px(index) / fwhm_px if settings.follow_fwhm else 1.0
        scaled_px = np.maximum(radii_px * follows, settings.min_radius_px)
        return scaled_px, _aperture(settings, float(scaled_px[-1]), fwhm_px * follows)

    sums = night.sum_all(frames, hot, radii_of)
    unusable = Flag.SATURATED | Flag.NON_LINEAR | Flag.UNMEASURED
    light = np.stack(
        [np.where((one.flags & unusable) != 0, np.nan, one.source_sky_adu) for one in sums]
    )
    of_t1 = light[:, 0, radii_px.size // 2]
    like_adu = float(np.median(of_t1[np.isfinite(of_t1)])) if np.isfinite(of_t1).any() else np.nan
    lonely = ~apertures.is_blended(away_px, radius_px=usual.radius_px, fwhm_px=fwhm_px)
    judges = np.concatenate([[False], lonely[1:], np.ones(night.n_field, bool)])
    if settings.aperture == "snr":
        return apertures.best_signal(
            radii_px,
            light[:, judges],
            np.stack([one.n_sky_px for one in sums])[:, judges],
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
    if night.settings.aperture == "snr":
        usual_first = np.argsort(np.abs(night.fwhm_px - night.median_fwhm_px), kind="stable")
        return sorted(int(index) for index in usual_first[:SNR_FRAMES])
    return spread(night.times.jd_utc, MAX_SCANNED_FRAMES)


# ------------------------------------------------------------------------------------ hot pixels


def _hot_pixels(observatory: Observatory, reduction: Reduction, night: _Night) -> HotPixels | None:
    """Return the hot pixels that a star meets and that add a known, steady count.

    Up to ten frames are read for it; none where no star meets such a pixel, or the night is short:
    there they stay bad.
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
    frames = spread(night.times.jd_utc, HOT_PIXEL_FRAMES)
    (samples,) = night.of_frames(frames, None, _sampling(night, x_px, y_px))
    return hot_pixels.steady(
        x_px,
        y_px,
        np.stack([columns["excess_adu"] for columns in samples]),
        jd=night.times.jd_utc[frames],
        exposure_s=np.array([night.solved[index][0].exposure_s for index in frames]),
        sky_rms_adu=float(
            np.median([night.pixels.stars(night.solved[i][0]).sky_rms_adu for i in frames])
        ),
    )


def _sampling(night: _Night, x_px: NDArray[np.intp], y_px: NDArray[np.intp]) -> _Work:
    """Return the work that takes of each frame what hot pixels have above their surroundings."""
    places = night.all_places

    def needs(index: int) -> tuple[object, ...]:
        ra_deg, dec_deg = (np.sort(one) for one in places)
        return LOOK_RULES, x_px, y_px, ra_deg, dec_deg, night.width_px(index)

    def make(index: int, image: FloatArray, mask: NDArray[np.uint8]) -> Columns:
        frame, _, solution = night.solved[index]
        excess_adu = hot_pixels.excess_adu(
            image,
            mask,
            x_px,
            y_px,
            night.pixels.stars(frame),
            places_px=project(solution, *places),
            fwhm_px=night.width_px(index),
        )
        return {"excess_adu": excess_adu}

    return _Work(name="hot pixels", needs=needs, make=make)


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
    kept: KeptArrays | None = None,
) -> tuple[FrameProfile, int]:
    """Return the profile of the first frame that allows a fit, and which one that is.

    A frame with elongated stars serves only where all the others tried are no better. A fit that
    is among those `kept` is not made again.
    """
    elongated, failures = None, []
    for index, (frame, _, _) in enumerate(solved[: settings.psf_frames_tried]):
        profile = _profile_of(pixels, frame, facts, settings, kept)
        if isinstance(profile, str):
            failures.append(profile)
            continue
        if not profile.elongated:
            return profile, index
        elongated = elongated or (profile, index)
    if elongated is not None:
        return elongated
    raise BadPsf(f"none of {len(failures)} frames has a good star profile; first: {failures[0]}")


def _profile_of(
    pixels: CalibratedFrames,
    frame: ReducedFrame,
    facts: DetectorFacts,
    settings: PhotometrySettings,
    kept: KeptArrays | None,
) -> FrameProfile | str:
    """Return the profile of a frame, or why there is none."""
    by: dict[str, Any] = {
        "gain_e_adu": facts.gain_e_adu.value if facts.gain_e_adu else None,
        "linearity_adu": facts.linearity_adu.value,
        "peak_min_adu": settings.psf_peak_min_adu,
        "peak_max_adu": settings.psf_peak_max_adu,
        "stop_adu": facts.stop_adu,
    }
    key = ""
    if kept is not None:
        key = content_key(PROFILE_RULES, LOOK_RULES, "profile", pixels.key(frame), dump_json(by))
        if (known := kept.get(key)) is not None:
            text = str(known["text"][0])
            return load_json(FrameProfile, text) if "is_good" in known else text
    image, mask = pixels.read(frame)
    try:
        profile = fit_frame_profile(image, mask, pixels.stars(frame), **by)
    except BadPsf as failure:
        if kept is not None:
            kept.put(key, {"text": np.array([str(failure)])})
        return str(failure)
    if kept is not None:
        kept.put(key, {"text": np.array([dump_json(profile)]), "is_good": np.array([True])})
    return profile


def _frame_fwhm(solved: Solved, profile: FrameProfile, reference: int) -> FloatArray:
    """Return every frame's FWHM: the fitted one, carried by the detections' from frame to frame."""
    detected = np.array([s.fwhm_median_px or np.nan for _, s, _ in solved])
    fwhm_px = profile.fwhm_px * detected / detected[reference]
    return np.where(np.isfinite(fwhm_px), fwhm_px, profile.fwhm_px)


def usual_fwhm_px(fwhm_px: FloatArray) -> float:
    """Return the night's median FWHM as its stars are measured with."""
    return in_tenths(float(np.median(fwhm_px)))


def typical_frame(fwhm_px: FloatArray) -> int:
    """Return the first frame with the night's median FWHM, or nearest to it."""
    widths_px = np.array([in_tenths(one) for one in fwhm_px])
    return int(np.argmin(np.abs(widths_px - usual_fwhm_px(fwhm_px)).round(6)))


def _midnight_jd(jd_utc: FloatArray, site: Site) -> float:
    """Return the site's local midnight of a night: the epoch to which its stars have moved."""
    east_d = site.longitude_deg / 360.0
    return float(np.floor(np.median(jd_utc) + east_d)) + 0.5 - east_d


def _kept_directory(observatory: Observatory, observation: Observation) -> Path:
    """Return where the measurements of single frames are kept."""
    return observatory.layout.observation_dir(observation) / "measured"


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
