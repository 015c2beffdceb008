"""``wombat transform``: transformation coefficients from standard fields and files."""

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
    from collections.abc import Sequence

    from wombat_dagster.domain import Coefficient
    from wombat_dagster.observatory import Observatory
    from wombat_dagster.stages.transform import StandardField

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("night", required=False)
@click.argument("target", required=False)
@click.option("--standards", type=FILE, help="CSV of standard stars; else VSP's standard field.")
@click.option("--dry-run", is_flag=True, help="Fit and show, store nothing.")
@click.option("--import", "ini", type=FILE, help="AAVSO TransformGenerator's .ini file to import.")
@click.option("--camera", help="Part of INSTRUME that --import, --forget or --list are about.")
@click.option("--list", "listing", is_flag=True, help="Show what is stored, and what counts.")
@click.option("--forget", metavar="SOURCE", help='Forget a source as --list shows it: "fit M67".')
def transform(
    night: str | None,
    target: str | None,
    standards: Path | None,
    dry_run: bool,
    ini: Path | None,
    camera: str | None,
    listing: bool,
    forget: str | None,
) -> None:
    """Fit transformation coefficients to the frames of a standard field, or import them.

    NIGHT and TARGET name the observations, 20251015 M67, which have been reduced and solved. With
    --import or --forget, NIGHT alone is the night from which, or of which, the coefficients are.
    """
    if sum((target is not None, ini is not None, listing, forget is not None)) != 1:
        raise Refused("say NIGHT and TARGET, or one of --import, --list and --forget")
    if (standards or dry_run) and target is None:
        raise Refused("--standards and --dry-run go with NIGHT and TARGET")
    date = parse_night(night) if night is not None else None
    observatory = open_in_force()
    if target is not None and date is not None:
        _fit(observatory, date, target, standards, dry_run)
    elif ini is not None:
        _import(observatory, ini, camera, date)
    elif forget is not None:
        _forget(observatory, forget, camera, date)
    else:
        _list(observatory, camera)


def _fit(
    observatory: "Observatory",
    date: "dt.date",
    target: str,
    standards: Path | None,
    dry_run: bool,
) -> None:
    from wombat_dagster.domain import VspUnavailable
    from wombat_dagster.stages.transform import NoTransform, fit_standard_field, keep
    from wombat_dagster.store.standard_stars import UnreadableStandards

    try:
        field = fit_standard_field(observatory, date, target, standards=standards)
    except VspUnavailable as away:
        raise Refused(
            f"{away}; try again later, or name a table of standard stars with --standards"
        ) from away
    except (NoTransform, UnreadableStandards) as reason:
        raise Refused(printable(str(reason))) from reason
    _show_field(field)
    if dry_run:
        click.echo("Nothing is stored (--dry-run).")
    else:
        files = keep(observatory, field)
        click.echo(f'Stored as source "fit {printable(field.target)}". Written:')
        for file in files:
            click.echo(f"  {quoted(file)}")
        _show_pools(observatory, field.camera, date)
    if not field.panels:
        raise Refused("not one coefficient could be fitted")


def _show_field(field: "StandardField") -> None:
    out = console()
    click.echo(
        f"{printable(field.target)} {field.date}, {printable(field.camera or 'camera not known')}: "
        f"{count(len(field.stars), 'standard star')} of {printable(field.standards)} on the frames"
    )
    table = table_of("coefficient", "value", "error", "stars", "r²", "scatter", "line", wide="line")
    for panel in field.panels:
        one = panel.coefficient
        table.add_row(
            one.name,
            f"{one.value:+.4f}",
            f"{one.error:.4f}",
            f"{one.n_stars}/{len(panel.names)}",
            f"{one.r_squared:.3f}",
            f"{panel.scatter_mag:.3f}",
            f"{panel.ordinate_words} against {panel.colour_words}",
        )
    if field.panels:
        out.print(table)
    for name, words in field.refusals.items():
        click.echo(f"{name}: {words}")
    ledger = table_of("star", "V", "left out of", "why", wide="why")
    for star in field.stars:
        lost = [
            (band, words)
            for band, mag, words in zip(star.bands, star.mags, star.words, strict=True)
            if mag != mag  # NaN
        ]
        v_mag = f"{star.v_mag:.2f}" if star.v_mag == star.v_mag else ""
        for band, words in lost:
            ledger.add_row(printable(star.name), v_mag, band, words)
        if star.left_out:
            ledger.add_row(printable(star.name), v_mag, " ".join(star.left_out), "off the line")
    if ledger.row_count:
        out.print(ledger)
    for note in field.notes:
        click.echo(printable(note))


def _import(
    observatory: "Observatory", file: Path, camera: str | None, date: "dt.date | None"
) -> None:
    import datetime as dt

    from wombat_dagster.stages.coefficients import FIT, is_part, known_cameras
    from wombat_dagster.store.coefficients import (
        forget_coefficients,
        record_coefficients,
        stored_coefficients,
    )
    from wombat_dagster.store.tg_ini import UnreadableIni, read_tg_ini

    source = file.name
    if source.startswith(FIT):
        raise Refused(f'{source}: a name that begins with "{FIT}" is kept for our own fits')
    camera = _one_camera(sorted(known_cameras(observatory)), camera)
    content = file.read_bytes()
    try:
        found = read_tg_ini(content, source=source, camera=camera, date=date)
        day = date or found.created or dt.datetime.now(dt.UTC).date()
        found = read_tg_ini(content, source=source, camera=camera, date=day)
    except UnreadableIni as reason:
        raise Refused(printable(str(reason))) from reason
    for said in {one.camera or "" for one in stored_coefficients(observatory.status)}:
        if is_part(said, camera):  # what an import before this one knew of the same camera
            forget_coefficients(observatory.status, source, camera=said)
    record_coefficients(observatory.status, found.coefficients)
    if found.description:
        click.echo(printable(found.description))
    _show_rows(found.coefficients)
    where = printable(camera) if camera else "the camera, as long as there is one only"
    click.echo(f"They hold for {where}, in the instrument epoch of {day} (NIGHT says another).")
    _show_left_out(observatory, camera, day)
    for note in (*found.warnings, *found.notes):
        click.echo(printable(note))
    if found.extinction:
        words = ", ".join(f"{key} = {text}" for key, text in found.extinction.items())
        click.echo(f"[Extinction] is not taken, [[instrument]] extinction is: {printable(words)}")


def _one_camera(known: "Sequence[str]", asked: str | None) -> str | None:
    """Return the camera that a file is of: INSTRUME where frames are known, else what was asked."""
    meant = [one for one in known if (asked or "").casefold() in one.casefold()]
    exact = [one for one in meant if one.casefold() == (asked or "").casefold()]
    if len(exact or meant) > 1:
        names = ", ".join(printable(one) for one in meant)
        raise Refused(f"a file is of one camera, {len(meant)} are meant: {names}; --camera says it")
    if known and asked and not meant:
        click.echo(f"No frame of a camera with {printable(asked)} in its name is known yet.")
    return next(iter(exact or meant), asked)


def _forget(
    observatory: "Observatory", source: str, camera: str | None, date: "dt.date | None"
) -> None:
    from wombat_dagster.stages.coefficients import is_part
    from wombat_dagster.store.coefficients import forget_coefficients, stored_coefficients

    cameras = {
        one.camera or ""
        for one in stored_coefficients(observatory.status)
        if one.source == source and (camera is None or is_part(camera, one.camera))
    }
    gone = sum(
        forget_coefficients(observatory.status, source, camera=one, date=date) for one in cameras
    )
    if not gone:
        raise Refused(f'nothing of source "{source}" is stored; wombat transform --list')
    click.echo(f"{count(gone, 'coefficient')} forgotten; wombat run makes the magnitudes anew.")


def _list(observatory: "Observatory", camera: str | None) -> None:
    from wombat_dagster.stages.coefficients import is_part, known_cameras
    from wombat_dagster.store.coefficients import stored_coefficients

    stored = [
        one
        for one in stored_coefficients(observatory.status)
        if (camera or "").casefold() in (one.camera or "").casefold()
    ]
    if not stored:
        click.echo("No coefficients are stored; wombat transform NIGHT TARGET fits some.")
        return
    _show_rows(stored)
    known = known_cameras(observatory)
    units: set[tuple[str | None, dt.date]] = set()
    for one in stored:
        if one.date is not None:
            of_known = {(name, one.date) for name in known if is_part(one.camera, name)}
            units |= of_known or {(one.camera, one.date)}
    seen = set()
    for camera_name, date in sorted(units, key=lambda unit: (unit[0] or "", unit[1])):
        epoch = observatory.settings.for_camera(camera_name).epoch_of(date)
        if (camera_name, epoch) not in seen:
            seen.add((camera_name, epoch))
            _show_pools(observatory, camera_name, date)


def _show_rows(coefficients: "Sequence[Coefficient]") -> None:
    table = table_of("coefficient", "value", "error", "stars", "r²", "night", "source", "camera")
    for one in coefficients:
        table.add_row(
            one.name,
            f"{one.value:+.4f}",
            "" if one.error is None else f"{one.error:.4f}",
            "" if one.n_stars is None else str(one.n_stars),
            "" if one.r_squared is None else f"{one.r_squared:.3f}",
            "" if one.date is None else one.date.isoformat(),
            printable(one.source),
            printable(one.camera or "not said"),
        )
    console().print(table)


def _show_pools(observatory: "Observatory", camera: str | None, date: "dt.date") -> None:
    """Print what counts for a camera in the epoch of a night, with what is odd about it."""
    from wombat_dagster.stages.coefficients import KnownCoefficients

    instrument = observatory.settings.for_camera(camera)
    epoch = instrument.epoch_of(date)
    known = KnownCoefficients(observatory)
    since = f" since {epoch}" if epoch else ""
    click.echo(f"What counts for {printable(camera or 'the camera')}{since}:")
    table = table_of("coefficient", "value", "error", "of")
    for name, value in instrument.transform.items():
        error = instrument.transform_error.get(name)
        cell = "" if error is None else f"{error:.4f}"
        table.add_row(name, f"{value:+.4f}", cell, "configuration")
    for name, one in known.pooled(camera, date).items():
        if name not in instrument.transform:
            table.add_row(name, *_pool_cells(one))
    console().print(table)
    for words in known.drift(camera, date):
        click.echo(printable(words))
    _show_left_out(observatory, camera, date)


def _show_left_out(observatory: "Observatory", camera: str | None, date: "dt.date") -> None:
    from wombat_dagster.stages.coefficients import coefficients_of

    for words in coefficients_of(observatory, camera, date).left_out:
        click.echo(f"not used: {printable(words)}")


def _pool_cells(one: "Coefficient") -> tuple[str, str, str]:
    error = "" if one.error is None else f"{one.error:.4f}"
    nights = count(one.n_nights, "night") if one.n_nights > 1 else printable(one.source)
    return f"{one.value:+.4f}", error, nights
