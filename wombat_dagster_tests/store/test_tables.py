"""What is stored comes back exactly."""

import dataclasses
import datetime as dt
import io
import math
import typing

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from hypothesis import given, settings
from hypothesis import strategies as st

from wombat_dagster import domain
from wombat_dagster.store import tables

RNG = np.random.default_rng(42)


def arrays_of(kind, shape):
    """An instance of a dataclass of arrays, filled at random, with NaNs where floats are."""
    held = {}
    for name, hint in typing.get_type_hints(kind).items():
        if hint == domain.BoolArray:
            held[name] = RNG.random(shape) > 0.5
        elif hint == domain.FloatArray:
            held[name] = np.where(RNG.random(shape) > 0.1, RNG.normal(size=shape) * 1e5, np.nan)
        else:
            held[name] = RNG.integers(0, 127, shape)
    return kind(**held)


def photometry(n_frames=3, **changes):
    star = domain.ApertureStar(
        role="T1",
        name='α <Ori> $x_1$ "q"\n2',
        auid=None,
        ra_deg=0.1 + 0.2,
        dec_deg=-0.0,
        catalogue_mag=None,
        catalogue_error_mag=1e-300,
    )
    fields = {
        "target": "Ünïcode, 'quotes' #1",
        "filter": "V",
        "band": "V",
        "comp_band": "V",
        "band_confirmed": False,
        "chart_id": "X12345ABC",
        "variable": domain.Variable(name="TX Eri", ra_deg=1 / 3, dec_deg=-2 / 3, period_d=0.5),
        "labels": tuple(f"frame {i}, one.fits" for i in range(n_frames)),
        "raw_hashes": tuple("abc" for _ in range(n_frames)),
        "times": arrays_of(domain.FrameTimes, (n_frames,)),
        "exposure_s": np.full(n_frames, 30.0),
        "ccd_temperature_c": np.full(n_frames, np.nan),
        "frame_fwhm_px": RNG.normal(size=n_frames).astype(np.float32),
        "stars": (star, dataclasses.replace(star, role="T2", colour=0.3)),
        "measured": arrays_of(domain.StarMeasurements, (n_frames, 2)),
        "aperture": domain.Aperture(radius_px=5.1, sky_inner_px=10.2, sky_outer_px=20.4),
        "frame_height_px": 1024,
        "gain_e_adu": None,
        "read_noise_e": 8.0,
        "saturation_adu": 60000.0,
        "linearity_adu": 30000.0,
        "ledger": (
            domain.LedgerEntry(
                auid="000-A", label="11_1", role=None, reason=domain.Unused.CROWDED, detail="5 px"
            ),
        ),
        "notes": ("one", ""),
    }
    return domain.PhotometryTable(**fields | changes)


def standard(n_frames=4, **changes):
    floats = {
        name: np.where(np.arange(n_frames) == 1, np.nan, RNG.normal(size=n_frames) * 1e6)
        for name, hint in typing.get_type_hints(domain.StandardMagnitudes).items()
        if hint == domain.FloatArray
    }
    fields = floats | {
        "target": "TX Eri",
        "filter": "V",
        "band": "V",
        "comp_band": "V",
        "chart_id": "X1",
        "labels": tuple(f'#{i}, "a" b\'s.fits' for i in range(n_frames)),
        "raw_hashes": tuple(f"{i:08x}" for i in range(n_frames)),
        "t1_upper_limit": np.arange(n_frames) == 2,
        "n_comps": np.arange(n_frames, dtype=np.int64),
        "proposed_rejected": tuple("saturated,edge" if i == 2 else "" for i in range(n_frames)),
        "zp_err_mag": 0.1 + 0.2,
        "ensemble_reference_mag": 11.0,
        "check_name": None,
        "check_catalogue_mag": None,
        "check_catalogue_error_mag": None,
        "check_offset_mag": float("nan"),
        "check_scatter_mag": 1e-17,
        "transformation": domain.Transformation(coefficient=-0.06, coefficient_name="Tv_bv"),
        "transformed": True,
        "method": "ensemble+colour",
        "comp_names": ("000-A", "000-B"),
        "held_reason": "check star: 0.3 mag\nµ",
        "notes": (),
    }
    return domain.StandardMagnitudes(**fields | changes)


def assert_same(one, other):
    """Same types, same bits; NaN equals NaN."""
    assert type(one) is type(other)
    if isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes()
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name))
    elif isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, float) and math.isnan(one):
        assert math.isnan(other)
    else:
        assert one == other


# ---------------------------------------------------------------------------------- photometry


@pytest.mark.parametrize("n_frames", [0, 1, 3])
def test_a_photometry_table_comes_back_exactly(n_frames):
    table = photometry(n_frames)
    assert_same(tables.photometry_from_bytes(tables.photometry_to_bytes(table)), table)


def test_relative_fluxes_come_back_with_the_table():
    table = photometry(relative=arrays_of(domain.RelativeFluxes, (3, 2)))
    assert_same(tables.photometry_from_bytes(tables.photometry_to_bytes(table)), table)


def test_the_same_table_gives_the_same_bytes():
    table = photometry()
    assert tables.photometry_to_bytes(table) == tables.photometry_to_bytes(table)


def test_anyone_can_open_the_arrays_without_pickle():
    table = photometry()
    with np.load(io.BytesIO(tables.photometry_to_bytes(table)), allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["measured.flags"], table.measured.flags)
        assert "TX Eri" in str(stored["metadata"])


def test_an_array_of_objects_is_refused():
    with pytest.raises(TypeError, match="exposure_s is an array of Python objects"):
        tables.photometry_to_bytes(photometry(exposure_s=np.array([None, 1, 2])))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Relative:
    flux: domain.FloatArray


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    measured: domain.StarMeasurements


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class After:
    measured: domain.StarMeasurements
    relative: Relative | None = None
    extra: domain.FloatArray | None = None


@pytest.mark.parametrize("relative", [None, Relative(flux=np.array([1.0, np.nan]))])
def test_a_field_added_to_a_dataclass_is_stored(relative):
    measured = arrays_of(domain.StarMeasurements, (2, 2))
    value = After(measured=measured, relative=relative, extra=np.arange(3.0))
    assert_same(tables.arrays_from_bytes(After, tables.arrays_to_bytes(value)), value)


def test_what_was_stored_before_a_field_existed_gets_its_default():
    old = Before(measured=arrays_of(domain.StarMeasurements, (2, 2)))
    got = tables.arrays_from_bytes(After, tables.arrays_to_bytes(old))
    assert_same(got, After(measured=old.measured))


def test_star_tables_and_detections_are_stored_as_well():
    value = domain.StarTable(
        ra_deg=np.array([1.0]), dec_deg=np.array([2.0]), mag=np.array([np.nan]), name="x"
    )
    assert_same(tables.arrays_from_bytes(domain.StarTable, tables.arrays_to_bytes(value)), value)


def test_damaged_bytes_are_said_to_be():
    whole = tables.photometry_to_bytes(photometry())
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF
    other = tables.arrays_to_bytes(Relative(flux=np.zeros(2)))
    for data in (b"", b"PK", whole[: len(whole) // 2], bytes(flipped), other):
        with pytest.raises(tables.UnreadableProduct, match="PhotometryTable"):
            tables.photometry_from_bytes(data)


# ------------------------------------------------------------------------- standard magnitudes


@pytest.mark.parametrize("n_frames", [0, 1, 4])
def test_standard_magnitudes_come_back_exactly(n_frames):
    value = standard(n_frames)
    assert_same(tables.standard_from_text(tables.standard_to_text(value)), value)


@settings(max_examples=50, deadline=None)
@given(mag=st.floats(), label=st.text(st.characters(exclude_categories=["Cs"])), note=st.text())
def test_any_number_and_any_name_comes_back(mag, label, note):
    note = note.encode("utf-8", "replace").decode()
    value = standard(
        2,
        t1_mag=np.array([mag, -mag]),
        labels=(label, label),
        target=label,
        zp_err_mag=mag,
        notes=(note, label),
    )
    got = tables.standard_from_text(tables.standard_to_text(value))
    np.testing.assert_array_equal(got.t1_mag, value.t1_mag)
    assert (got.labels, got.target, got.notes) == (value.labels, label, value.notes)
    assert got.zp_err_mag == mag or math.isnan(mag)


def test_pandas_and_astropy_read_the_standard_magnitudes():
    value = standard(labels=tuple("abcd"))
    text = tables.standard_to_text(value)
    frame = pd.read_csv(io.StringIO(text), comment="#")
    np.testing.assert_allclose(frame["t1_mag"], value.t1_mag, rtol=1e-15)
    assert list(frame["t1_upper_limit"]) == list(value.t1_upper_limit)
    table = Table.read(text, format="ascii.csv", comment="#")
    np.testing.assert_allclose(table["jd_utc"], value.jd_utc, rtol=1e-15)
    assert list(table["labels"]) == list("abcd")


def test_a_person_can_read_the_head():
    text = tables.standard_to_text(standard(zp_err_mag=0.0123))
    assert '\n# target: "TX Eri"\n' in text
    assert "\n# zp_err_mag: 0.0123\n" in text


def test_a_cut_or_foreign_file_is_said_to_be():
    text = tables.standard_to_text(standard())
    cuts = ("", text[:100], text[: text.rindex(",")], text[: text.rstrip().rindex("\n") + 1])
    for bad in (*cuts, "a,b\n1,2\n", text.replace("True", ""), text.replace("nan", "unknown")):
        assert bad != text
        with pytest.raises(tables.UnreadableProduct, match="not stored standard magnitudes"):
            tables.standard_from_text(bad)


# ------------------------------------------------------------------------------------------ JSON

GROUP = domain.FrameGroup(width_px=10, height_px=20, binning="1x1", camera=None, readout="0")
MASTER = domain.Master(
    kind=domain.FrameKind.FLAT,
    date=dt.date(2025, 10, 15),
    filter="V",
    group=GROUP,
    path="x/mflatV.fits",
    content_hash="ab",
    n_used=5,
    n_refused=0,
    exposure_s=float("nan"),
    read_noise_adu=float("inf"),
    notes=("ß", "<&>"),
)
SEQUENCE = domain.CompSequence(
    chart_id="X1",
    ra_deg=0.1 + 0.2,
    dec_deg=-1e-17,
    fov_arcmin=60.0,
    maglimit=16.5,
    fetched_utc="2025-10-15T00:00:00",
    stars=(
        domain.CompStar(
            auid="000-A",
            label="118",
            ra_deg=1.0,
            dec_deg=2.0,
            bands={"V": domain.BandMagnitude(mag=11.8, error_mag=None)},
        ),
    ),
)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (domain.CalibrationChoice, domain.CalibrationChoice(
            bias=None, dark=None, flat=MASTER, reasons=("no bias",))),
        (domain.CompSequence, SEQUENCE),
        (domain.Observation, domain.Observation(
            date=dt.date(2016, 11, 9), target="a__b", filter="", key="k")),
        (tuple[domain.Master, ...], (MASTER, MASTER)),
        (tuple[domain.Master, ...], ()),
        (domain.FrameSolution, domain.FrameSolution(
            file="a.fits", status=domain.SolveStatus.PROPAGATED, solution=None,
            attempts=(domain.SolveAttempt(rung="1", solver="x", outcome="solved",
                                          fov_deg=None, radius_deg=1.5),))),
    ],
)  # fmt: skip
def test_a_domain_value_survives_json(kind, value):
    assert_same(tables.load_json(kind, tables.dump_json(value)), value)


def test_numpy_scalars_become_plain_numbers():
    aperture = domain.Aperture(
        radius_px=np.float32(5.5), sky_inner_px=np.float64(10), sky_outer_px=np.int64(20)
    )
    got = tables.load_json(domain.Aperture, tables.dump_json(aperture))
    assert got == domain.Aperture(radius_px=5.5, sky_inner_px=10.0, sky_outer_px=20.0)
    assert type(got.radius_px) is float


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"radius_px": "wide"}'])
def test_json_of_something_else_is_refused(text):
    with pytest.raises(tables.UnreadableProduct, match="Aperture"):
        tables.load_json(domain.Aperture, text)


def test_every_row_says_where_its_comps_are_from():
    one = standard(comp_source="APASS DR9 (VizieR)", made_with={"bias": "none"})
    text = tables.standard_to_text(one)
    rows = pd.read_csv(io.StringIO(text), comment="#")
    assert set(rows["comp_source"]) == {"APASS DR9 (VizieR)"}
    assert_same(tables.standard_from_text(text), one)


def test_magnitudes_from_before_that_was_written_still_load():
    one = standard(labels=("a", "b", "c", "d"))
    lines = tables.standard_to_text(one).splitlines(keepends=True)
    head = [line for line in lines if not line.startswith(("# comp_source", "# made_with"))]
    first = next(i for i, line in enumerate(head) if not line.startswith("#"))
    old = head[:first] + [f"{line.rstrip()[: line.rindex(',')]}\n" for line in head[first:]]
    assert "comp_source" not in "".join(old)
    assert len(head) == len(lines) - 2
    assert_same(tables.standard_from_text("".join(old)), one)
