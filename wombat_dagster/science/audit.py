"""Whether times and place can be right: every witness in the headers heard against the sky.

A wrong site or a local time in a UT field spoils airmass, HJD and the light curve without any error
message. So the Sun, the horizon, the sidereal time, hour angle, altitude and airmass that capture
programs write, other time cards, the numbers in file names and the files' own times are compared
with what the pipeline goes by. What does not fit is said with the hypothesis that would put it
right; nothing is corrected here, for that would only hide it.
"""

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import astropy.units as u
import numpy as np
from astropy.coordinates import AltAz, HADec, SkyCoord, get_sun
from astropy.time import Time, TimeDelta

from wombat_dagster.domain import (
    Finding,
    FloatArray,
    HeaderClaims,
    RawFrame,
    Severity,
    Site,
    TimeClaim,
)
from wombat_dagster.science.site import AIRMASS_TOLERANCE, HEADER_MIN_ALTITUDE_DEG
from wombat_dagster.science.timing import (
    airmass,
    apparent_altitude_deg,
    bundled_earth_tables,
    calendar_jd,
    earth_location,
    frame_times,
)

SUN_UP_DEG: Final = -3.0  # no star field is taken with the Sun higher
SUN_DARK_DEG: Final = -6.0  # what an offset has to reach to put it right
ZONES_H: Final = tuple(0.5 * n for n in range(-28, 29))  # local time less UT: -14…+14
ZONE_FROM_LONGITUDE_H: Final = 2.75  # clocks differ from the Sun's by no more, summer time included

SIDEREAL_TOLERANCE_H: Final = 2 / 60
HOUR_ANGLE_TOLERANCE_H: Final = 3 / 60  # of date or J2000: up to 1.5 min near the equator
ALTITUDE_TOLERANCE_DEG: Final = 0.6
SAME_PLACE_DEG: Final = 0.02
OTHER_PLACE_DEG: Final = 0.3  # 30 km: no rounding of a header

CLOCK_TOLERANCE_S: Final = 2.0
END_TOLERANCE_S: Final = 10.0  # readout is counted by some
LIGHT_TIME_TOLERANCE_S: Final = 5.0
LOUD_S: Final = 30.0
WHOLE_HOURS_WITHIN_S: Final = 90.0

MIN_FILES: Final = 3
COPIED_PART: Final = 0.5  # file times spread over less of the night: copied, not written then
STEADY_FILES_S: Final = 120.0  # files are written so steadily after their exposure
LATE_FILES_S: Final = 600.0
MAX_DISORDER: Final = 0.2  # of the pairs; more and the numbers count something else
MAX_NAMED: Final = 3

SECONDS_PER_DAY: Final = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where the frames look, J2000 degrees, and where that is known from."""

    ra_deg: float
    dec_deg: float
    source: str


def audit(
    frames: Sequence[RawFrame],
    claims: Sequence[HeaderClaims],
    *,
    configured: Site | None,
    target: Target | None,
    no_site: str | None = None,
) -> tuple[Finding, ...]:
    """Return what does not fit about the times and the place of an observation's frames.

    Parameters
    ----------
    frames
        The usable frames, in time order.
    claims
        What the headers of a few of them say: the first, one in the middle, the last.
    configured
        The site of ``wombat.toml``; None: that of the headers is taken, with either sign.
    target
        Where the frames look; None: nothing can be said of Sun's company, horizon and airmass.
    no_site
        Why no site could be chosen for the observation, in words.
    """
    timed = [f for f in frames if f.start_utc is not None and f.exposure_s is not None]
    if not timed:
        return (_note("cards", "no frame with a time: nothing to audit"),)
    hint = next((f.site_hint for f in timed if f.site_hint), None)
    with bundled_earth_tables():
        night = _Night(timed, target)
        found = [
            *_sites(configured, hint, no_site),
            *_witnesses(night, claims, configured, hint),
            *_sun_and_horizon(night, claims, configured, hint),
            *_cards(night, claims, configured or hint),
        ]
    found += [*_order(timed), *_file_times(timed), *_date(timed, configured or hint)]
    return tuple(sorted(found, key=lambda one: one.severity is not Severity.WARNING))


class _Night:
    """Times of the frames on the UTC scale, by raw path, and where the telescope looked."""

    def __init__(self, frames: Sequence[RawFrame], target: Target | None) -> None:
        self.frames, self.target = frames, target
        self.exposure_s = np.array([frame.exposure_s for frame in frames], dtype=float)
        self.start = Time([frame.start_utc for frame in frames], scale="utc")
        self.middle = self.start + TimeDelta(self.exposure_s / 2, format="sec")
        self.index = {frame.path: i for i, frame in enumerate(frames)}

    @property
    def place(self) -> SkyCoord | None:
        if self.target is None:
            return None
        return SkyCoord(self.target.ra_deg, self.target.dec_deg, unit="deg")


def _warning(about: str, words: str) -> Finding:
    return Finding(severity=Severity.WARNING, about=about, words=words)


def _note(about: str, words: str) -> Finding:
    return Finding(severity=Severity.NOTE, about=about, words=words)


# ------------------------------------------------------------------------------------------- sites


def _sites(configured: Site | None, hint: Site | None, no_site: str | None) -> list[Finding]:
    """Return what configuration and header say against one another, signs aside."""
    if configured is None and hint is None:
        return [_note("site", "no site: Sun, horizon and airmass are not checked; write [site]")]
    found = []
    if no_site is not None:
        found.append(_warning("site", f"no times without a site: {no_site}"))
    if configured is None or hint is None:
        return found
    north_deg = abs(configured.latitude_deg - hint.latitude_deg)
    as_written, flipped = (
        abs((configured.longitude_deg - sign * hint.longitude_deg + 180) % 360 - 180)
        for sign in (1, -1)
    )
    east_deg = min(as_written, flipped)
    words = f"[site] says {_place(configured)}, the header ({hint.source}) {_place(hint)}"
    if max(north_deg, east_deg) > OTHER_PLACE_DEG:
        return [*found, _warning("site", f"{words}: not the same place; [site] is gone by")]
    if max(north_deg, east_deg) > SAME_PLACE_DEG:
        found.append(_note("site", f"{words}: some kilometres apart"))
    elif flipped < as_written:
        found.append(_note("longitude", f"{words}: the header counts longitude to the west"))
    return found


def _place(site: Site) -> str:
    return f"latitude {site.latitude_deg:+.4f}, longitude {site.longitude_deg:+.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hypothesis:
    """A place that could be meant; `words` say by which mistake, "" for the one gone by."""

    site: Site
    words: str
    about: str = "site"


def _hypotheses(configured: Site | None, hint: Site | None) -> list[_Hypothesis]:
    """Return the place gone by, and what it would be if a usual mistake had been made."""
    base = configured or hint
    assert base is not None
    whose = "[site] longitude_deg" if configured else "the header's longitude"
    found = [_Hypothesis(site=base, words="")]
    flipped = replace(base, longitude_deg=-base.longitude_deg)
    found.append(
        _Hypothesis(
            site=flipped,
            words=(
                f"{whose} {base.longitude_deg:+.4f} counts to the west or has the wrong sign"
                f" (it fits as {flipped.longitude_deg:+.4f}, east positive)"
            ),
            about="longitude",
        )
    )
    for of_site in (base, flipped):
        west = " to the west" if of_site is flipped else ""
        for longitude_deg in _half_signed(of_site.longitude_deg):
            words = (
                f"{whose} {base.longitude_deg:+.4f}{west} has its sign on the degrees only"
                f" (it fits as {longitude_deg:+.4f}, east positive)"
            )
            found.append(
                _Hypothesis(
                    site=replace(of_site, longitude_deg=longitude_deg), words=words, about="sign"
                )
            )
        for latitude_deg in _half_signed(of_site.latitude_deg):
            words = (
                f"the latitude {base.latitude_deg:+.4f} has its sign on the degrees only"
                f" (it fits as {latitude_deg:+.4f})"
            )
            if of_site is flipped:
                words += f", and the longitude counts to the west ({of_site.longitude_deg:+.4f})"
            found.append(
                _Hypothesis(
                    site=replace(of_site, latitude_deg=latitude_deg), words=words, about="sign"
                )
            )
    return found


def _half_signed(angle_deg: float) -> list[float]:
    """Return what a negative angle is when minutes and seconds were added to negative degrees.

    -7:30 so read is -6.5; and what stands as -6.5 was -7:30. Nothing for whole degrees, and for
    positive ones.
    """
    if angle_deg >= 0:
        return []
    fraction = abs(angle_deg) % 1.0
    if min(fraction, 1.0 - fraction) < SAME_PLACE_DEG:
        return []
    return [angle_deg - 2 * (1.0 - fraction), angle_deg + 2 * fraction]


# --------------------------------------------------- sidereal time, hour angle, altitude, airmass


@dataclass(frozen=True, slots=True, kw_only=True)
class _Witness:
    """One card that says how the sky stood, its departures from a place by frame, its tolerance."""

    name: str
    card: str
    departure: float  # the median over the frames, least of start, middle and end
    tolerance: float
    unit: str

    @property
    def fits(self) -> bool:
        return abs(self.departure) <= self.tolerance

    @property
    def pulls(self) -> float:
        """The departure in units of its tolerance, at most 10."""
        return min(abs(self.departure) / self.tolerance, 10.0)

    @property
    def words(self) -> str:
        if self.unit == "h":
            size = f"off by {self.departure:+.2f} h"
        elif self.unit == "deg":
            size = f"off by {self.departure:+.1f} deg"
        elif np.isfinite(self.departure):
            size = f"off by {100 * self.departure:+.0f} %"
        else:
            size = "of a target below the horizon"
        return f"{self.name} ({self.card}) {size}"


def _witnesses(
    night: _Night,
    claims: Sequence[HeaderClaims],
    configured: Site | None,
    hint: Site | None,
) -> list[Finding]:
    """Return where the cards on the sky's place disagree with site and time, and what would fit."""
    if configured is None and hint is None:
        return []
    heard = [claim for claim in claims if claim.raw in night.index]
    hypotheses = _hypotheses(configured, hint)
    base = _testimony(night, heard, hypotheses[0].site, 0.0)
    if all(witness.fits for witness in base):  # also when there is none
        return []
    reports = [base, *(_testimony(night, heard, one.site, 0.0) for one in hypotheses[1:])]
    support = [sum(witness.fits for witness in report) for report in reports]
    # of equals the place gone by, else the one that departs least
    best = min(
        range(len(reports)),
        key=lambda i: (-support[i], i > 0, sum(w.pulls for w in reports[i])),
    )
    if best == 0 and support[0] > 0:
        agreeing = ", ".join(w.name for w in base if w.fits)
        return [
            _note(
                "cards",
                f"{w.words} against site and time, with which {agreeing} agree: the card is wrong",
            )
            for w in base
            if not w.fits
        ]
    found = ", ".join(w.words for w in base if not w.fits)
    if support[best] > support[0]:
        fitting = ", ".join(f"{w.name} ({w.card})" for w in reports[best] if w.fits)
        one = hypotheses[best]
        words = f"{one.words}, says {fitting}; as written: {found}"
        if configured is None:
            words += f"; write [site] longitude_deg = {one.site.longitude_deg:.4f}" + (
                f", latitude_deg = {one.site.latitude_deg:.4f}"
            )
        return [_warning(one.about, words), *_still_wrong(reports[best])]
    # No place fits: would another time?
    for one, at_ut in zip(hypotheses[:2], reports, strict=False):
        for zone_h in _zones_to_try(at_ut):
            report = _testimony(night, heard, one.site, -zone_h)
            if all(witness.fits for witness in report):
                words = f"DATE-OBS looks like local time: {found} as UT, all fit as {_zone(zone_h)}"
                return [_warning("zone", f"{words}; {one.words}" if one.words else words)]
    words = f"site or time wrong: {found}; no usual mistake of sign or time zone puts it right"
    return [_warning("site", words)]


def _zones_to_try(at_ut: Sequence[_Witness]) -> list[float]:
    """Return the zones that a clock among the witnesses could mean; all when there is none."""
    clocks = [witness.departure for witness in at_ut if witness.unit == "h"]
    if not clocks:
        return [zone_h for zone_h in ZONES_H if zone_h]
    # the witness runs ahead of a time that is too early
    named = {-round(2 * (hours + turn)) / 2 for hours in clocks for turn in (-24, 0, 24)}
    return [zone_h for zone_h in ZONES_H if zone_h and zone_h in named]


def _still_wrong(report: Sequence[_Witness]) -> list[Finding]:
    return [
        _note("cards", f"{witness.words} even so: the card is wrong")
        for witness in report
        if not witness.fits
    ]


def _testimony(
    night: _Night, claims: Sequence[HeaderClaims], site: Site, add_h: float
) -> list[_Witness]:
    """Return how far each kind of card departs from a place, with `add_h` added to the times."""
    departures: dict[str, list[float]] = defaultdict(list)
    cards: dict[str, str] = {}
    location = earth_location(site)
    for claim in claims:
        index = night.index[claim.raw]
        seconds = night.exposure_s[index] * np.array([0.0, 0.5, 1.0]) + 3600.0 * add_h
        moments = night.start[index] + TimeDelta(seconds, format="sec")
        pointing = night.place
        if claim.ra_deg is not None and claim.dec_deg is not None:
            pointing = SkyCoord(claim.ra_deg, claim.dec_deg, unit="deg")
        if claim.sidereal_h is not None:
            sidereal = moments.sidereal_time("mean", longitude=location.lon).hour
            departures["sidereal time"].append(_least(_wrapped(claim.sidereal_h - sidereal)))
            cards["sidereal time"] = claim.sidereal_card
        if pointing is None:
            continue
        if claim.hour_angle_h is not None:
            frame = HADec(obstime=moments, location=location, pressure=0 * u.hPa)
            angle = pointing.transform_to(frame).ha.hour
            departures["hour angle"].append(_least(_wrapped(claim.hour_angle_h - angle)))
            cards["hour angle"] = claim.hour_angle_card
        if claim.altitude_deg is not None or claim.airmass is not None:
            frame = AltAz(obstime=moments, location=location, pressure=0 * u.hPa)
            altitude = apparent_altitude_deg(np.asarray(pointing.transform_to(frame).alt.deg))
            if claim.altitude_deg is not None:
                departures["altitude"].append(_least(claim.altitude_deg - altitude))
                cards["altitude"] = claim.altitude_card
            if claim.airmass is not None:
                ours = airmass(altitude)
                relative = np.where(ours > 0, claim.airmass / np.maximum(ours, 1e-9) - 1, np.inf)
                departures["airmass"].append(_least(relative))
                cards["airmass"] = "AIRMASS"
    kinds = {
        "sidereal time": (SIDEREAL_TOLERANCE_H, "h"),
        "hour angle": (HOUR_ANGLE_TOLERANCE_H, "h"),
        "altitude": (ALTITUDE_TOLERANCE_DEG, "deg"),
        "airmass": (AIRMASS_TOLERANCE, ""),
    }
    return [
        _Witness(
            name=name,
            card=cards[name],
            departure=float(np.median(departures[name])),
            tolerance=tolerance,
            unit=unit,
        )
        for name, (tolerance, unit) in kinds.items()
        if departures[name]
    ]


def _least(departure: FloatArray) -> float:
    """Return the departure nearest to zero, with its sign."""
    return float(departure[np.argmin(np.abs(departure))])


def _wrapped(hours: FloatArray) -> FloatArray:
    return np.asarray((hours + 12.0) % 24.0 - 12.0)


def _zone(zone_h: float) -> str:
    """Return ``UT-4`` or ``UT+5.5``: local time less UT."""
    return f"UT{zone_h:+g}"


# --------------------------------------------------------------------------------- Sun and horizon


def _sun_and_horizon(
    night: _Night,
    claims: Sequence[HeaderClaims],
    configured: Site | None,
    hint: Site | None,
) -> list[Finding]:
    """Return whether the Sun was up or the target down, and which time zone would put it right."""
    if configured is not None:
        places = [_Hypothesis(site=configured, words="")]
    elif hint is not None:  # either sign may be meant
        places = _hypotheses(None, hint)[:2]
    else:
        return []
    skies = [_sky(night, place.site, 0.0) for place in places]
    if any(sky.is_night for sky in skies):
        return []
    sky, place = min(zip(skies, places, strict=True), key=lambda one: one[0].wrong)
    wrong = []
    if sky.highest_sun_deg > SUN_UP_DEG:
        wrong.append(f"the Sun stands at up to {sky.highest_sun_deg:+.0f} deg")
    if sky.lowest_target_deg is not None and sky.lowest_target_deg < 0:
        wrong.append(f"the target down to {sky.lowest_target_deg:+.0f} deg")
    if not wrong:
        return []
    about = "sun" if sky.highest_sun_deg > SUN_UP_DEG else "horizon"
    words = f"{' and '.join(wrong)} ({_place(place.site)}) when DATE-OBS is taken as UT"
    clocks = [
        claim
        for claim in claims
        if claim.raw in night.index
        and not (claim.sidereal_h is None and claim.hour_angle_h is None)
    ]
    return [_warning(about, f"{words}: {_what_puts_it_right(night, clocks, places)}")]


def _what_puts_it_right(
    night: _Night, clocks: Sequence[HeaderClaims], places: Sequence[_Hypothesis]
) -> str:
    """Return which zone or sign would; none that every card of `clocks` contradicts."""
    excluded: set[str] = set()  # names of the cards that speak against something

    def is_allowed(site: Site, add_h: float) -> bool:
        told = [one for one in _testimony(night, clocks, site, add_h) if one.unit == "h"]
        if not told or any(one.fits for one in told):
            return True
        excluded.update(f"{one.name} ({one.card})" for one in told)
        return False

    fitting: list[tuple[float, float, _Hypothesis]] = []
    for place in places:
        of_longitude_h = ((place.site.longitude_deg + 180) % 360 - 180) / 15
        for zone_h in ZONES_H:
            if (
                zone_h
                and _sky(night, place.site, -zone_h).is_dark_and_up
                and is_allowed(place.site, -zone_h)
            ):
                fitting.append((abs(zone_h - of_longitude_h), zone_h, place))
    at_home = sorted(
        (one for one in fitting if one[0] <= ZONE_FROM_LONGITUDE_H), key=lambda one: one[0]
    )
    at_home = [one for one in at_home if one[1] % 1 == 0] or at_home  # half hours are rare
    said = []
    if len(places) == 1:
        flipped = replace(places[0].site, longitude_deg=-places[0].site.longitude_deg)
        if _sky(night, flipped, 0.0).is_dark_and_up and is_allowed(flipped, 0.0):
            said.append(f"with the longitude's sign changed ({flipped.longitude_deg:+.4f}) it fits")
    if at_home:
        zones = " or ".join(list(dict.fromkeys(_zone(one[1]) for one in at_home))[:MAX_NAMED])
        _, zone_h, place = at_home[0]
        sky = _sky(night, place.site, -zone_h)
        up = ""
        if sky.lowest_target_deg is not None:
            up = f" and the target no lower than {sky.lowest_target_deg:.0f}"
        said.append(
            f"taken as local time ({zones}) it fits: as {_zone(zone_h)} the Sun is no higher than"
            f" {sky.highest_sun_deg:.0f} deg{up}"
        )
    if said:
        return "; or ".join(said)
    if fitting:
        zones = ", ".join(dict.fromkeys(_zone(zone_h) for _, zone_h, _ in fitting))
        return f"no time zone of the site puts it right ({zones} would): site or clock wrong"
    if excluded:
        cards = " and ".join(sorted(excluded))
        return f"nothing that {cards} would allow puts it right: site, clock or card wrong"
    return "no time zone puts it right: site or clock wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class _SkyThen:
    highest_sun_deg: float
    lowest_target_deg: float | None

    @property
    def is_night(self) -> bool:
        down = self.lowest_target_deg is not None and self.lowest_target_deg < 0
        return self.highest_sun_deg <= SUN_UP_DEG and not down

    @property
    def is_dark_and_up(self) -> bool:
        low = self.lowest_target_deg is not None
        return self.highest_sun_deg <= SUN_DARK_DEG and not (
            low and (self.lowest_target_deg or 0.0) < HEADER_MIN_ALTITUDE_DEG
        )

    @property
    def wrong(self) -> float:
        """By how many degrees Sun and target are on the wrong side."""
        low = 0.0 if self.lowest_target_deg is None else max(0.0, -self.lowest_target_deg)
        return max(0.0, self.highest_sun_deg - SUN_UP_DEG) + low


def _sky(night: _Night, site: Site, add_h: float) -> _SkyThen:
    """Return Sun and target from a place, with `add_h` added to the times; of up to nine frames."""
    some = np.unique(np.linspace(0, len(night.frames) - 1, 9).astype(int))
    moments = night.middle[some] + TimeDelta(np.full(len(some), 3600.0 * add_h), format="sec")
    frame = AltAz(obstime=moments, location=earth_location(site), pressure=0 * u.hPa)
    place = night.place
    lowest = None
    if place is not None:
        lowest = float(np.min(place.transform_to(frame).alt.deg))
    return _SkyThen(
        highest_sun_deg=float(np.max(get_sun(moments).transform_to(frame).alt.deg)),
        lowest_target_deg=lowest,
    )


# -------------------------------------------------------------------------------------- time cards


def _cards(night: _Night, claims: Sequence[HeaderClaims], site: Site | None) -> list[Finding]:
    """Return the time cards that contradict the start that is gone by."""
    by_card: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    sources: dict[str, None] = {}
    for claim in claims:
        if claim.raw not in night.index:
            continue
        sources |= {claim.start_card or "?": None}
        for time in claim.times:
            if time.card != claim.start_card:
                departure_s = _departure_s(night, claim, time)
                if departure_s is not None:
                    by_card[time.card, time.moment].append((departure_s, time.resolution_s))
    gone_by = "/".join(sources)
    found = []
    for (card, moment), departures in by_card.items():
        # a card that is wrong on one frame only is named by the frame that departs most
        departure_s, resolution_s = max(departures, key=lambda one: abs(one[0]))
        if moment == "local":
            departure_s, resolution_s = departures[0]
            found += _local(card, departure_s, gone_by, site)
        else:
            found += _universal(card, moment, departure_s, resolution_s, gone_by)
    return found


def _departure_s(night: _Night, claim: HeaderClaims, time: TimeClaim) -> float | None:
    """Return by how much a card is later than it should be; None when that cannot be said."""
    index = night.index[claim.raw]
    start_jd = float(calendar_jd(night.start[index]))
    exposure_s = night.exposure_s[index]
    if time.moment == "local":
        return (time.jd - start_jd) * SECONDS_PER_DAY
    if time.moment in ("heliocentric", "barycentric"):
        place = night.place
        if claim.ra_deg is not None and claim.dec_deg is not None:
            place = SkyCoord(claim.ra_deg, claim.dec_deg, unit="deg")
        if place is None:
            return None
        edges = frame_times(
            [night.frames[index].start_utc or ""] * 3,
            [0.0, exposure_s, 2 * exposure_s],
            ra_deg=float(place.ra.deg),
            dec_deg=float(place.dec.deg),
            # from anywhere on Earth it is the same to 0.02 s
            site=Site(latitude_deg=0.0, longitude_deg=0.0),
        )
        should = edges.hjd_utc if time.moment == "heliocentric" else edges.bjd_tdb
        return _least((time.jd - np.asarray(should)) * SECONDS_PER_DAY)
    since_s = (time.jd - start_jd) * SECONDS_PER_DAY
    if time.moment == "end":
        return since_s - exposure_s
    since = since_s - np.array([0.0, 0.5, 1.0]) * exposure_s
    # hours off, the moment that makes them whole ones is the one that is meant
    far = np.abs(since) > 1200.0
    return float(
        since[
            np.argmin(np.where(far, np.abs(since - 1800 * np.round(since / 1800)), np.abs(since)))
        ]
    )


def _universal(
    card: str, moment: str, departure_s: float, resolution_s: float, gone_by: str
) -> list[Finding]:
    tolerance_s = {
        "end": END_TOLERANCE_S,
        "heliocentric": LIGHT_TIME_TOLERANCE_S,
        "barycentric": LIGHT_TIME_TOLERANCE_S,
    }.get(moment, CLOCK_TOLERANCE_S)
    if abs(departure_s) <= max(tolerance_s, resolution_s):
        return []
    about = f"{moment} Julian date" if moment.endswith("centric") else "time"
    words = (
        f"{card} is {_duration(abs(departure_s))} {'after' if departure_s > 0 else 'before'} the"
        f" {about} that goes with {gone_by}"
    )
    zone_h = _whole_hours(departure_s)
    if zone_h is not None:
        return [_warning("zone", f"{words}: one of them is local time, or of the wrong date")]
    is_loud = abs(departure_s) > LOUD_S and not moment.endswith("centric")
    return [_warning("cards", words) if is_loud else _note("cards", words)]


def _local(card: str, ahead_s: float, gone_by: str, site: Site | None) -> list[Finding]:
    """Return what is wrong about a local time that is `ahead_s` ahead of UT."""
    zone_h = round(ahead_s / 1800.0) / 2
    rest_s = ahead_s - 3600.0 * zone_h
    found = []
    if CLOCK_TOLERANCE_S < abs(rest_s) < 600.0:  # more is a zone of quarters, or anything
        words = f"{card} is {_zone(zone_h)} of {gone_by} but for {abs(rest_s):.0f} s"
        found.append(_note("cards", words))
    if site is None:
        return found
    east_h = ((site.longitude_deg + 180) % 360 - 180) / 15
    # the header's sign is not to be trusted here: whoever counts to the west is told elsewhere
    apart_h = min(abs(zone_h - east_h), abs(zone_h + east_h))
    if apart_h > ZONE_FROM_LONGITUDE_H:
        words = (
            f"{card} is {_zone(zone_h)} if {gone_by} is UT, but at longitude"
            f" {site.longitude_deg:+.1f} the Sun's clock is {_zone(round(east_h, 1))}: one of the"
            " two is not what it says"
        )
        found.append(_warning("zone", words))
    return found


def _whole_hours(seconds: float) -> float | None:
    """Return the hours, in halves, that a difference amounts to; None when to none."""
    hours = round(seconds / 1800.0) / 2
    if hours == 0 or abs(seconds - 3600.0 * hours) > WHOLE_HOURS_WITHIN_S:
        return None
    return hours


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.2f} h"


# -------------------------------------------------------------- order, files, the night's directory

_DIGITS = re.compile(r"\d+")
_SUFFIXES = re.compile(r"(\.(fits?|fts|fz|gz))+$", re.IGNORECASE)


def _order(frames: Sequence[RawFrame]) -> list[Finding]:
    """Return where DATE-OBS runs against the files' numbers, stands still or overlaps."""
    found = []
    for series in _series(frames):
        gaps_s = np.diff([_seconds(frame) for frame in series])
        back = np.flatnonzero(gaps_s < -1.0)
        if len(back) and len(back) <= max(1.0, MAX_DISORDER * len(gaps_s)):
            worst = int(back[np.argmin(gaps_s[back])])
            first, second = (_name(series[i]) for i in (worst, worst + 1))
            words = (
                f"{second} says it began {_duration(-float(gaps_s[worst]))} before {first}, which"
                f" its number comes after ({len(back)} of {len(gaps_s)} steps go backwards)"
            )
            usual_s = float(np.median(gaps_s[gaps_s > 0])) if (gaps_s > 0).any() else 0.0
            leap_s = usual_s - float(gaps_s[worst])
            if abs(leap_s - SECONDS_PER_DAY) < 3600.0:
                words += ": the date did not change at midnight?"
            elif _whole_hours(leap_s) is not None:
                words += ": the clock was set back?"
            found.append(_warning("order", words))
        elif len(back):
            words = f"{len(back)} of {len(gaps_s)} steps of DATE-OBS go against the files' numbers"
            found.append(_note("order", words))
    same: dict[str, list[str]] = defaultdict(list)
    for frame in frames:
        same[frame.start_utc or ""].append(_name(frame))
    twice = [names for names in same.values() if len(names) > 1]
    if twice:
        named = "; ".join(" and ".join(names[:MAX_NAMED]) for names in twice[:MAX_NAMED])
        words = f"{sum(map(len, twice))} frames share their start with another: {named}"
        found.append(_warning("order", words))
    starts = np.array([_seconds(frame) for frame in frames])
    by_time = np.argsort(starts, kind="stable")
    gaps_s = np.diff(starts[by_time])
    exposure_s = np.array([frame.exposure_s for frame in frames], dtype=float)[by_time][:-1]
    overlap = (gaps_s > 0) & (gaps_s < exposure_s - CLOCK_TOLERANCE_S)
    if overlap.any():
        words = (
            f"{int(overlap.sum())} of {len(gaps_s)} frames begin before the one before has ended,"
            f" by up to {_duration(float((exposure_s - gaps_s)[overlap].max()))}"
        )
        is_rule = overlap.sum() > len(gaps_s) / 2
        found.append(_warning("order", words) if is_rule else _note("order", words))
    return found


def _series(frames: Sequence[RawFrame]) -> Iterable[list[RawFrame]]:
    """Yield the frames whose names differ by one number only, in the order of that number."""
    alike: dict[tuple[str, str], list[RawFrame]] = defaultdict(list)
    for frame in frames:
        directory, _, name = frame.path.rpartition("/")
        stem = _SUFFIXES.sub("", name)
        alike[directory, _DIGITS.sub("#", stem)].append(frame)
    for members in alike.values():
        numbers = [
            [int(n) for n in _DIGITS.findall(_SUFFIXES.sub("", _name(frame)))] for frame in members
        ]
        varying = [i for i, column in enumerate(zip(*numbers, strict=True)) if len(set(column)) > 1]
        if len(members) >= MIN_FILES and len(varying) == 1:
            order = sorted(range(len(members)), key=lambda i: numbers[i][varying[0]])
            yield [members[i] for i in order]


def _file_times(frames: Sequence[RawFrame]) -> list[Finding]:
    """Return whether the files were written when DATE-OBS says, where their times say anything.

    Copies carry the time of the copy, all within minutes: these say nothing.
    """
    start_s = np.array([_seconds(frame) for frame in frames])
    written_s = np.array([frame.mtime_ns / 1e9 for frame in frames])
    span_s = float(np.ptp(start_s))
    if len(frames) < MIN_FILES or span_s <= 0 or np.ptp(written_s) < COPIED_PART * span_s:
        return []
    exposure_s = np.array([frame.exposure_s for frame in frames], dtype=float)
    late_s = written_s - start_s - exposure_s
    median_s = float(np.median(late_s))
    if np.median(np.abs(late_s - median_s)) > STEADY_FILES_S:
        return []
    if -CLOCK_TOLERANCE_S - END_TOLERANCE_S <= median_s <= LATE_FILES_S:
        return []
    when = "after" if median_s > 0 else "before"
    words = (
        f"the files were written steadily {_duration(abs(median_s))} {when} the end of their"
        " exposures"
    )
    zone_h = _whole_hours(median_s)
    if zone_h is not None:
        return [
            _warning(
                "files",
                f"{words}: DATE-OBS is local time ({_zone(-zone_h)}), or the files' times are",
            )
        ]
    return [_note("files", f"{words}: the camera's clock, or the disk's, was off")]


def _date(frames: Sequence[RawFrame], site: Site | None) -> list[Finding]:
    """Return whether the directory's date is one that the night can be called by."""
    longitude_deg = 0.0 if site is None else (site.longitude_deg + 180) % 360 - 180
    allowed = set()
    for frame in (frames[0], frames[-1]):
        start = dt.datetime.fromisoformat(frame.start_utc or "")
        # evening and morning by the Sun, with either sign of the longitude
        for sign in (1, -1):
            local = start + dt.timedelta(hours=sign * longitude_deg / 15)
            evening = (local - dt.timedelta(hours=12)).date()
            allowed |= {start.date(), evening, local.date()}
    date = frames[0].date
    if date in allowed:
        return []
    days = min((abs((one - date).days) for one in allowed), default=0)
    first = (frames[0].start_utc or "")[:16]
    return [
        _warning(
            "date", f"the night is called {date}, its first frame says {first} UT: {days} days off"
        )
    ]


def _seconds(frame: RawFrame) -> float:
    """Return the start in seconds since 1970."""
    start = dt.datetime.fromisoformat(frame.start_utc or "")
    return start.replace(tzinfo=dt.UTC).timestamp()


def _name(frame: RawFrame) -> str:
    return frame.path.rpartition("/")[2]
