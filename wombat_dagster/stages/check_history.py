"""What check stars said on the nights before, and what tonight's adds to that.

Before means by date, whenever it was run: a night never judges itself when it is run again, nor a
night before it. An older night that arrives late is judged by those before it alone; it counts for
later nights that are run from then on, and those already run keep their verdict until they are run
again.
"""

import datetime as dt

from wombat_dagster.domain import CheckNight, Observation, PhotometryTable, StandardMagnitudes
from wombat_dagster.observatory import Observatory
from wombat_dagster.science.check_star import agreeing, check_night
from wombat_dagster.science.series import star_name


def nights_before(
    observatory: Observatory, observation: Observation, table: PhotometryTable
) -> list[CheckNight]:
    """Return the earlier nights of the same variable, band and camera by date, oldest first."""
    nights = observatory.status.check_nights(table.variable.identity, table.band, table.camera)
    return [night for night in nights if night.date < observation.date]


def same_check_star(
    nights: list[CheckNight], table: PhotometryTable, *, since: dt.date | None = None
) -> list[CheckNight]:
    """Return the nights with tonight's T2 that may judge it, from `since` on.

    `since` is the first night of the instrument's epoch: other optics see another T2.
    """
    t2 = table.star_index("T2")
    name = None if t2 is None else star_name(table.stars[t2])
    return agreeing(
        [
            night
            for night in nights
            if night.check_name == name and (since is None or night.date >= since)
        ]
    )


def change_of_check_star(nights: list[CheckNight], table: PhotometryTable) -> list[str]:
    """Return a note when T2 is another star than on the last of the nights before."""
    t2 = table.star_index("T2")
    if t2 is None or not nights or nights[-1].check_name == star_name(table.stars[t2]):
        return []
    last = nights[-1]
    return [
        f"check star is {star_name(table.stars[t2])}, on {last.date} it was {last.check_name}",
    ]


def remember(
    observatory: Observatory,
    observation: Observation,
    table: PhotometryTable,
    magnitudes: StandardMagnitudes,
) -> None:
    """Record what tonight's T2 says; nothing when it was not measured."""
    night = check_night(
        magnitudes,
        key=observation.key,
        date=observation.date,
        star=table.variable.identity,
    )
    observatory.status.record_check_night(observation.key, night)
