"""What lies on disk for a night: flats sorted by filter, every frame looked at and recorded."""

import datetime as dt
import logging

from wombat_dagster.domain import NoFrames, RawFrame
from wombat_dagster.observatory import Observatory
from wombat_dagster.store.layout import night_directories, sort_flats

log = logging.getLogger(__name__)


def organise_night(observatory: Observatory, date: dt.date) -> tuple[RawFrame, ...]:
    """Sort the night's flats by filter, look again, and return the night's frames.

    Raises
    ------
    NoFrames
        Nothing that counts lies there: an empty night, or one without lights.
    """
    observatory.scan([date])
    mode = observatory.settings.calibration.organise_flats
    frames = observatory.status.night_frames(date)
    moved = 0
    for night in night_directories(observatory.layout.data):
        if night.date == date:
            done = sort_flats(night.path, frames, mode=mode)
            moved += len(done.moved)
            for words in done.warnings:
                log.warning("%s: %s", night.name, words)
    if moved:
        log.info("%s: %d flats sorted by filter", date, moved)
        observatory.scan([date])
        frames = observatory.status.night_frames(date)
    if not frames:
        raise NoFrames(f"{date}: no frames, or no lights among them: the night is ignored")
    return tuple(frames)
