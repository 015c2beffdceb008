"""Pictures in the metadata of a materialisation."""

import base64

import dagster as dg

MAX_PICTURE_BYTES = 200_000  # in the metadata: they stand in Dagster's event log


def picture(png: bytes, name: str, *, legend: str = "") -> dg.MarkdownMetadataValue | str:
    """Return a PNG as metadata, words where it is too large; the file itself is never cut."""
    if len(png) > MAX_PICTURE_BYTES:
        return f"{len(png)} bytes: too large to show"
    encoded = base64.b64encode(png).decode()
    shown = f"![{name}](data:image/png;base64,{encoded})"
    return dg.MetadataValue.md(f"{shown}\n\n{legend}" if legend else shown)
