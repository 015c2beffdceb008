"""``wombat curve``: the light curve of a star over all nights, as picture, table and report."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wombat_dagster.terminal import (
    Refused,
    console,
    count,
    open_in_force,
    parse_night,
    printable,
    quoted,
    table_of,
)

if TYPE_CHECKING:
    import datetime as dt

    from rich.console import Console

    from wombat_dagster.observatory import Observatory
    from wombat_dagster.reports.curve_plot import Fold
    from wombat_dagster.reports.star_curve import CurveNight, StarCurve

SUFFIXES = {".png": "png", ".csv": "csv", ".ecsv": "ecsv", ".xml": "votable", ".vot": "votable"}
ENDINGS = {"png": ".png", "csv": ".csv", "ecsv": ".ecsv", "votable": ".vot"}
PER_OBSERVATION = ("transit", "exoplanet")
DEFAULT_FORMATS = ("png", "csv")
MAX_NIGHTS_SHOWN = 60


@click.command()
@click.argument("star")
@click.option("--filter", "filters", multiple=True, metavar="F", help="Filter or band; may repeat.")
@click.option("--from", "first", metavar="DATE", help="First night.")
@click.option("--to", "last", metavar="DATE", help="Last night.")
@click.option("--phase", is_flag=True, help="Fold with the period.")
@click.option(
    "--include-rejected",
    is_flag=True,
    help="Tables hold what is proposed to be rejected, and held nights, too.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice([*ENDINGS, *PER_OBSERVATION]),
    help="May repeat; default: png and csv. transit: for a fit, exoplanet: the AAVSO's report.",
)
@click.option("--planet", metavar="NAME", help="Of the exoplanet report, WASP-12 b.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="File ending in .png, .csv, .ecsv, .vot or .xml, or a directory; "
    "default: curves/ in the products.",
)
def curve(
    star: str,
    filters: tuple[str, ...],
    first: str | None,
    last: str | None,
    phase: bool,
    include_rejected: bool,
    formats: tuple[str, ...],
    planet: str | None,
    out: Path | None,
) -> None:
    """Show STAR over all nights: by name, VSX number (OID), AUID, directory, or RA,DEC.

    The position is in degrees, or sexagesimal with RA in hours; put "--" before one that begins
    with a minus sign.
    """
    days = [None if text is None else parse_night(text) for text in (first, last)]
    if days[0] and days[1] and days[0] > days[1]:
        raise Refused(f"the first night {days[0]} is after the last {days[1]}")
    directory, formats, file = _destination(out, formats)
    observatory = open_in_force()
    database = observatory.settings.path(observatory.settings.database)
    if not database.exists():
        raise Refused(f"nothing is known yet (no {database}): wombat run")
    from wombat_dagster.stages.curve import (
        NoCurve,
        curve_of,
        file_stem,
        find_star,
        fold_of,
        known_observations,
    )

    try:
        known = known_observations(observatory)
        found = find_star(known, star)
        points = curve_of(observatory, known, found, filters=filters, first=days[0], last=days[1])
        fold = fold_of(observatory, points) if phase else None
    except NoCurve as nothing:
        raise Refused(printable(str(nothing))) from nothing
    shown = console()
    _print_curve(shown, points, fold)
    stem = "_".join([file_stem(known, found), *_selection(filters, days, phase=phase)])
    place = directory or observatory.layout.products / "curves"
    writer = _Writer(
        observatory=observatory,
        curve=points,
        fold=fold,
        include_rejected=include_rejected,
        planet=planet,
    )
    for kind in formats:
        for name, content in writer.files(kind, stem):
            path = file or place / name
            _write(path, content)
            shown.print(f"{kind}: {quoted(path)}", soft_wrap=True)
    if not include_rejected and points.doubtful.any() and set(formats) & {"csv", "ecsv", "votable"}:
        n = count(int(points.doubtful.sum()), "point")
        shown.print(f"Left out of the table: {n} (--include-rejected puts them in).")


def _destination(
    out: Path | None, formats: tuple[str, ...]
) -> tuple[Path | None, tuple[str, ...], Path | None]:
    """Return directory, formats and file that are asked for; refuse what does not go together."""
    formats = tuple(dict.fromkeys(formats))
    if out is None:
        return None, formats or DEFAULT_FORMATS, None
    kind = SUFFIXES.get(out.suffix.lower())
    if out.is_dir() or (not out.suffix and formats):
        return out, formats or DEFAULT_FORMATS, None
    if kind is None:
        raise Refused(
            f"{out} ends in none of {', '.join(SUFFIXES)}, and is no directory: --format says what"
            " goes into a new one"
        )
    if formats and formats != (kind,):
        raise Refused(f"{out.name} is a file of format {kind}, asked for is {', '.join(formats)}")
    return None, (kind,), out


def _selection(
    filters: tuple[str, ...], days: "Sequence[dt.date | None]", *, phase: bool
) -> list[str]:
    """Return what tells the files of a part of the curve from those of the whole."""
    from wombat_dagster.domain import slug

    words = [slug(name) for name in filters]
    if any(days):
        words.append("-".join(f"{day:%Y%m%d}" if day else "" for day in days))
    return words + (["phase"] if phase else [])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Makes the files of one curve."""

    observatory: "Observatory"
    curve: "StarCurve"
    fold: "Fold | None"
    include_rejected: bool
    planet: str | None

    @property
    def software(self) -> str:
        """What the files say that they were written by."""
        from importlib.metadata import version

        return f"wombat {version('wombat-dagster')}"

    def files(self, kind: str, stem: str) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of each file; refuse what cannot be made."""
        from wombat_dagster.reports.exoplanet import NoReport
        from wombat_dagster.stages.curve import NoCurve

        if kind not in PER_OBSERVATION:
            yield stem + ENDINGS[kind], self._whole(kind)
            return
        ending = "dat" if kind == "transit" else "txt"
        make = self._transit if kind == "transit" else self._exoplanet
        made: list[tuple[str, bytes]] = []
        refused: list[str] = []
        for night in self.curve.nights:
            try:
                made.append((f"{night.key}_{kind}.{ending}", make(night).encode()))
            except (NoCurve, NoReport) as nothing:
                refused.append(printable(str(nothing)))
        if not made:
            raise Refused("; ".join(refused))
        for words in refused:
            click.echo(f"not written: {words}", err=True)
        yield from made

    def _whole(self, kind: str) -> bytes:
        from wombat_dagster.reports import export
        from wombat_dagster.reports.curve_plot import curve_png

        if kind == "png":
            return curve_png(self.curve, fold=self.fold)
        kept = self.curve
        if not self.include_rejected:
            kept = kept.where(~kept.doubtful)
        phase = None if self.fold is None else self.fold.phase(kept.hjd_utc)
        if kind == "csv":
            return export.to_csv(kept, phase=phase).encode()
        table = export.curve_table(
            kept,
            software=self.software,
            phase=phase,
            folded=None if self.fold is None else self.fold.words,
        )
        return export.to_ecsv(table).encode() if kind == "ecsv" else export.to_votable(table)

    def _transit(self, night: "CurveNight") -> str:
        from wombat_dagster.reports.export import transit_text
        from wombat_dagster.stages.curve import transit_flux

        flux = transit_flux(self.observatory, night, keep_rejected=self.include_rejected)
        return transit_text(
            flux,
            star=self.curve.variable.name,
            observation=night.key,
            software=self.software,
            instrument=night.camera,
        )

    def _exoplanet(self, night: "CurveNight") -> str:
        from wombat_dagster.reports.exoplanet import exoplanet_report
        from wombat_dagster.stages.curve import transit_facts, transit_flux

        facts = transit_facts(
            self.observatory,
            night,
            self.curve.variable,
            planet=self.planet,
            software=self.software,
        )
        flux = transit_flux(self.observatory, night, keep_rejected=self.include_rejected)
        return exoplanet_report(facts, flux)


def _write(path: Path, content: bytes) -> None:
    from wombat_dagster.store.frames import write_bytes_atomic

    try:
        write_bytes_atomic(path, content)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror or error}") from error


# ------------------------------------------------------------------------------------ the terminal


def _print_curve(out: "Console", curve: "StarCurve", fold: "Fold | None") -> None:
    import numpy as np

    star = curve.variable
    known = (
        f"OID {star.oid}" if star.oid else f"{star.ra_deg:.5f},{star.dec_deg:+.5f}",
        star.variability_type,
        f"P = {star.period_d:.8g} d" if star.period_d else None,
    )
    out.print(f"{printable(star.name)} ({', '.join(filter(None, known))})")
    if fold is not None:
        out.print(f"Folded with {fold.words}.")
    table = table_of(
        "Night", "Filter", "Points", "Median", "Random", "ZP err", "T2 off", "TRANS", "Status"
    )
    table.columns[0].no_wrap = True
    skipped = max(0, len(curve.nights) - MAX_NIGHTS_SHOWN)
    for number, night in enumerate(curve.nights):
        if number < skipped:
            continue
        mine = curve.night_index == number
        measured = mine & ~curve.upper_limit & np.isfinite(curve.mag)
        table.add_row(
            night.date.isoformat(),
            night.filter if night.filter == night.band else f"{night.filter} ({night.band})",
            _points_words(curve, mine),
            _rounded(np.median, curve.mag[measured]),
            _rounded(np.nanmedian, curve.random_mag[measured]),
            f"{night.zp_err_mag:.3f}",
            "–" if night.check_offset_mag is None else f"{night.check_offset_mag:+.3f}",
            "YES" if night.transformed else "NO",
            "held" if night.is_held else printable(night.status),
        )
    out.print(table)
    if skipped:
        out.print(f"{count(skipped, 'earlier observation')} not shown; the files hold all.")
    for night in curve.nights:
        if night.held_reason:
            out.print(f"Held: {night.key} – {printable(night.held_reason)}")
    if curve.left_out:
        out.print("Left out:")
        for one in curve.left_out:
            out.print(f"  {one.key}: {printable(one.words)} – {printable(one.reason)}")


def _points_words(curve: "StarCurve", mine: "object") -> str:
    import numpy as np

    there = np.asarray(mine)
    limits = int(curve.upper_limit[there].sum())
    rejected = sum(bool(curve.proposed_rejected[i]) for i in np.flatnonzero(there))
    words = [f"{int(there.sum())}"]
    words += [f"{limits} <"] if limits else []
    words += [f"{rejected} rej."] if rejected else []
    return ", ".join(words)


def _rounded(middle: "Callable", values: "object") -> str:
    import numpy as np

    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    return f"{middle(known):.3f}" if len(known) else "–"
