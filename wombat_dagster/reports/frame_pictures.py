"""Takes the thumbnails out of the page of frames that `frames.frames_html` writes."""

import base64
import binascii
import re
from typing import Final

_ROW: Final = "<tr class='"
_MARK: Final = "src='data:image/jpeg;base64,"
_JPEG: Final = re.compile(_MARK + "([A-Za-z0-9+/=]+)'")


def thumbnails_of(page: str) -> tuple[bytes | None, ...]:
    """Return the JPEG of every row of the page, in its order: that of the frames that were used.

    None where a frame has no picture, or its picture is damaged.
    """
    _, *rows = page.split(_ROW)
    return tuple(_picture(row) for row in rows)


def pictured_rows(page: str) -> tuple[bool, ...]:
    """Tell of every row of the page, in its order, whether it has a picture."""
    _, *rows = page.split(_ROW)
    return tuple(_MARK in row for row in rows)


def _picture(row: str) -> bytes | None:
    found = _JPEG.search(row)
    if found is None:
        return None
    try:
        return base64.b64decode(found[1], validate=True)
    except binascii.Error:
        return None
