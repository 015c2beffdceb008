"""The partitions: one per night, one per observation (night, target, filter)."""

import datetime as dt

import dagster as dg

NIGHTS = dg.DynamicPartitionsDefinition(name="night")
OBSERVATIONS = dg.DynamicPartitionsDefinition(name="observation")


def date_of_night(key: str) -> dt.date:
    """Return the date of a night's partition key."""
    return dt.datetime.strptime(key, "%Y%m%d").date()  # noqa: DTZ007 - a date
