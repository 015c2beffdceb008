"""Which programs are at work: versions that explain a product years later."""

import importlib.metadata
import platform
from functools import cache

PACKAGES = ("wombat-dagster", "dagster", "astropy", "numpy", "scipy", "photutils")


@cache
def software_at_work() -> dict[str, str]:
    """Return the versions of Python and of the packages that make numbers, by name.

    The plate solver's stands with each solution.
    """
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # run from a directory that was never installed
    return found
