"""What Dagster loads: assets, jobs, sensors and resources of wombat."""

import dagster as dg

from wombat_dagster.assets import (
    astrometry,
    bad_pixels,
    calibration,
    masters,
    photometry,
    report,
    triage,
)
from wombat_dagster.io_managers import ProductIOManager
from wombat_dagster.jobs import JOBS
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.sensors.data import data_sensor
from wombat_dagster.sensors.recalibration import recalibration_sensor
from wombat_dagster.sensors.recovery import recovery_sensor

_observatory = ObservatoryResource()

defs = dg.Definitions(
    assets=dg.load_assets_from_modules(
        [masters, bad_pixels, calibration, astrometry, triage, photometry, report]
    ),
    jobs=list(JOBS),
    sensors=[data_sensor, recalibration_sensor, recovery_sensor],
    resources={
        "observatory": _observatory,
        "io_manager": ProductIOManager(observatory=_observatory),
    },
    executor=dg.in_process_executor,
)
