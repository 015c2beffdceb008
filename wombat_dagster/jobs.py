"""The two jobs: a night's masters, and one observation from raw frames to light curve."""

import dagster as dg

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
    "comp_list",
    "photometry_table",
    "standard_magnitudes",
    "light_curve",
    "diagnostics",
)

night_job = dg.define_asset_job(
    "night_job",
    selection=list(NIGHT_ASSETS),
    description="Master bias, darks and flats of one night",
    executor_def=dg.in_process_executor,
)
magnitudes_job = dg.define_asset_job(
    "magnitudes_job",
    selection=["standard_magnitudes", "light_curve", "diagnostics"],
    description="Standard magnitudes again, when another filter of the same night is there",
    executor_def=dg.in_process_executor,
)
observation_job = dg.define_asset_job(
    "observation_job",
    selection=list(OBSERVATION_ASSETS),
    description="One observation, from the choice of masters to the light curve",
    executor_def=dg.in_process_executor,
)
