"""What all pictures share: colours, names made safe to draw, a figure as PNG bytes.

Figures are made without pyplot, so nothing global is touched and no window can open. Names come
from catalogues and directories: they are never read as mathtext, and a sign the font lacks is drawn
as a box instead of being warned of.
"""

import contextlib
import io
import unicodedata
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI: Final = 100
COLOURS_IN_FILE: Final = 128  # of pictures with many points or greys: a third of the bytes

T1_COLOUR: Final = "#1f5fa8"
T2_COLOUR: Final = "#b3312c"
QUIET_COLOUR: Final = "#777777"
HELD_COLOUR: Final = "#a05000"
ALARM_COLOUR: Final = "#d95f00"


def clean(text: str, width: int | None = None) -> str:
    """Return `text` on one line, without control characters, cut to `width` characters."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    line = "".join(c for c in line if unicodedata.category(c)[0] != "C")
    if width is not None and len(line) > width:
        return line[: width - 1] + "…"
    return line


def png_of(figure: "Figure") -> bytes:
    """Return a figure as a PNG; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with _boxes_for_missing_signs():
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def small_png_of(figure: "Figure") -> bytes:
    """Return a figure as a PNG with a palette: as good, and a third of the bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)  # it has no types
    with _boxes_for_missing_signs():
        canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    # Median cut would spend its colours on the greys; the marks' few pixels keep theirs in octrees.
    small = pixels.quantize(
        COLOURS_IN_FILE, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
    )
    buffer = io.BytesIO()
    small.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


@contextlib.contextmanager
def _boxes_for_missing_signs() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        yield
