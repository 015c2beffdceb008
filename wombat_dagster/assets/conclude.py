"""The one place where a stage's end becomes Dagster events and a status row."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import dagster as dg

from wombat_dagster.checks import check_results, no_product_results
from wombat_dagster.domain import ServiceUnavailable, Shortfall
from wombat_dagster.observatory import Observatory
from wombat_dagster.partitions import OBSERVATIONS

T = TypeVar("T")

Event = dg.Output[Any] | dg.AssetObservation | dg.AssetCheckResult


def conclude(
    context: dg.AssetExecutionContext,
    observatory: Observatory,
    make: Callable[[], T],
    describe: Callable[[T], Mapping[str, Any]],
) -> Iterator[Event]:
    """Yield what Dagster shall see of `make`: a product, or its absence with the reason.

    A `Shortfall` and a service that is away end green: no output, the rest is skipped, the
    partition stays missing and the status row says why. Anything else is ours: it is raised.
    """
    from wombat_dagster.products import PRODUCTS

    asset, key = context.asset_key.to_user_string(), context.partition_key
    try:
        with _heard_warnings(context.log) as warnings:
            value = make()
    except (Shortfall, ServiceUnavailable) as ending:
        words = str(ending)
        if context.assets_def.partitions_def == OBSERVATIONS:
            observatory.status.record_shortfall(key, ending)
        context.log.warning("%s: %s: %s", key, type(ending).__name__, words)
        yield dg.AssetObservation(
            asset_key=context.asset_key,
            partition=key,
            description=words,
            metadata={"ending": type(ending).__name__, "reason": words},
        )
        yield from no_product_results(context.asset_key, words)
        return
    version = dg.DataVersion(PRODUCTS[asset].version(value))
    metadata = dict(describe(value))
    if warnings:
        metadata["warnings"] = dg.MetadataValue.json(list(dict.fromkeys(warnings)))
    yield dg.Output(value, metadata=metadata, data_version=version)
    yield from check_results(context.asset_key, value)


class _Listener(logging.Handler):
    """Passes wombat's own warnings on to Dagster's log of the run, and keeps them."""

    def __init__(self, to: logging.Logger) -> None:
        super().__init__(logging.WARNING)
        self.to, self.heard = to, list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())
        self.to.warning("%s", record.getMessage())


@contextlib.contextmanager
def _heard_warnings(to: logging.Logger) -> Iterator[list[str]]:
    """Give the list of the warnings that wombat's modules log meanwhile."""
    listener = _Listener(to)
    logger = logging.getLogger("wombat_dagster")
    logger.addHandler(listener)
    try:
        yield listener.heard
    finally:
        logger.removeHandler(listener)
