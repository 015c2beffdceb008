"""The sensors: they find out what is new and ask for runs."""

import logging
import tomllib

from pydantic import ValidationError

from wombat_dagster import config

log = logging.getLogger(__name__)


def interval_s() -> int:
    """Return how often the sensors look, fixed when the code is loaded.

    With a broken ``wombat.toml`` it is the default: the code loads, and every tick says what is
    wrong with the file.
    """
    try:
        return config.load().sensors.interval_s
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        default = config.SensorSettings().interval_s
        log.warning("sensors look every %d s: %s: %s", default, config.config_path(), error)
        return default
