"""A small world to run wombat on: nights of one field, star tables, the AAVSO's answers.

`demo_world` writes everything that a run needs but the configuration file, whose text `World.toml`
gives once the addresses of the services' stand-in are known.
"""

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path

from wombat_dagster.domain import Site, slug
from wombat_dagster.simulate.astap_database import write_astap_database
from wombat_dagster.simulate.night import NightTruth, simulate_night
from wombat_dagster.simulate.sky import (
    Field,
    Telescope,
    random_field,
    star_table,
    vsp_chart,
    vsx_object,
    write_star_table_csv,
)

FIRST_NIGHT = dt.date(2025, 10, 14)
SITE = Site(latitude_deg=41.31, longitude_deg=-72.92, elevation_m=50.0, source="simulation")
EXPOSURE_S = {"B": 120.0, "V": 60.0}
CADENCE_S = 270.0  # spread the frames over some hours: a light curve with a shape
CATALOGUE_RADIUS_DEG = 1.0  # of the star database; all stars of the field lie within


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What `demo_world` made; all paths lie under `root`."""

    root: Path
    field: Field
    telescope: Telescope
    site: Site
    truths: tuple[NightTruth, ...]
    star_table: Path
    astap_database: Path
    aavso: Path

    def toml(self, *, vsx_urls: tuple[str, ...] = (), vsp_urls: tuple[str, ...] = ()) -> str:
        """Return the text of the ``wombat.toml`` that belongs into `root`.

        With addresses, the services are asked there, and without waiting between requests.
        """
        transform = "\n".join(
            f"{name} = {value:g}" for name, value in self.telescope.transform_coefficients.items()
        )
        text = f"""\
# Written by wombat's simulator: an invented telescope that looks at an invented field.
data = "data"
products = "products"
database = "wombatpipeline.db"
cache = "cache"

[site]
latitude_deg = {self.site.latitude_deg}
longitude_deg = {self.site.longitude_deg}
elevation_m = {self.site.elevation_m}

[observer]
code = "WOMB"

[[instrument]]
camera = "{self.telescope.camera}"
read_noise_e = {self.telescope.read_noise_e}
aperture_m = {self.telescope.aperture_m}

[instrument.filters]
B = "B"
V = "V"

[instrument.transform]
{transform}

[solve]
star_table = "{self.star_table.relative_to(self.root).as_posix()}"

[astap]
database = "{self.astap_database.relative_to(self.root).as_posix()}"
"""
        if vsx_urls or vsp_urls:
            text += f"""
[aavso]
vsx_urls = {json.dumps(list(vsx_urls))}
vsp_urls = {json.dumps(list(vsp_urls))}
min_interval_s = 0.0
"""
        return text


def demo_world(
    root: Path,
    *,
    nights: int = 2,
    seed: int = 1,
    width_px: int = 768,
    height_px: int = 512,
    n_lights: int = 22,
    n_calibrations: int = 6,
) -> World:
    """Write `nights` consecutive nights of an RR Lyrae star in B and V under `root`.

    Every night has flats, only the first has biases: the others live on the closest. `n_lights` and
    the `n_calibrations` flats are per filter. Besides ``data`` and ``truth``:
    ``catalogs/stars.csv`` (for the embedded solver), ``catalogs/astap`` (for ASTAP) and
    ``aavso/vsx_object_<NAME>.json``, ``aavso/vsp_chart_<NAME>.json``.
    """
    telescope = Telescope(width_px=width_px, height_px=height_px)
    field = random_field(seed, telescope=telescope)
    truths = tuple(
        simulate_night(
            root,
            field=field,
            telescope=telescope,
            date=FIRST_NIGHT + dt.timedelta(days=night),
            site=SITE,
            seed=1000 * seed + night,
            filters=tuple(EXPOSURE_S),
            n_lights=n_lights,
            n_bias=n_calibrations if night == 0 else 0,
            n_flats=n_calibrations,
            exposure_s=EXPOSURE_S,
            cadence_s=CADENCE_S,
        )
        for night in range(nights)
    )
    stars_csv, astap, aavso = root / "catalogs/stars.csv", root / "catalogs/astap", root / "aavso"
    write_star_table_csv(field, stars_csv)
    stars = star_table(field)
    write_astap_database(
        astap,
        stars.ra_deg,
        stars.dec_deg,
        stars.mag,
        field=(field.ra_deg, field.dec_deg, CATALOGUE_RADIUS_DEG),
    )
    write_aavso_answers(field, aavso)
    return World(
        root=root,
        field=field,
        telescope=telescope,
        site=SITE,
        truths=truths,
        star_table=stars_csv,
        astap_database=astap,
        aavso=aavso,
    )


def write_aavso_answers(field: Field, directory: Path) -> None:
    """Write what VSX and VSP answer about `field` as JSON files named for the variable."""
    directory.mkdir(parents=True, exist_ok=True)
    name = slug(field.name)
    for stem, answer in (
        ("vsx_object", vsx_object(field)),
        ("vsp_chart", vsp_chart(field, fov_arcmin=120.0)),
    ):
        text = json.dumps(answer, indent=1, ensure_ascii=False) + "\n"
        (directory / f"{stem}_{name}.json").write_text(text, encoding="utf-8")
