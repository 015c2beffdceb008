"""What the sensors' looks cost with 2,000 observations and 20,000 frames on disk.

    python benchmarks/ticks.py                     some minutes: the frames are read once

A synthetic archive: 100 nights of 10 targets in B and V, 10 tiny frames each, masters, charts, and
a history as if everything had been done. Then `look` of every sensor is timed: at first, when
nothing is new, when one night has a new frame, when a master appears that nobody is closer to, and
when one appears that some are. The bar is 10 s a tick. CPU time is what this process took, which
other programs on the machine disturb less.
"""

import argparse
import datetime as dt
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from astropy.io import fits

from wombat_dagster import config
from wombat_dagster.catalogs.vsp import chart_request
from wombat_dagster.domain import (
    Apphot,
    ChartRequest,
    FrameGroup,
    FrameKind,
    Master,
    Observation,
)
from wombat_dagster.observatory import Observatory, open_observatory
from wombat_dagster.sensors import data, recalibration, recovery
from wombat_dagster.simulate.aavso import StandInAavso
from wombat_dagster.simulate.sky import Telescope, random_field, vsp_chart
from wombat_dagster.stages.choice import choose_calibration
from wombat_dagster.stages.coefficients import KnownCoefficients
from wombat_dagster.stages.due import STAGES
from wombat_dagster.stages.inputs import (
    CHART,
    CHART_REQUEST,
    CHART_SOURCE,
    CHOSEN,
    MASTERS,
    Inputs,
)
from wombat_dagster.stages.library import available_masters
from wombat_dagster.stages.siblings import COEFFICIENTS
from wombat_dagster.store.stage_runs import MADE, StageRuns

FIRST_NIGHT = dt.date(2025, 1, 1)
CAMERA = "Tiny"
FILTERS = ("B", "V")
N_FRAMES = 10
N_TARGETS = 10
SIZE_PX = 16
EXPOSURE_S = 60.0
CENTRE_DEG = (335.2, 38.1)
BAR_S = 10.0
CHART_FOV_ARCMIN = 20.0
TOML = """\
[site]
latitude_deg = 41.0
longitude_deg = -72.0
[[instrument]]
camera = "Tiny"
[instrument.transform]
Tb_bv = 0.05
Tv_bv = -0.06
[aavso]
vsx_urls = ["{vsx}"]
vsp_urls = ["{vsp}"]
[sensors]
quiet_s = 60.0
"""


# ------------------------------------------------------------------------------------ the archive


def write_frames(root: Path, n_nights: int) -> int:
    """Write the frames: one header, with other times and one other pixel each."""
    n = 0
    image = np.full((SIZE_PX, SIZE_PX), 1000, dtype=np.uint16)
    for night in range(n_nights):
        date = FIRST_NIGHT + dt.timedelta(days=3 * night)
        for target in range(N_TARGETS):
            directory = root / f"{date:%Y%m%d}" / "Light" / f"Target {target}"
            directory.mkdir(parents=True)
            begin = dt.datetime.combine(date, dt.time(22), tzinfo=dt.UTC)
            begin += dt.timedelta(minutes=30 * target)
            for number in range(N_FRAMES):
                for filter in FILTERS:
                    start = begin + dt.timedelta(seconds=70 * number)
                    write_frame(directory / f"{number:03d}{filter}.fit", image, start, filter, n)
                    n += 1
    return n


def write_frame(path: Path, image: np.ndarray, start: dt.datetime, filter: str, n: int) -> None:
    header = fits.Header()
    header["DATE-OBS"] = start.replace(tzinfo=None).isoformat(timespec="milliseconds")
    header["EXPTIME"] = EXPOSURE_S
    header["FILTER"] = filter
    header["IMAGETYP"] = "Light Frame"
    header["INSTRUME"] = CAMERA
    header["XBINNING"] = header["YBINNING"] = 1
    image.flat[:4] = [n % 65536, n // 65536, n % 251, n % 241]
    fits.PrimaryHDU(image, header).writeto(path)


def a_master(date: dt.date, kind: FrameKind, filter: str | None, group: FrameGroup) -> Master:
    """Return a master of a night that needs no file: nobody opens it here."""
    name = f"m{kind.value}{filter or ''}"
    return Master(
        kind=kind,
        date=date,
        filter=filter,
        group=group,
        path=f"{date:%Y%m%d}/{name}.fits",
        content_hash=f"{name}{date:%Y%m%d}",
        n_used=5,
        n_refused=0,
        exposure_s=0.0 if kind is FrameKind.BIAS else 3.0,
    )


def request_of(target: int) -> ChartRequest:
    """Return what the chart of a target was asked for."""
    ra_deg, dec_deg = CENTRE_DEG
    return chart_request(ra_deg + 0.5 * target, dec_deg, CHART_FOV_ARCMIN, 16.5)


def siblings_of(one: Observation, known: KnownCoefficients) -> dict[str, str]:
    """Return what the magnitudes of an observation were made of beside its own table."""
    night_and_target, _, filter = one.key.rpartition("__")
    (other,) = set(FILTERS) - {filter}
    sibling = f"{night_and_target}__{other}"
    return {sibling: sibling, COEFFICIENTS: known.of(CAMERA, one.date).version}


def write_history(observatory: Observatory) -> None:
    """Write into the database what the runs would have left."""
    status = observatory.status
    group = next(
        frame.group for frame in status.light_frames(status.targets()[0].observation) if frame.group
    )
    nights = [dt.datetime.strptime(key, "%Y%m%d").date() for key in status.night_keys()]  # noqa: DTZ007
    status.record_masters(
        [
            a_master(date, kind, filter, group)
            for place, date in enumerate(nights)
            if place % 3 == 0
            for kind, filter in (
                (FrameKind.BIAS, None),
                (FrameKind.FLAT, "B"),
                (FrameKind.FLAT, "V"),
            )
        ]
    )
    vsp = observatory.vsp
    versions = {}
    for target in range(N_TARGETS):
        request = request_of(target)
        vsp.chart(request.ra_deg, request.dec_deg, request.fov_arcmin, request.maglimit)
        versions[target] = vsp.version_now(request)
    rows, products, masters = [], [], available_masters(observatory)
    known = KnownCoefficients(observatory)
    inputs = Inputs(observatory)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    for key, date in zip(status.night_keys(), nights, strict=True):
        for asset in ("raw_frames", "bad_pixels", "detector_noise"):
            found = dict(inputs.of_night(asset, date))
            if asset == "bad_pixels":
                found[MASTERS] = observatory.masters_signature()
            rows.append((key, asset, f"run {key}", None, now, now, MADE, None, json.dumps(found)))
    for row in status.targets():
        one = row.observation
        for asset in (*STAGES, "light_curve", "diagnostics"):
            found = dict(inputs.of_observation(asset, one))
            if asset == "calibration_choice":
                found[CHOSEN] = choose_calibration(observatory, one, available=masters).version
            if asset == "comp_list":
                target = int(one.target.split()[1])
                found |= {
                    CHART: versions[target] or "",
                    CHART_REQUEST: json.dumps(asdict(request_of(target))),
                    CHART_SOURCE: "VSP",
                }
            rows.append(
                (one.key, asset, f"run {one.key}", None, now, now, MADE, None, json.dumps(found))
            )
            made_of = siblings_of(one, known) if asset == "standard_magnitudes" else {}
            products.append((one.key, asset, asset, "0", one.key, json.dumps(made_of), now))
    with status._writing() as connection:
        connection.executemany(
            "INSERT INTO stage_run (key, asset, run_id, why, begun_utc, ended_utc, ending, reason,"
            " inputs) VALUES (?,?,?,?,?,?,?,?,?)",
            rows,
        )
        connection.executemany("INSERT INTO product VALUES (?,?,?,?,?,?,?)", products)
        connection.execute("UPDATE target SET proc = 'solved', apphot = ?", (Apphot.VALIDATE,))


# -------------------------------------------------------------------------------------- the looks


def timed(words: str, look: Callable[[], object]) -> float:
    """Print and return what a look took (s); `look` returns how much is due."""
    begun_s, cpu_s = time.perf_counter(), time.process_time()
    found = look()
    took_s, cpu_s = time.perf_counter() - begun_s, time.process_time() - cpu_s
    print(f"{words:58} {took_s:7.2f} s, CPU {cpu_s:6.2f} s, due {found}", flush=True)
    return cpu_s


def look_at_data(observatory: Observatory, memory: data.Memory, now_s: float) -> int:
    """Let the data sensor look, and keep its cursor as Dagster does."""
    due = data.look(observatory, data.sight(observatory, memory, now_s=now_s))
    memory.__init__(memory.cursor())
    return len(due)


def measure(observatory: Observatory) -> list[float]:
    """Time the looks one after the other; return their CPU times (s)."""
    memory, now_s = data.Memory(None), time.time()
    found = []

    def three(words: str) -> None:
        nonlocal now_s
        now_s += 120.0
        found.append(timed(f"{words}: data", lambda: look_at_data(observatory, memory, now_s)))
        found.append(
            timed(
                f"{words}: recalibration", lambda: len(recalibration.look(observatory, busy=set()))
            )
        )
        found.append(timed(f"{words}: recovery", lambda: len(recovery.look(observatory))))
        recovery.INQUIRIES.wait()

    three("first look")
    three("nothing new")
    three("nothing new")
    row = observatory.status.targets()[-1].observation
    newest = sorted((observatory.layout.data / f"{row.date:%Y%m%d}").rglob("*.fit"))[-1]
    before = newest.stat()
    os.utime(newest)
    three("a frame is new, unsettled")
    three("a frame is new")
    os.utime(newest, ns=(before.st_atime_ns, before.st_mtime_ns))
    group = observatory.status.masters()[0].group
    far = FIRST_NIGHT + dt.timedelta(days=10_000)
    observatory.status.record_masters([a_master(far, FrameKind.BIAS, None, group)])
    for n_look in range(1, 20):
        three(f"a master that nobody is close to, look {n_look}")
        if are_confirmed(observatory):
            break
    near = FIRST_NIGHT + dt.timedelta(days=3 * 31)
    observatory.status.record_masters([a_master(near, FrameKind.FLAT, "V", group)])
    for n_look in (1, 2):
        three(f"a closer flat for some, look {n_look}")
    return found


def are_confirmed(observatory: Observatory) -> bool:
    """Tell whether the newest masters were compared with those of all observations."""
    now = observatory.masters_signature()
    latest = StageRuns(observatory.status.path).latest().values()
    chosen = [stages["calibration_choice"] for stages in latest if "calibration_choice" in stages]
    return all(one.inputs[MASTERS] == now for one in chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=int, default=100)
    parser.add_argument("--root", type=Path, help="where to work")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="wombat-ticks-", dir=options.root))
    telescope = Telescope(width_px=320, height_px=256)
    fields = [
        random_field(n, telescope=telescope, ra_deg=request_of(n).ra_deg, dec_deg=CENTRE_DEG[1])
        for n in range(N_TARGETS)
    ]
    comps = [c for one in fields for c in vsp_chart(one, fov_arcmin=120.0)["photometry"]]
    try:
        with StandInAavso([], comps) as aavso:
            text = TOML.format(vsx=aavso.vsx_url, vsp=aavso.vsp_url)
            (root / config.CONFIG_NAME).write_text(text, encoding="utf-8")
            n_files = write_frames(root / "data", options.nights)
            observatory = open_observatory(root / config.CONFIG_NAME)
            timed(f"{n_files} frames read once", observatory.scan)
            write_history(observatory)
            print(f"{len(observatory.status.targets())} observations, {n_files} frames")
            found = measure(observatory)
        print(f"longest look: CPU {max(found):.2f} s, bar {BAR_S:g} s")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
