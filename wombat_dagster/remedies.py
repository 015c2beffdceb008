"""What every status word means and what a person can do: the one home of causes and remedies.

The README's table of words lists the same ones (a test holds the two together); `wombat status`,
`wombat explain` and `wombat doctor` say them where they are met.
"""

import re
from dataclasses import dataclass

from wombat_dagster.domain import NOCAL, Apphot, Proc


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Why an observation has a status word, and what helps; `remedy` "" where nothing is to do."""

    cause: str
    remedy: str


_NO_SOLUTION = "not one frame could be plate-solved"
_NOT_SOLVED = Remedy(
    cause=_NO_SOLUTION,
    remedy="wombat doctor: is there a star database? Scale and position in the headers right?",
)

REMEDIES: dict[str, Remedy] = {
    NOCAL: Remedy(
        cause="no master of that shape, binning and camera (a flat: and filter) on any night",
        remedy="take some, on any night, or put masters into [calibration] library: it is then"
        " made again by itself",
    ),
    Proc.CALIBRATED: Remedy(cause="reduced, not yet solved", remedy=""),
    Proc.PARTIAL: Remedy(
        cause="some frames could not be solved and are left out (table WCS says why)", remedy=""
    ),
    Proc.SOLVED: Remedy(cause="all frames are solved", remedy=""),
    Proc.NOWCS: _NOT_SOLVED,
    Proc.NOFRAMES: Remedy(
        cause="no frame is usable: the reason, and table frame, say why",
        remedy="mend headers or directories, or say the filter in [[instrument]]",
    ),
    Apphot.NOWCS: _NOT_SOLVED,
    Apphot.NOSITE: Remedy(
        cause="no [site] in wombat.toml, and none in the headers that fits",
        remedy="say [site] in wombat.toml",
    ),
    Apphot.NOTIME: Remedy(
        cause="no frame says when it was taken", remedy="mend DATE-OBS in the headers"
    ),
    Apphot.BADSITE: Remedy(
        cause="the target stands below the horizon: site or time is wrong",
        remedy="check the longitude (east is positive) and whether DATE-OBS is UT",
    ),
    Apphot.VSXDOWN: Remedy(
        cause="VSX did not answer: parked, everything before is done",
        remedy="goes on by itself under wombat up; by hand: wombat retry --reason vsxdown",
    ),
    Apphot.NOVSX: Remedy(
        cause="VSX answered and does not know the name",
        remedy="[[target]] with vsx, or with ra_deg and dec_deg",
    ),
    Apphot.AMBIGUOUS: Remedy(
        cause="several stars of VSX could be meant", remedy="[[target]] with vsx"
    ),
    Apphot.NOVSP: Remedy(
        cause="VSP did not answer: parked, everything before is done",
        remedy="goes on by itself under wombat up; by hand: wombat retry --reason novsp",
    ),
    Apphot.NOCOMPS: Remedy(
        cause="VSP answered and no star of the chart is usable",
        remedy="wombat comps TARGET says why of each; [comps] window, [[target]] comps, shorter"
        " exposures",
    ),
    Apphot.OFFIMAGE: Remedy(
        cause="the variable lies outside the frames",
        remedy="is the directory named for the right star? Else point better",
    ),
    Apphot.BADPSF: Remedy(
        cause="no frame has a star that a profile can be fitted to",
        remedy="focus, clouds? [photometry] psf_peak_min_adu for short exposures",
    ),
    Apphot.NOSTD: Remedy(
        cause="measured, but no standard magnitude can be derived",
        remedy="the reason says what is missing",
    ),
    Apphot.HELD: Remedy(
        cause="the check star is not where its catalogue says, or scatters too much",
        remedy="look at light_curve.png and control_chart.png; wombat comps TARGET --ban, --check",
    ),
    Apphot.VALIDATE: Remedy(cause="done: waits for you", remedy="look at light_curve.png"),
}
"""By word of `proc` and `apphot`, and `nocal`. A word of both columns means the same in both."""


NOT_SOLVED_BY: dict[str, Remedy] = {
    "no_stars": Remedy(
        cause=f"{_NO_SOLUTION}: most show too few stars",
        remedy="clouds, focus, exposure? frames.html shows them; [solve] snr_min",
    ),
    "no_database": Remedy(
        cause=f"{_NO_SOLUTION}: no star database, or none for this field",
        remedy="wombat doctor says what is missing and how to get it",
    ),
    "no_match": Remedy(
        cause=f"{_NO_SOLUTION}: stars, but no pattern of the sky there",
        remedy="position and scale in the headers right? [[instrument]] pixel_scale_arcsec,"
        " [solve] radius_deg, blind",
    ),
    "timeout": Remedy(
        cause=f"{_NO_SOLUTION} in the time allowed",
        remedy="position and scale in the headers right? [astap] timeout_s gives ASTAP more time",
    ),
    "crashed": Remedy(
        cause=f"{_NO_SOLUTION}: the solver died, or left nothing",
        remedy="column message of table WCS; reinstall the solver",
    ),
    "bad_file": Remedy(
        cause=f"{_NO_SOLUTION}: the solver could not read the frames",
        remedy="column message of table WCS",
    ),
    "rejected": Remedy(
        cause=f"{_NO_SOLUTION}: what the solver found cannot be true",
        remedy="wrong scale in the header? [[instrument]] pixel_scale_arcsec",
    ),
}
"""Of `nowcs`, by the reason that most frames have (``WCS.reason``, as the words of it begin)."""

RETIRED = Remedy(
    cause="its frames are gone from the data",
    remedy="put them back and it goes on; what you decided is kept",
)
"""Of an observation that is retired, whatever its words."""

_COMMONEST = re.compile(r"0 of \d+ frames solved \((?P<reason>[a-z_]+)")  # stages.solving


def remedy_of(
    proc: str | None,
    apphot: str | None,
    *,
    reason: str | None = None,
    retired_utc: str | None = None,
) -> Remedy | None:
    """Return what is to be said of a status row; None before anything was begun.

    `apphot` comes after `proc` and says more. Of frames that were not solved the row's `reason`
    says why. A word that a person wrote has no remedy.
    """
    if retired_utc is not None:
        return RETIRED
    word = apphot or proc or ""
    if word == Apphot.NOWCS and (found := _COMMONEST.match(reason or "")):
        return NOT_SOLVED_BY.get(found["reason"], _NOT_SOLVED)
    return REMEDIES.get(word)
