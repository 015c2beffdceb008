"""A scripted year over a running ``wombat up``: nothing is started by hand, and much goes wrong.

    sudo python drills/year.py --nights 30      about half an hour on two cores

Thirty simulated nights of three targets in B and V arrive in random order, file by file.
Calibrations of every third night come after their lights and after other nights, some lights come
when their observation is done, VSP is down for a third of the time (first with 500, then it
hangs), all processes are killed twice (``kill -9``) and begun again, the disk is full for a while,
one night is renamed, and so is one target. When nothing more is to be done the magnitudes must be
those of one ``wombat backfill`` of the same frames, every observation validated, held or parked for
a reason, and every run must have had a reason of its own.

The disk is a tmpfs, which needs root; without root that part is left out, and it is said.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import afterwards
import small_night as sn
from astropy.io import fits

from wombat_dagster import litter, orphans, runs
from wombat_dagster.observatory import open_observatory
from wombat_dagster.simulate.aavso import Service, StandInAavso
from wombat_dagster.simulate.night import observable_start, simulate_night
from wombat_dagster.simulate.sky import (
    Field,
    Telescope,
    random_field,
    star_table,
    vsp_chart,
    vsx_object,
)
from wombat_dagster.simulate.world import SITE
from wombat_dagster.stages.due import due_nights, due_observations, parked
from wombat_dagster.stages.inputs import nights_on_disk

FIRST_NIGHT = dt.date(2025, 9, 20)
DAYS_BETWEEN = (1, 3)
TARGETS = {"SV Wom": (335.2, 38.1), "SW Wom": (340.9, 41.3), "SX Wom": (346.0, 36.2)}
FILTERS = ("B", "V")
EXPOSURE_S = {"B": 90.0, "V": 60.0}
CADENCE_S = 260.0
SATURATED = 4  # of ten nights
N_LIGHTS, N_BIAS, N_FLATS = 4, 4, 3
TARGET_S = 2600.0  # from one target's first light to the next one's
INTERVAL_S, QUIET_S, PROBE_S = 2, 3.0, 5.0
RENAMED_TARGET = "SV Wom, the east one"
COPY_PAUSE_S = (0.0, 0.25)
FULL_S = 40.0
ROOM_KB = 300
QUIET_AFTER_S = 600.0  # that the end may take after the last arrival, and for every night more:
QUIET_A_NIGHT_S = 100.0
SAY_S, MAX_WORDS = 60.0, 300
MAX_BACKLOG = 14  # observations without an end and runs not over, before the next thing happens
END_S = 5.0  # that processes may take to be gone after wombat up
STEP_S = 120.0  # then it happens anyway
TOML = """\
[site]
latitude_deg = {latitude}
longitude_deg = {longitude}
elevation_m = {elevation}
[[instrument]]
camera = "{camera}"
read_noise_e = {read_noise}
aperture_m = {aperture}
[instrument.transform]
{transform}
[[target]]
directory = ["{renamed}"]
vsx = "SV Wom"
[solve]
star_table = {stars}
[astap]
program = "/nowhere/astap_cli"
[aavso]
vsx_urls = ["{vsx}"]
vsp_urls = ["{vsp}"]
min_interval_s = 0.0
retries = 0
timeout_s = 4.0
probe_s = {probe}
[sensors]
interval_s = {interval}
quiet_s = {quiet}
"""


# --------------------------------------------------------------------------------------- the frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """All frames as they will have arrived at the end, and what the services know."""

    root: Path
    nights: tuple[str, ...]
    fields: tuple[Field, ...]
    telescope: Telescope

    @property
    def data(self) -> Path:
        return self.root / "data"

    def toml(self, aavso: StandInAavso) -> str:
        """Return the text of ``wombat.toml``."""
        transform = self.telescope.transform_coefficients
        return TOML.format(
            latitude=SITE.latitude_deg,
            longitude=SITE.longitude_deg,
            elevation=SITE.elevation_m,
            camera=self.telescope.camera,
            read_noise=self.telescope.read_noise_e,
            aperture=self.telescope.aperture_m,
            transform="\n".join(f"{name} = {value:g}" for name, value in transform.items()),
            renamed=RENAMED_TARGET,
            stars=json.dumps(str(self.root / "stars.csv")),
            vsx=aavso.vsx_url,
            vsp=aavso.vsp_url,
            probe=PROBE_S,
            interval=INTERVAL_S,
            quiet=QUIET_S,
        )


def simulate(root: Path, *, n_nights: int, draw: random.Random) -> Store:
    """Write the nights; every third has no biases, every fifth no flats, every tenth bad ones."""
    telescope = Telescope(width_px=320, height_px=256)
    fields = tuple(
        random_field(
            seed, telescope=telescope, name=name, ra_deg=ra, dec_deg=dec, n_stars=150, n_comps=12
        )
        for seed, (name, (ra, dec)) in enumerate(TARGETS.items(), start=3)
    )
    nights, date = [], FIRST_NIGHT
    for number in range(n_nights):
        begin = observable_start(
            date, SITE, fields[0].ra_deg, fields[0].dec_deg, duration_s=3 * TARGET_S
        )
        for place, stars in enumerate(fields):
            simulate_night(
                root,
                field=stars,
                telescope=telescope,
                site=SITE,
                date=date,
                start=begin + dt.timedelta(seconds=place * TARGET_S),
                seed=1000 + 10 * number + place,
                filters=FILTERS,
                n_lights=N_LIGHTS,
                n_bias=0 if place or number % 3 == 1 else N_BIAS,
                n_flats=0 if place or number % 5 == 3 else N_FLATS,
                exposure_s=EXPOSURE_S,
                cadence_s=CADENCE_S,
            )
        nights.append(f"{date:%Y%m%d}")
        if number % 10 == SATURATED:
            saturate(root / "data" / nights[-1] / "Flat")
        date += dt.timedelta(days=draw.randint(*DAYS_BETWEEN))
    tables = [star_table(stars) for stars in fields]
    rows = [
        f"{ra:.7f},{dec:.7f},{mag:.3f}"
        for table in tables
        for ra, dec, mag in zip(table.ra_deg, table.dec_deg, table.mag, strict=True)
    ]
    text = "\n".join(["ra_deg,dec_deg,mag", *rows])
    (root / "stars.csv").write_text(f"{text}\n", encoding="ascii")
    return Store(root=root, nights=tuple(nights), fields=fields, telescope=telescope)


def saturate(directory: Path) -> None:
    """Make flats so bright that no master comes of them."""
    for path in directory.glob("*.fit"):
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[:] = 65535 - hdus[0].data % 7


def services(store: Store) -> StandInAavso:
    """Return the stand-in that knows all three fields."""
    return StandInAavso(
        [vsx_object(stars)["VSXObject"] for stars in store.fields],
        [c for stars in store.fields for c in vsp_chart(stars, fov_arcmin=120.0)["photometry"]],
    )


def prepare(root: Path, store: Store, aavso: StandInAavso) -> sn.Place:
    """Make a place without frames."""
    place = sn.Place(root=root, database=root / "wombatpipeline.db")
    place.data.mkdir(parents=True)
    place.scratch.mkdir()
    place.config.write_text(store.toml(aavso), encoding="utf-8")
    return place


def environment(place: sn.Place) -> dict[str, str]:
    """Return what ``wombat`` is begun with: what it takes for /tmp lies in the place."""
    return {**os.environ, "WOMBAT_CONFIG": str(place.config), "TMPDIR": str(place.scratch)}


def command(place: sn.Place, *words: str) -> list[str]:
    """Return a ``wombat`` command of the same code as this script's."""
    return [sys.executable, "-m", "wombat_dagster.cli", "--config", str(place.config), *words]


# ------------------------------------------------------------------------------------- what happens


@dataclass(frozen=True, slots=True, kw_only=True)
class Renames:
    """Which night and which target directory get another name, and which."""

    night: str
    night_to: str
    target_of_night: str

    def final(self, path: Path) -> Path:
        """Return where a frame lies in the end, by where it is in the store."""
        night, *rest = path.parts
        if night == self.target_of_night and rest[:2] == ["Light", "SV Wom"]:
            rest[1] = RENAMED_TARGET
        return Path(self.night_to if night == self.night else night, *rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happens: when (in nights), what, and what to do for it."""

    at: float
    words: str
    act: Callable[[], object]


@dataclass(slots=True)
class Happened:
    """When what was done (s, Unix)."""

    arrivals: list[tuple[str, float]] = field(default_factory=list)
    outage_s: list[float] = field(default_factory=list)
    kills: int = 0
    processes_killed: int = 0
    ended_by_itself: int = 0
    full_s: float = 0.0
    cpu_s: float = 0.0


class Year:
    """``wombat up`` in a place, and everything that is done to it."""

    def __init__(
        self, place: sn.Place, store: Store, aavso: StandInAavso, *, draw: random.Random
    ) -> None:
        self.place, self.happened = place, Happened()
        self._store, self._aavso, self._draw = store, aavso, draw
        self._up: subprocess.Popen[bytes] | None = None
        self._begun_s = time.time()
        order = list(store.nights)
        draw.shuffle(order)
        self.order = order
        with_flats = [night for night in order if (store.data / night / "Flat").is_dir()]
        self.renames = Renames(
            night=order[0],
            night_to=f"{order[0][:4]}-{order[0][4:6]}-{order[0][6:]}",
            target_of_night=order[1],
        )
        self._late_calibrations = set(with_flats[::3][: max(1, len(order) // 3)])
        self._late_lights = set(order[2::4])
        self._moved: dict[Path, Path] = {}

    # ------------------------------------------------------------------------------- wombat up

    def begin(self) -> None:
        """Begin ``wombat up``, and wait until it answers."""
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            port = trial.getsockname()[1]
        with self.place.root.with_suffix(".log").open("ab") as out:
            self._up = subprocess.Popen(
                command(self.place, "up", "--port", str(port)),
                cwd=self.place.root,
                env=environment(self.place),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until_s = time.monotonic() + 180.0
        while time.monotonic() < until_s:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=5.0).close()
                return
            if self._up.poll() is not None:
                break
            time.sleep(0.5)
        raise RuntimeError(f"wombat up did not begin: {self.place.root.with_suffix('.log')}")

    def look_after(self) -> None:
        """Begin ``wombat up`` again when it ended by itself, as systemd and launchd do."""
        if self._up is not None and self._up.poll() is not None:
            self.say(f"wombat up ended by itself ({self._up.returncode}), begun again")
            self.happened.ended_by_itself += 1
            with contextlib.suppress(RuntimeError):  # the disk is full still
                self.begin()

    def kill(self) -> None:
        """Kill ``wombat up`` and all that it has begun, at once."""
        assert self._up is not None
        tree = afterwards.descendants(self._up.pid)
        self.happened.cpu_s += afterwards.cpu_s_of(tree)
        for pid in tree:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._up.wait()
        self.happened.kills += 1
        self.happened.processes_killed += len(tree)

    def end(self) -> bool:
        """End ``wombat up`` as a person does; return whether nothing of it is left."""
        assert self._up is not None
        tree = afterwards.descendants(self._up.pid)
        self.happened.cpu_s += afterwards.cpu_s_of(tree)
        self._up.terminate()
        self._up.wait(timeout=60.0)
        until_s = time.monotonic() + END_S
        while any(map(orphans.named, tree)) and time.monotonic() < until_s:
            time.sleep(0.2)
        return not any(map(orphans.named, tree))

    # ------------------------------------------------------------------------------- the script

    def say(self, words: str) -> None:
        """Print what happens, with the seconds since the beginning."""
        print(f"{time.time() - self._begun_s:6.0f} s  {words}", flush=True)

    def steps(self, *, is_small_disk: bool) -> list[Step]:
        """Return what will happen, in order."""
        n, draw = len(self.order), self._draw
        steps = []
        for place, night in enumerate(self.order):
            late = [what for what in ("calibrations", "lights") if self._comes_late(night, what)]
            words = f"night {night} arrives" + (f", without {' and '.join(late)}" if late else "")
            steps.append(Step(at=place, words=words, act=partial(self.arrive, night)))
            for what in late:
                steps.append(
                    Step(
                        at=min(place + draw.uniform(0.6, n / 4), n - 0.2),
                        words=f"late {what} of {night}",
                        act=partial(self.arrive, night, what),
                    )
                )
        third = n / 3.0
        steps += [
            Step(at=third, words="VSP answers 500; the cache is emptied", act=self.vsp_away),
            Step(at=third * 1.5, words="VSP hangs", act=partial(self.vsp, "hang")),
            Step(at=third * 2.0, words="VSP is back", act=partial(self.vsp, "none")),
            Step(at=n * 0.5, words=f"{self.renames.night} is renamed", act=self.rename_night),
            Step(at=n * 0.6, words="a target is renamed", act=self.rename_target),
            Step(at=n * draw.uniform(0.15, 0.3), words="kill -9 of all", act=self.crash),
            Step(at=n * draw.uniform(0.7, 0.78), words="kill -9 of all", act=self.crash),
        ]
        if is_small_disk:
            steps.append(Step(at=n * 0.85, words="the disk is full", act=self.fill))
        return sorted(steps, key=lambda step: step.at)

    def run(self, *, is_small_disk: bool) -> None:
        """Let everything happen, and wait until nothing more is to be done."""
        self.begin()
        for step in self.steps(is_small_disk=is_small_disk):
            self._wait_for_room(self._draw.randint(0, MAX_BACKLOG))
            self.say(step.words)
            step.act()
            self.look_after()
        self.say("everything has arrived")
        self.wait_until_quiet()
        self.say("nothing more is to be done")

    def _wait_for_room(self, n_left: int) -> None:
        until_s = time.monotonic() + STEP_S
        while time.monotonic() < until_s and afterwards.n_to_come(self.place) > n_left:
            time.sleep(1.0)

    def _comes_late(self, night: str, what: str) -> bool:
        return night in (self._late_calibrations if what == "calibrations" else self._late_lights)

    def arrive(self, night: str, late: str | None = None) -> None:
        """Copy the frames of a night, or those that come late, one after the other."""
        files = [
            file
            for file in sorted(self._store.data.joinpath(night).rglob("*.fit"))
            if self._lateness(night, file) == late
        ]
        for file in files:
            place = self._place_of(file.relative_to(self._store.data))
            place.parent.mkdir(parents=True, exist_ok=True)
            data = file.read_bytes()
            with place.open("wb") as out:
                half = self._draw.randrange(len(data))
                out.write(data[:half])
                if self._draw.random() < 0.1:  # a slow network: half a file for a while
                    out.flush()
                    time.sleep(QUIET_S / 2)
                out.write(data[half:])
            time.sleep(self._draw.uniform(*COPY_PAUSE_S))
        self.happened.arrivals.append((night, time.time()))

    def _lateness(self, night: str, file: Path) -> str | None:
        """Return what a frame belongs to that comes late, None when it comes with its night.

        Of lights it is the last V frame of the second target.
        """
        if file.parent.name in {"Bias", "Flat"}:
            return "calibrations" if self._comes_late(night, "calibrations") else None
        is_last = file.name.endswith(f"-{N_LIGHTS:04d}V.fit") and file.parent.name == "SW Wom"
        return "lights" if is_last and self._comes_late(night, "lights") else None

    def _place_of(self, path: Path) -> Path:
        """Return where a frame of the store goes by now."""
        place = self.place.data / path
        for old, new in self._moved.items():
            if place.is_relative_to(old):
                place = new / place.relative_to(old)
        return place

    def vsp(self, failure: str) -> None:
        """Let VSP fail from now on, or answer again."""
        self._aavso.fail(Service.VSP, failure)
        self.happened.outage_s.append(time.time())

    def vsp_away(self) -> None:
        """Let VSP fail; with the charts of before nobody would notice."""
        self.vsp("500")
        for directory in (self.place.root / "cache").glob("vsp*"):
            if directory.is_dir():
                for chart in directory.glob("*.json"):
                    chart.unlink()

    def rename_night(self) -> None:
        """Give a night's directory another name of the same date."""
        self._move(self.place.data / self.renames.night, self.place.data / self.renames.night_to)

    def rename_target(self) -> None:
        """Give a target's directory another name, in one night."""
        old = self._place_of(Path(self.renames.target_of_night, "Light", "SV Wom"))
        self._move(old, old.with_name(RENAMED_TARGET))

    def _move(self, old: Path, new: Path) -> None:
        old.rename(new)
        self._moved[old] = new

    def crash(self) -> None:
        """Kill everything in the middle of work, and begin again."""
        until_s = time.monotonic() + 60.0
        while time.monotonic() < until_s and not afterwards.n_at_work(self.place):
            time.sleep(0.2)
        time.sleep(self._draw.uniform(0.0, 6.0))
        n = afterwards.n_at_work(self.place)
        self.kill()
        self.say(f"killed with {n} runs at work")
        self.begin()

    def fill(self) -> None:
        """Fill the disk in the middle of work, and make room again."""
        ballast = self.place.root / "ballast"
        is_full = False
        while not is_full:  # others write meanwhile
            free = os.statvfs(self.place.root)
            n_bytes = max(1, free.f_bavail * free.f_frsize - ROOM_KB * 1024)
            with ballast.open("wb") as handle, contextlib.suppress(OSError):
                os.posix_fallocate(handle.fileno(), 0, n_bytes)
                is_full = True
        begun_s = time.monotonic()
        while time.monotonic() - begun_s < FULL_S:
            time.sleep(2.0)
            self.look_after()
        ballast.unlink()
        self.happened.full_s = time.monotonic() - begun_s
        self.say("there is room again")
        self.look_after()

    def wait_until_quiet(self) -> None:
        """Wait until nothing is at work, due or parked, twice in a row.

        Raises
        ------
        RuntimeError
            It takes too long; the message says what is not done.
        """
        patience_s = QUIET_AFTER_S + QUIET_A_NIGHT_S * len(self.order)
        until_s = time.monotonic() + patience_s
        n_quiet, said_s = 0, time.monotonic()
        words: list[str] = []
        while time.monotonic() < until_s:
            self.look_after()
            time.sleep(3.0 * INTERVAL_S)
            n = afterwards.n_unfinished(self.place)
            words = [f"{n} runs or backfills not over"] if n else not_done(self.place)
            if n:
                words.append(f"{afterwards.n_to_come(self.place) - n} observations without an end")
            n_quiet = 0 if words else n_quiet + 1
            if time.monotonic() > said_s + SAY_S:
                said_s = time.monotonic()
                self.say(f"not quiet: {'; '.join(words)[:MAX_WORDS]}")
            if n_quiet == 2:
                return
        raise RuntimeError(f"not quiet after {patience_s:.0f} s: {'; '.join(words)}")


def not_done(place: sn.Place) -> list[str]:
    """Return what is due or parked, in words; asked of a copy of the database."""
    with runs.rehearsal(open_observatory(place.config).settings) as copy:
        nights = due_nights(copy, on_disk=nights_on_disk(copy), by_hand=True)
        outlook = due_observations(copy, check_for_s=None, by_hand=True)
        words = [f"{one.key}: {one.why}: {one.words}" for one in (*nights, *outlook.due)]
        words += [f"{key}: {text}" for key, text in outlook.waiting.items()]
        for word in runs.SERVICES:
            words += [f"{one.key}: {word}" for one in parked(copy, word)]
    return words


def left_behind(place: sn.Place) -> list[str]:
    """Print what killed writers left; return what ``wombat up`` would leave when it is old."""
    found = sn.litter_of(place)
    print(f"temporary files of killed writers: {len(found)}")
    old_s = time.time() - 2 * litter.MIN_AGE_S
    for path in (file for one in found for file in (one, *one.rglob("*"))):
        os.utime(path, (old_s, old_s))
    litter.clean_litter(open_observatory(place.config))
    return [f"left behind: {path}" for path in found if path.exists() and holds_files(path)]


def holds_files(path: Path) -> bool:
    """Tell whether a path is a file, or a directory with files in it."""
    return path.is_file() or any(one.is_file() for one in path.rglob("*"))


def judge(year: Year, clean: sn.Place, store: Store, *, all_ended: bool) -> list[str]:
    """Print the figures; return the faults."""
    place, happened = year.place, year.happened
    faults = [] if all_ended else ["processes of wombat up were left behind at its end"]
    rows = afterwards.rows_of(place)
    words = Counter(row.apphot or row.proc or "nothing" for row in rows.values())
    print(f"observations: {', '.join(f'{n} {word}' for word, n in words.most_common())}")
    for unit, row in rows.items():
        if (row.apphot or row.proc) != "validate":
            print(f"   {unit[0]} {unit[1]} {unit[2]}: {row.apphot or row.proc}: {row.reason}")
    n_wanted = len(store.nights) * len(TARGETS) * len(FILTERS)
    if len(rows) != n_wanted:
        faults.append(f"{len(rows)} observations, {n_wanted} wanted")
    largest, n_equal, different = afterwards.compare(place, clean)
    print(
        f"magnitudes: {n_equal} of {len(rows)} observations equal to the last bit,"
        f" largest difference {largest:.2g} mag"
    )
    faults += different
    tally = afterwards.explain_runs(place)
    n_again = tally.reasons.total() + len(tally.unexplained)
    print(f"partitions {tally.n_first}, runs beyond the first {n_again}:")
    for reason, n in tally.reasons.most_common():
        print(f"   {n:4d}  {reason}")
    print(f"   {len(tally.unexplained):4d}  unexplained")
    print(f"   most runs: {', '.join(f'{key} {n}' for key, n in tally.most.most_common(3))}")
    faults += [f"unexplained: {one}" for one in tally.unexplained]
    in_dagster = Counter(status for _, _, status, _ in afterwards.runs_of_dagster(place))
    print(f"runs in Dagster: {', '.join(f'{n} {word}' for word, n in in_dagster.most_common())}")
    if afterwards.raw_files(place.data) != afterwards.raw_files(store.data):
        faults.append("raw files are not what they were")
    faults += sn.faults_of(place)
    faults += [f"{one} is not what its row says" for one in sn.ahead_of_rows(place)]
    faults += left_behind(place)
    n_runs = in_dagster.total()
    print(
        f"killed {happened.kills} times ({happened.processes_killed} processes), wombat up ended by"
        f" itself {happened.ended_by_itself} times, disk full for {happened.full_s:.0f} s, CPU"
        f" {happened.cpu_s:.0f} s for {n_runs} runs ({happened.cpu_s / max(n_runs, 1):.1f} s each)"
    )
    for name, times in afterwards.ticks_s(place).items():
        median, longest = statistics.median(times), max(times)
        print(f"ticks of {name}: {len(times)}, median {median:.2f} s, longest {longest:.2f} s")
    if waits := afterwards.latencies_s(place, happened.arrivals, quiet_s=QUIET_S):
        print(
            f"from the last byte and the quiet time to a run: median {statistics.median(waits):.1f}"
            f" s, longest {max(waits):.1f} s ({len(waits)} arrivals)"
        )
    return faults


# ---------------------------------------------------------------------------------------------- all


def backfill(store: Store, renames: Renames, root: Path, aavso: StandInAavso) -> sn.Place:
    """Run one clean backfill of all frames, under their last names."""
    place = prepare(root, store, aavso)
    for file in store.data.rglob("*.fit"):
        to = place.data / renames.final(file.relative_to(store.data))
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, to)
    begun_s = time.monotonic()
    cpu_before_s = sum(os.times()[2:4])
    done = subprocess.run(
        command(place, "backfill"),
        cwd=place.root,
        env=environment(place),
        capture_output=True,
        text=True,
        check=False,
    )
    root.with_suffix(".log").write_text(done.stdout + done.stderr, encoding="utf-8")
    cpu_s = sum(os.times()[2:4]) - cpu_before_s
    n = len(afterwards.rows_of(place))
    print(
        f"clean backfill: exit {done.returncode}, {time.monotonic() - begun_s:.0f} s, CPU"
        f" {cpu_s:.0f} s ({cpu_s / n:.1f} s for each of {n} observations)",
        flush=True,
    )
    if done.returncode:
        raise RuntimeError(
            f"the clean backfill failed: {done.stdout[-3000:]} {done.stderr[-2000:]}"
        )
    return place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--root", type=Path, help="where to work")
    parser.add_argument("--keep", action="store_true", help="keep everything")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave nothing behind
    if options.nights < 6:
        parser.error("at least 6 nights")
    root = Path(tempfile.mkdtemp(prefix="wombat-year-", dir=options.root))
    draw = random.Random(options.seed)
    begun_s = time.monotonic()
    store = simulate(root / "store", n_nights=options.nights, draw=draw)
    print(
        f"{root}: {options.nights} nights simulated, {time.monotonic() - begun_s:.0f} s", flush=True
    )
    with services(store) as aavso, contextlib.ExitStack() as disk:
        home = root / "year"
        is_small_disk = os.geteuid() == 0 and disk.enter_context(small_disk(home, options.nights))
        if not is_small_disk:
            print("no small disk could be mounted: the disk is never full")
        year = Year(prepare(home / "at", store, aavso), store, aavso, draw=draw)
        clean = backfill(store, year.renames, root / "clean", aavso)
        try:
            year.run(is_small_disk=is_small_disk)
        finally:
            all_ended = year.end()
        faults = judge(year, clean, store, all_ended=all_ended)
        for words in faults:
            print(f"   FAULT {words}")
        print(f"{len(faults)} faults; {time.monotonic() - begun_s:.0f} s")
        if options.keep or faults:
            without_sockets = shutil.ignore_patterns("tmp")
            shutil.copytree(home, root / "kept", symlinks=True, ignore=without_sockets)
            print(f"everything is kept in {root}")
    if not faults and not options.keep:
        shutil.rmtree(root)
    sys.exit(1 if faults else 0)


@contextlib.contextmanager
def small_disk(path: Path, n_nights: int) -> Iterator[bool]:
    """Mount a disk with room for so many nights; yield whether that was possible."""
    path.mkdir(parents=True)
    size_mb = 300 + 50 * n_nights
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(path)]
    is_mounted = subprocess.run(mount, check=False).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", str(path)], check=True)


if __name__ == "__main__":
    main()
