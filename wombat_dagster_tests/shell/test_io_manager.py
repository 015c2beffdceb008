"""Products and their rows: whole or not at all, the file first, the row after it."""

import dagster as dg
import pytest

from wombat_dagster.domain import Apphot, Proc, Variable
from wombat_dagster.io_managers import ProductIOManager
from wombat_dagster.jobs import NIGHT_ASSETS, OBSERVATION_ASSETS
from wombat_dagster.products import PRODUCTS, read_product
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.store import frames

KEY = "20251014__SV_Wom__V"
STAR = Variable(name="SV Wom", ra_deg=335.2, dec_deg=38.1, mag_bright=12.0, mag_faint=12.9)


@pytest.fixture
def lit(place):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.observatory.scan()
    return place


def output(asset="variable", key=KEY):
    return dg.build_output_context(asset_key=dg.AssetKey(asset), partition_key=key)


def manager():
    return ProductIOManager(observatory=ObservatoryResource())


def path_of(place, asset="variable"):
    return PRODUCTS[asset].path(place.observatory.layout, KEY)


def test_every_asset_has_a_product():
    assert set(PRODUCTS) == {*NIGHT_ASSETS, *OBSERVATION_ASSETS}
    assert len({product.file for product in PRODUCTS.values()}) == len(PRODUCTS)


def test_a_product_comes_back_as_it_was(lit):
    with lit.in_force() as observatory:
        manager().handle_output(output(), STAR)
        assert read_product(observatory, "variable", KEY) == STAR
        upstream = output()
        context = dg.build_input_context(
            asset_key=dg.AssetKey("variable"), partition_key=KEY, upstream_output=upstream
        )
        assert manager().load_input(context) == STAR


def test_equal_products_are_one_version(lit):
    with lit.in_force() as observatory:
        manager().handle_output(output(), STAR)
        version = observatory.status.product_version(KEY, "variable")
        manager().handle_output(output(), STAR)
        assert observatory.status.product_version(KEY, "variable") == version
    assert PRODUCTS["variable"].version(STAR) == version


def test_a_crash_before_the_row_leaves_a_product_without_a_row(lit, monkeypatch):
    def crash(*_args, **_kwargs):
        raise KeyboardInterrupt

    with lit.in_force() as observatory:
        monkeypatch.setattr(observatory.status, "record_product", crash)
        with pytest.raises(KeyboardInterrupt):
            manager().handle_output(output(), STAR)
        monkeypatch.undo()
    with lit.in_force() as observatory:
        assert path_of(lit).exists()
        assert observatory.status.product_version(KEY, "variable") is None
        manager().handle_output(output(), STAR)
        assert observatory.status.product_version(KEY, "variable") is not None
    assert lit.leftovers() == []


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_failing_disk_leaves_the_old_product_and_its_row(lit, monkeypatch, broken):
    def fail(*_args):
        raise OSError(28, "No space left on device")

    with lit.in_force() as observatory:
        manager().handle_output(output(), STAR)
        before = path_of(lit).read_bytes(), observatory.status.product_version(KEY, "variable")
        with monkeypatch.context() as patch:
            if broken == "replace":
                patch.setattr("pathlib.Path.replace", fail)
            else:
                patch.setattr("os.fsync", fail)
            with pytest.raises(OSError, match="No space left"):
                manager().handle_output(output(), Variable(name="X", ra_deg=1.0, dec_deg=2.0))
        after = path_of(lit).read_bytes(), observatory.status.product_version(KEY, "variable")
    assert after == before
    assert lit.leftovers() == []


def test_the_files_for_people_are_there_before_the_product_is_known(place):
    """AstroImageJ's table is written before the product that Dagster knows of."""
    place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
    assert place.run() == {}
    table = place.product("photometry_table", KEY)
    place.observatory.layout.phot_table_path(KEY).unlink()
    with place.in_force(), pytest.MonkeyPatch.context() as patch:
        written = []
        real = frames.write_bytes_atomic

        def noting(path, content):
            written.append(path.name)
            real(path, content)

        patch.setattr(frames, "write_bytes_atomic", noting)
        manager().handle_output(output("photometry_table"), table)
    assert written == ["SV_Wom_20251014_phot.tbl", "photometry.npz"]


def test_a_product_that_is_gone_is_said_to_be_missing(lit):
    with lit.in_force() as observatory, pytest.raises(FileNotFoundError):
        read_product(observatory, "variable", KEY)


def test_success_writes_its_words_with_the_row(place):
    """proc goes from calibrated to solved as the products come; apphot waits for the last."""
    place.take("20251014/Light/SV Wom/*V.fit")
    place.aavso.fail("vsx", "500")
    place.run()
    row = place.row("SV Wom")
    assert (row.proc_bias, row.proc, row.apphot) == ("nocal", Proc.SOLVED, Apphot.VSXDOWN)
    status = place.observatory.status
    versions = {asset: status.product_version(KEY, asset) for asset in OBSERVATION_ASSETS}
    assert [asset for asset, version in versions.items() if version] == [
        "calibration_choice", "reduced_frames", "wcs_solutions", "frame_triage",
    ]  # fmt: skip
