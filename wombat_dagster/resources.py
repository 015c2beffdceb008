"""The observatory as a Dagster resource."""

from pathlib import Path

import dagster as dg

from wombat_dagster.observatory import Observatory, open_observatory


class ObservatoryResource(dg.ConfigurableResource):
    """Gives assets and sensors the observatory; `config_file` None: see `config.config_path`."""

    config_file: str | None = None

    def open(self) -> Observatory:
        """Return the observatory in force."""
        return open_observatory(Path(self.config_file) if self.config_file else None)
