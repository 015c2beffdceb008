"""Where the calibrated pixels of an observation come from."""

from pathlib import Path

from wombat_dagster.domain import ReducedFrame
from wombat_dagster.observatory import Observatory


def kept_path(observatory: Observatory, frame: ReducedFrame) -> Path:
    """Return the file of a reduced frame that is kept."""
    assert frame.path is not None
    return observatory.layout.product_file(frame.path)
