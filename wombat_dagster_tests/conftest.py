"""A small simulated sky, made once per session, and places to run the whole of wombat in.

A `Place` has its own data directory (hard links to the session's frames, or changed copies), its
own configuration, database, Dagster instance and stand-in for the AAVSO services. The plate solver
is the embedded one, so that the tests say the same with and without ASTAP.
"""

import contextlib
import datetime as dt
import hashlib
import json
import os
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

# The tests run in two processes: more threads than cores would only wait for each other. Before
# NumPy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import dagster as dg
import hypothesis
import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster import config, runs
from wombat_dagster.observatory import open_observatory
from wombat_dagster.products import read_product
from wombat_dagster.simulate.aavso import Service, StandInAavso
from wombat_dagster.simulate.night import simulate_night
from wombat_dagster.simulate.sky import (
    Telescope,
    random_field,
    star_table,
    vsp_chart,
    vsx_object,
    write_star_table_csv,
)
from wombat_dagster.simulate.world import SITE
from wombat_dagster.store.layout import is_raw_name

hypothesis.settings.register_profile("wombat", deadline=None)  # the machine may be busy
hypothesis.settings.load_profile("wombat")

FIRST_NIGHT = dt.date(2025, 10, 14)
SECOND_NIGHT = dt.date(2025, 10, 15)
NO_PROGRAM = "/nowhere/astap_cli"


@dataclass(frozen=True, kw_only=True)
class Sky:
    """The simulated nights: 20251014 in B and V with biases and flats, 20251015 in V without bias.

    `data` is never written to.
    """

    data: Path
    star_table: Path
    field: object
    telescope: Telescope
    truths: dict

    @property
    def lights_v(self):
        """The V lights of the first night, in time order."""
        return sorted(self.data.glob("20251014/Light/*/*V.fit"))

    @property
    def good_comps(self):
        """AUIDs of comps with nothing special about them, brightest first."""
        plain = [comp for comp in self.field.comps if comp.auid not in self.field.kinds]
        return [comp.auid for comp in sorted(plain, key=lambda comp: comp.mags["V"])]


@pytest.fixture(scope="session")
def sky(tmp_path_factory):
    root = tmp_path_factory.mktemp("sky")
    telescope = Telescope(width_px=320, height_px=256)
    stars = random_field(3, telescope=telescope, n_stars=150, n_comps=12)
    common = {"field": stars, "telescope": telescope, "site": SITE, "cadence_s": 400.0}
    first = simulate_night(
        root, date=FIRST_NIGHT, seed=5, filters=("B", "V"), n_lights=4, n_bias=5, n_flats=4,
        exposure_s={"B": 90.0, "V": 60.0}, **common,
    )  # fmt: skip
    second = simulate_night(
        root, date=SECOND_NIGHT, seed=6, filters=("V",), n_lights=4, n_bias=0, n_flats=4,
        exposure_s=60.0, **common,
    )  # fmt: skip
    write_star_table_csv(stars, root / "stars.csv")
    return Sky(
        data=root / "data",
        star_table=root / "stars.csv",
        field=stars,
        telescope=telescope,
        truths={FIRST_NIGHT: first, SECOND_NIGHT: second},
    )


def link(source, destination):
    destination.parent.mkdir(parents=True, exist_ok=True)
    os.link(source, destination)
    return destination


def write_edited(source, destination, *, remove=(), pixels=None, cards=None):
    """Write a copy of a FITS file with cards removed or set, and other pixels."""
    with fits.open(source) as hdus:
        header, data = hdus[0].header.copy(), hdus[0].data
    for keyword in remove:
        header.remove(keyword, ignore_missing=True)
    for keyword, value in (cards or {}).items():
        header[keyword] = value
    if pixels is not None:
        data = pixels(data)
    destination.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(np.asarray(data, dtype=np.uint16), header).writeto(destination)
    return destination


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Place:
    """A root directory with everything a run needs, and ways to run and to look."""

    root: Path
    sky: Sky
    aavso: StandInAavso
    instance: dg.DagsterInstance
    _writes: int = 0

    # ------------------------------------------------------------------------------ preparing

    @property
    def data(self):
        return self.root / "data"

    def configure(self, *, site=True, timeout_s=20.0, astap=None, tail="", **tables):
        """Write wombat.toml; `tables` maps a table's name to lines of it, `tail` comes last."""
        aavso = {
            "vsx_urls": [self.aavso.vsx_url],
            "vsp_urls": [self.aavso.vsp_url],
            "min_interval_s": 0.0,
            "retries": 0,
            "timeout_s": timeout_s,
        }
        lines = {
            "astap": astap or f'program = "{NO_PROGRAM}"',
            "solve": f"star_table = {json.dumps(str(self.sky.star_table))}",
            "aavso": "\n".join(f"{key} = {json.dumps(value)}" for key, value in aavso.items()),
            "sensors": "quiet_s = 60.0",
        }
        if site:
            lines["site"] = (
                f"latitude_deg = {SITE.latitude_deg}\nlongitude_deg = {SITE.longitude_deg}\n"
                f"elevation_m = {SITE.elevation_m}"
            )
        for name, text in tables.items():
            lines[name] = f"{lines[name]}\n{text}" if name in lines else text
        text = "\n".join(f"[{name}]\n{body}\n" for name, body in lines.items())
        path = self.root / config.CONFIG_NAME
        path.write_text(f"{text}\n{tail}\n", encoding="utf-8")
        # Settings are read again when the file's time changes: some disks count in seconds.
        self._writes += 1
        os.utime(path, (1_700_000_000 + self._writes, 1_700_000_000 + self._writes))

    def take(self, *patterns):
        """Link the session's frames that match `patterns` (below data) to the same places."""
        for pattern in patterns:
            sources = sorted(self.sky.data.glob(pattern))
            assert sources, pattern
            for source in sources:
                link(source, self.data / source.relative_to(self.sky.data))

    # -------------------------------------------------------------------------------- running

    @contextlib.contextmanager
    def in_force(self):
        """Make this place's configuration the one that Dagster's resources find."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(config.CONFIG_ENV, str(self.root / config.CONFIG_NAME))
            yield self.observatory

    @property
    def observatory(self):
        return open_observatory(self.root / config.CONFIG_NAME)

    def run(self, *, night=None, target=None, nights=True):
        """Do what ``wombat run`` does; return what went wrong, by partition key: {} is all green.

        `nights` False leaves the masters as they are.
        """
        with self.in_force() as observatory:
            planned = runs.plan(observatory, night=night, target=target)
            if not nights:
                planned = runs.Plan(nights=(), observations=planned.observations)
            runs.register(self.instance, observatory)
            done = runs.execute(self.instance, planned)
        return {d.key: d.error for d in done if d.error is not None}

    def run_night(self, date):
        """Make a night's masters; return what went wrong."""
        with self.in_force() as observatory:
            observatory.scan()
            runs.register(self.instance, observatory)
            planned = runs.Plan(nights=(f"{date:%Y%m%d}",), observations=())
            done = runs.execute(self.instance, planned)
        return {d.key: d.error for d in done if d.error is not None}

    def carry_out(self, *due):
        """Run what is due as the daemon would; return what went wrong, by key."""
        from wombat_dagster.definitions import defs
        from wombat_dagster.stages.work import WHY_TAG

        with self.in_force() as observatory, warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # DataVersion on Output
            for name, keys in (
                ("night", {one.key for one in due if "__" not in one.key}),
                ("observation", {row.observation.key for row in observatory.status.targets()}),
            ):
                self.instance.add_dynamic_partitions(name, sorted(keys))
            failed = {}
            for one in due:
                result = defs.resolve_job_def(one.job).execute_in_process(
                    partition_key=one.key,
                    instance=self.instance,
                    raise_on_error=False,
                    run_config=runs.QUIET,
                    tags={WHY_TAG: one.why.value},
                )
                for event in result.filter_events(lambda event: event.is_step_failure):
                    failed[one.key] = str(event.step_failure_data.error)
        return failed

    # -------------------------------------------------------------------------------- looking

    @property
    def rows(self):
        return self.observatory.status.targets()

    def row(self, target, *, filter="V", date=FIRST_NIGHT):
        found = [
            row
            for row in self.rows
            if (row.observation.date, row.observation.target, row.observation.filter)
            == (date, target, filter)
        ]
        assert len(found) == 1, [row.observation for row in self.rows]
        return found[0]

    def product(self, asset, key):
        return read_product(self.observatory, asset, key)

    def materialized(self, asset):
        """Return the partitions of an asset that Dagster knows to be there."""
        return self.instance.get_materialized_partitions(dg.AssetKey(asset))

    def raw_files(self):
        """Return the hash of every raw file by its path below data."""
        return {
            path.relative_to(self.data).as_posix(): sha256_of(path)
            for path in self.data.rglob("*")
            if path.is_file() and is_raw_name(path.name)
        }

    def raw_multiset(self):
        return Counter(self.raw_files().values())

    def forget_services(self):
        """Empty the memory of VSX and VSP on disk."""
        for path in (self.root / "cache").rglob("*.json"):
            path.unlink()

    def leftovers(self):
        """Return temporary files that a writer left behind."""
        return [p for p in self.root.rglob("*") if p.name.endswith((".tmp", ".part"))]


@pytest.fixture(scope="session")
def open_place(sky):
    """Return a context manager that opens a `Place` in a directory."""

    @contextlib.contextmanager
    def opened(root):
        variables = [vsx_object(sky.field)["VSXObject"]]
        comps = vsp_chart(sky.field, fov_arcmin=120.0)["photometry"]
        with (
            StandInAavso(variables, comps) as aavso,
            dg.DagsterInstance.ephemeral() as instance,
        ):
            place = Place(root=root, sky=sky, aavso=aavso, instance=instance)
            place.data.mkdir(parents=True)
            place.configure()
            yield place
            for service in Service:
                aavso.fail(service, "none")  # releases whoever still waits for an answer

    return opened


@pytest.fixture
def place(open_place, tmp_path):
    """Return an empty place of the test's own."""
    with open_place(tmp_path / "a place") as opened:
        yield opened


@pytest.fixture(scope="session")
def all_stars(sky):
    return star_table(sky.field)


@pytest.fixture(scope="session")
def edit():
    """Return the function that writes changed copies of frames."""
    return write_edited


@pytest.fixture(scope="session")
def hard_link():
    return link
