"""The jobs: a night's masters, and one observation, whole or from where something changed."""

import dagster as dg

from wombat_dagster.stages.work import (
    MAGNITUDES_JOB,
    NIGHT_JOB,
    OBSERVATION_JOB,
    REPORT_JOB,
    STARS_JOB,
    TRIAGE_JOB,
)

NIGHT_ASSETS = (
    "raw_frames",
    "master_bias",
    "master_darks",
    "master_flats",
    "detector_noise",
    "bad_pixels",
)
OBSERVATION_ASSETS = (
    "calibration_choice",
    "reduced_frames",
    "wcs_solutions",
    "variable",
    "frame_triage",
    "comp_list",
    "photometry_table",
    "standard_magnitudes",
    "light_curve",
    "diagnostics",
)

STARS_ASSETS = OBSERVATION_ASSETS[OBSERVATION_ASSETS.index("variable") :]
MAGNITUDES_ASSETS = OBSERVATION_ASSETS[OBSERVATION_ASSETS.index("standard_magnitudes") :]

night_job = dg.define_asset_job(
    NIGHT_JOB,
    selection=list(NIGHT_ASSETS),
    description="Master bias, darks and flats of one night",
    executor_def=dg.in_process_executor,
)
observation_job = dg.define_asset_job(
    OBSERVATION_JOB,
    selection=list(OBSERVATION_ASSETS),
    description="One observation, from the choice of masters to the light curve",
    executor_def=dg.in_process_executor,
)
stars_job = dg.define_asset_job(
    STARS_JOB,
    selection=list(STARS_ASSETS),
    description="One observation from the variable on: another chart, other comparison stars",
    executor_def=dg.in_process_executor,
)
magnitudes_job = dg.define_asset_job(
    MAGNITUDES_JOB,
    selection=list(MAGNITUDES_ASSETS),
    description="Standard magnitudes again, when another filter of the same night is there",
    executor_def=dg.in_process_executor,
)
triage_job = dg.define_asset_job(
    TRIAGE_JOB,
    selection=["frame_triage"],
    description="The frames of one observation judged again: another site",
    executor_def=dg.in_process_executor,
)
report_job = dg.define_asset_job(
    REPORT_JOB,
    selection=["aavso_report"],
    description="The file for the AAVSO of one approved observation",
    executor_def=dg.in_process_executor,
)
JOBS = (night_job, observation_job, stars_job, magnitudes_job, triage_job, report_job)
