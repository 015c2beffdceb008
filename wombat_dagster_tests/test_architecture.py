"""The layers hold: an import that points the wrong way fails here."""

import ast
from pathlib import Path

import pytest

import wombat_dagster

ROOT = Path(wombat_dagster.__file__).parent
LAYERS = {
    "domain": set(),
    "config": {"domain"},
    "tangent": {"domain"},
    "science": {"domain", "tangent"},
    "solvers": {"domain", "config", "tangent"},
    "catalogs": {"domain", "config"},
    "store": {"domain", "config"},
    "reports": {"domain", "config"},
    "simulate": {"domain"},
    "observatory": {"domain", "config", "store", "catalogs", "solvers"},
    "products": {"domain", "observatory", "reports", "store"},
    "stages": {
        "domain",
        "config",
        "science",
        "solvers",
        "catalogs",
        "store",
        "reports",
        "observatory",
        "products",
    },
}
FREE_OF = {layer: {"dagster"} for layer in LAYERS}
FREE_OF["science"] |= {"sqlite3", "httpx", "pathlib", "os", "socket"}
FREE_OF["simulate"] |= {"photutils", "ccdproc", "sep", "astroalign", "pandas"}


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = [f for f in sorted(ROOT.rglob("*.py")) if layer_of(f) in LAYERS]


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_no_import_points_the_wrong_way(file):
    layer = layer_of(file)
    allowed = LAYERS[layer] | {layer}
    for name in imports_of(file):
        parts = name.split(".")
        if parts[0] == "wombat_dagster" and len(parts) > 1:
            assert parts[1] in allowed, f"{layer} must not know {name}"
        assert parts[0] not in FREE_OF[layer], f"{layer} must not import {name}"


def test_every_layer_is_looked_at():
    assert {layer_of(f) for f in FILES} == set(LAYERS)
