"""The partitions: one per night, one per observation (night, target, filter)."""

import dagster as dg

NIGHTS = dg.DynamicPartitionsDefinition(name="night")
OBSERVATIONS = dg.DynamicPartitionsDefinition(name="observation")
