"""The one place where a stage's begin and end become Dagster events, status rows and a log."""

import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from wombat_dagster.checks import check_results, no_product_results
from wombat_dagster.domain import ServiceUnavailable, Shortfall
from wombat_dagster.observatory import Observatory
from wombat_dagster.partitions import OBSERVATIONS, date_of_night
from wombat_dagster.stages.work import WHY_TAG

T = TypeVar("T")

Event = dg.Output[Any] | dg.AssetObservation | dg.AssetCheckResult

MAX_LOG_BYTES = 1_000_000
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def conclude(
    context: dg.AssetExecutionContext,
    observatory: Observatory,
    make: Callable[[], T],
    describe: Callable[[T], Mapping[str, Any]],
) -> Iterator[Event]:
    """Yield what Dagster shall see of `make`: a product, or its absence with the reason.

    A `Shortfall` and a service that is away end green: no output, the rest is skipped, the
    partition stays missing and the status row says why. Anything else is ours: it is raised. Of two
    runs on one partition the second waits for the first, stage by stage.
    """
    from wombat_dagster.products import PRODUCTS
    from wombat_dagster.remedies import remedy_of

    asset, key = context.asset_key.to_user_string(), context.partition_key
    is_observation = context.assets_def.partitions_def == OBSERVATIONS
    with _Stage(context, observatory, is_observation=is_observation) as stage:
        try:
            value = make()
        except (Shortfall, ServiceUnavailable) as ending:
            words = str(ending)
            if is_observation:
                observatory.status.record_shortfall(key, ending)
            stage.end(type(ending).__name__, words, ending)
            proc, apphot = (getattr(ending, name, None) for name in ("proc", "apphot"))
            said = remedy_of(proc, apphot, reason=words)
            status = {"status": str(word)} if (word := apphot or proc) else {}
            remedy = {"remedy": said.remedy} if said and said.remedy else {}
            yield dg.AssetObservation(
                asset_key=context.asset_key,
                partition=key,
                description=words,
                metadata={"reason": words, **status, **remedy, **stage.facts},
            )
            yield from no_product_results(context.asset_key, words)
            return
        version = dg.DataVersion(PRODUCTS[asset].version(value))
        metadata = {**describe(value), **stage.facts}
        if stage.warnings:
            metadata["warnings"] = dg.MetadataValue.json(list(dict.fromkeys(stage.warnings)))
        # The IO manager writes the product while the stage is still open.
        yield dg.Output(value, metadata=metadata, data_version=version)
        stage.end("made", None, value)
        yield from check_results(context.asset_key, value, observatory, key)


class _Stage:
    """One stage at work: locked, its begin and end written down, its log kept."""

    def __init__(
        self, context: dg.AssetExecutionContext, observatory: Observatory, *, is_observation: bool
    ) -> None:
        from wombat_dagster.store.stage_runs import StageRuns

        self.warnings: list[str] = []
        self._context, self._observatory = context, observatory
        self._asset, self._key = context.asset_key.to_user_string(), context.partition_key
        self._is_observation = is_observation
        self._rows = StageRuns(observatory.status.path)
        self._open = contextlib.ExitStack()
        self._ended = False

    def __enter__(self) -> "_Stage":
        from wombat_dagster.store.locks import held

        self._open.enter_context(held(self._beside(".lock")))
        self._inputs = self._inputs_now()
        self._number = self._rows.begin(
            self._key,
            self._asset,
            inputs=self._inputs,
            run_id=self._context.run.run_id,
            why=self._context.run.tags.get(WHY_TAG),
        )
        self._log = self._open.enter_context(
            _logged(self._beside("log.txt"), self._context.log, self.warnings)
        )
        self._log("%s begins in run %s", self._asset, self._context.run.run_id)
        self._write_settings()
        return self

    @property
    def facts(self) -> dict[str, Any]:
        """What Dagster shows of every end: why it was run, where its log and settings lie."""
        why = self._context.run.tags.get(WHY_TAG)
        return {
            **({"why": why} if why else {}),
            "log": dg.MetadataValue.path(str(self._beside("log.txt"))),
            "settings": dg.MetadataValue.path(str(self._beside("settings.toml"))),
        }

    def end(self, ending: str, words: str | None, found: Any) -> None:
        """Write down how it ended; `found` is the product, or the exception."""
        self._log("%s: %s%s", self._asset, ending, f": {words}" if words else "")
        if words:
            self._context.log.warning("%s: %s: %s", self._key, ending, words)
        inputs = {**self._inputs, **self._found(found)}
        self._rows.end(self._number, ending, words, inputs=inputs)
        self._ended = True

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from wombat_dagster.store.stage_runs import FAILED

        try:
            if isinstance(error, Exception | GeneratorExit) and not self._ended:
                words = next(iter(str(error).splitlines()), "") or type(error).__name__
                if isinstance(error, GeneratorExit):
                    words = "the product could not be stored: see the run in the Dagster UI"
                with contextlib.suppress(Exception):  # a full disk: what is raised says so
                    self._log(
                        "%s failed:\n%s", self._asset, "".join(traceback.format_exception(error))
                    )
                    self._rows.end(self._number, FAILED, words, inputs=self._inputs)
        finally:
            self._open.close()

    def _beside(self, name: str) -> Path:
        layout = self._observatory.layout
        if self._is_observation:
            return layout.observation_dir(self._key) / name
        return layout.night_products_dir(self._key) / name

    def _inputs_now(self) -> dict[str, str]:
        from wombat_dagster.stages.inputs import Inputs

        inputs = Inputs(self._observatory, only=self._key)
        if not self._is_observation:
            return inputs.of_night(self._asset, date_of_night(self._key))
        observation = self._observatory.status.target_row(self._key).observation
        return inputs.of_observation(self._asset, observation)

    def _found(self, found: Any) -> dict[str, str]:
        """Return what the stage adds to its inputs."""
        from wombat_dagster.stages.inputs import Inputs, found_by

        if self._is_observation:
            return found_by(self._asset, found)
        return Inputs(self._observatory).found_in_night(self._asset, date_of_night(self._key))

    def _write_settings(self) -> None:
        """Write the configuration in force beside the products, when it is another one."""
        from wombat_dagster.store.frames import write_bytes_atomic
        from wombat_dagster.toml_text import toml_text

        values = self._observatory.settings.model_dump(mode="json", exclude={"base"})
        text = "# The settings that the newest of these products were made with.\n"
        data = (text + toml_text(values)).encode()
        path = self._beside("settings.toml")
        if not path.exists() or path.read_bytes() != data:
            write_bytes_atomic(path, data)


class _Listener(logging.Handler):
    """Passes wombat's own warnings on to Dagster's log of the run, and keeps them."""

    def __init__(self, to: logging.Logger, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.to, self.heard = to, heard

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())
        self.to.warning("%s", record.getMessage())


@contextlib.contextmanager
def _logged(file: Path, to: logging.Logger, warnings: list[str]) -> Iterator[Callable[..., None]]:
    """Write what wombat's modules log meanwhile to `file`, warnings also to Dagster.

    Gives what writes a line to the file alone.
    """
    if file.exists() and file.stat().st_size > MAX_LOG_BYTES:
        file.replace(file.with_name("log.1.txt"))
    kept = logging.FileHandler(file, encoding="utf-8", delay=True)
    kept.setFormatter(logging.Formatter(LOG_FORMAT))
    logger = logging.getLogger("wombat_dagster")
    before = logger.level
    logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    handlers = (kept, _Listener(to, warnings))
    for handler in handlers:
        logger.addHandler(handler)

    def line(text: str, *values: object) -> None:
        kept.handle(logging.LogRecord("wombat", logging.INFO, "", 0, text, values, None))

    try:
        yield line
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
        logger.setLevel(before)
        kept.close()
