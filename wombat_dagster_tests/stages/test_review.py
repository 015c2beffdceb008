"""What the review page is told: the list, the points of a curve, earlier nights, pictures."""

import dataclasses
import datetime as dt
import json
import shutil

import numpy as np
import pytest

from wombat_dagster import domain
from wombat_dagster.domain import Flag
from wombat_dagster.reports.frame_pictures import thumbnails_of
from wombat_dagster.stages import decisions, review
from wombat_dagster.stages.review import View, flag_words, view_of
from wombat_dagster.store.frame_facts import read_frame_facts
from wombat_dagster.store.report_ledger import NewLine, ReportLedger
from wombat_dagster.store.tables import UnreadableProduct, photometry_to_bytes
from wombat_dagster_tests import review_nights as nights
from wombat_dagster_tests.approved_nights import an_observatory
from wombat_dagster_tests.magnitude_tables import with_flag

WHO = "XYZ"


@pytest.fixture
def observatory(tmp_path):
    return an_observatory(tmp_path)


# ------------------------------------------------------------------------------------ the list


@pytest.mark.parametrize(
    ("columns", "view"),
    [
        ({"apphot": "validate"}, View.WAITING),
        ({"apphot": "held"}, View.HELD),
        ({"apphot": "novsp"}, View.PARKED),
        ({"apphot": None, "proc": "noframes"}, View.PARKED),
        ({"apphot": None, "proc": "solved"}, View.UNFINISHED),
        ({"apphot": None, "proc": None}, View.UNFINISHED),
        ({"submitted": "approved"}, View.APPROVED),
        ({"submitted": "exported"}, View.EXPORTED),
        ({"submitted": "submitted"}, View.EXPORTED),
        ({"submitted": "usrrej", "apphot": "held"}, View.REJECTED),
        ({"submitted": "2025-10-20"}, View.EXPORTED),  # the owner's own word of the past
    ],
)
def test_what_the_person_decided_comes_before_what_the_pipeline_says(observatory, columns, view):
    nights.write_row(observatory, nights.key_of(nights.FIRST, "TX Eri", "V"), **columns)
    (row,) = observatory.status.targets()
    assert view_of(row) == view


def test_the_list_is_newest_first_and_opens_no_file(observatory):
    for number in range(3):
        nights.waiting(
            observatory, nights.a_night(target=f"S{number}"),
            date=nights.FIRST + dt.timedelta(days=number),
        )  # fmt: skip
    nights.write_row(
        observatory, nights.key_of(nights.FIRST, "Dark", "V"), target="Dark", apphot="novsp"
    )
    nights.write_row(
        observatory, nights.key_of(nights.FIRST, "Gone", "V"), target="Gone",
        retired_utc="2025-11-01T00:00:00+00:00",
    )  # fmt: skip
    before = review.overview(observatory)
    shutil.rmtree(observatory.layout.products)
    assert review.overview(observatory) == before
    assert [one["target"] for one in before["observations"]] == ["S2", "S1", "S0", "Dark"]
    assert before["counts"]["waiting"] == 3
    assert before["parked"] == {"novsp": 1}


def test_the_list_tells_a_page_that_somebody_decided(observatory):
    key = nights.waiting(observatory)
    assert review.overview(observatory)["observations"][0]["seen"] == 0
    done = decisions.approve(observatory, key, who=WHO)
    assert review.overview(observatory)["observations"][0]["seen"] == done.id


# ---------------------------------------------------------------------------------- the points


def test_every_point_says_what_its_frame_was_like(observatory):
    table = nights.a_night()
    table = with_flag(with_flag(table, 4, 0, Flag.SATURATED | Flag.CLOUD), 5, 1, Flag.NEAR_EDGE)
    key = nights.waiting(observatory, table)
    nights.write_pictures(observatory, key, table)
    points = review.observation(observatory, key)["points"]
    assert points["raw_hash"] == list(table.raw_hashes)
    assert points["fwhm"] == pytest.approx(table.frame_fwhm_px, abs=0.005)
    assert points["flags"][3:6] == ["", "T1: saturated, cloud", "T2: near the edge"]
    assert points["faults"][:3] == ["", "stars 0.31 mag dimmer", ""]
    json.dumps(points, allow_nan=False)


def test_frames_are_told_apart_by_their_pixels_not_by_their_place(observatory):
    """The magnitudes lack the first frame of the table: FWHM and flags are of the others."""
    table = nights.a_night()
    made = nights.standardised(table)
    names = [f.name for f in dataclasses.fields(made)]
    later = {n: v[1:] for n in names if isinstance(v := getattr(made, n), np.ndarray)}
    later |= {n: getattr(made, n)[1:] for n in ("labels", "raw_hashes", "proposed_rejected")}
    key = nights.waiting(observatory, table, magnitudes=dataclasses.replace(made, **later))
    points = review.observation(observatory, key)["points"]
    assert points["fwhm"] == pytest.approx(table.frame_fwhm_px[1:], abs=0.005)


def test_what_is_not_known_is_none_in_every_column(observatory):
    table = nights.a_night()
    made = nights.standardised(table)
    for name in ("t1_mag", "t1_merr_mag", "t2_mag", "airmass", "hjd_utc"):
        getattr(made, name)[3] = np.nan
    key = nights.waiting(observatory, table, magnitudes=made)
    shown = review.observation(observatory, key)
    points = shown["points"]
    assert [points[c][3] for c in ("t1", "t1_error", "t2", "airmass", "phase")] == [None] * 5
    json.dumps(shown, allow_nan=False)


def test_an_observation_without_magnitudes_says_why(observatory):
    key = nights.key_of(nights.FIRST, "TX Eri", "V")
    nights.write_row(observatory, key, apphot="novsp", reason="VSP: time-out after 20 s")
    shown = review.observation(observatory, key)
    assert shown["points"] is None
    assert shown["no_points"] == "VSP: time-out after 20 s"


def test_a_damaged_file_is_no_reason_to_show_nothing(observatory):
    key = nights.waiting(observatory)
    directory = observatory.layout.observation_dir(key)
    for name in ("magnitudes.csv", "photometry.npz", "variable.json"):
        (directory / name).write_bytes(b"\xff\x00 not what it was")
    shown = review.observation(observatory, key)
    assert "damaged" in shown["no_points"]
    assert shown["star"] is None


def test_the_check_star_is_alarming_only_beyond_what_is_allowed(observatory):
    table = nights.a_night()
    made = nights.standardised(table)
    for allowed, tone in ((10.0, "good"), (1e-6, "warn")):
        key = nights.waiting(
            observatory, dataclasses.replace(table, target=tone),
            magnitudes=dataclasses.replace(
                made, check_allowed_mag=allowed, check_reference_mag=made.check_catalogue_mag
            ),
        )  # fmt: skip
        facts = {one["label"]: one for one in review.observation(observatory, key)["facts"]}
        assert facts["Check offset"]["tone"] == tone


def test_phases_are_of_the_stars_own_period_unless_wombat_toml_says_another(tmp_path):
    """By hand: (HJD - 2460963.4) / 0.5439, or / 0.25, less whole cycles."""
    table = nights.a_night()
    hjd = table.times.hjd_utc[7]
    for tables, period_d in (({}, 0.5439), ({"target": [_target("TX Eri", 0.25)]}, 0.25)):
        observatory = an_observatory(tmp_path / str(period_d), **tables)
        key = nights.waiting(observatory, table)
        shown = review.observation(observatory, key)
        cycles = (hjd - 2460963.4) / period_d
        assert shown["points"]["phase"][7] == pytest.approx(cycles % 1, abs=2e-5)
        assert shown["fold"]["period_d"] == period_d


def _target(directory, period_d):
    return {"directory": [directory], "period_d": period_d}


def test_without_a_period_there_is_nothing_to_fold(observatory):
    star = nights.star(period_d=None, epoch_hjd=None)
    key = nights.waiting(observatory, nights.a_night(variable=star))
    shown = review.observation(observatory, key)
    assert shown["fold"] is None
    assert shown["points"]["phase"] is None


def test_a_star_found_by_position_waits_for_the_persons_word(observatory):
    star = nights.star(match="position")
    key = nights.waiting(observatory, nights.a_night(variable=star))
    assert review.observation(observatory, key)["to_confirm"] is True
    decisions.confirm_star(observatory, key, who=WHO)
    assert review.observation(observatory, key)["to_confirm"] is False


# ----------------------------------------------------------------------------- earlier nights


def test_earlier_nights_are_of_the_same_star_in_the_same_band_and_before(observatory):
    other_star = nights.star("Other", oid="99", ra_deg=90.0)
    days = [nights.FIRST + dt.timedelta(days=i) for i in range(5)]
    for date, table in (
        (days[0], nights.a_night(date=days[0])),
        (days[1], nights.a_night(date=days[1], filter="B", band="B", comp_band="B")),
        (days[2], nights.a_night(date=days[2], variable=other_star)),
        (days[3], nights.a_night(date=days[3])),
        (days[4], nights.a_night(date=days[4])),
    ):
        nights.waiting(observatory, table, date=date)
    found = review.earlier_nights(observatory, nights.key_of(days[3], "TX Eri", "V"))
    assert [one["night"] for one in found] == [days[0].isoformat()]


def test_earlier_nights_are_without_what_was_rejected(observatory):
    days = [nights.FIRST, nights.FIRST + dt.timedelta(days=1)]
    tables = [nights.a_night(date=date) for date in days]
    keys = [
        nights.waiting(observatory, table, date=date)
        for date, table in zip(days, tables, strict=True)
    ]
    decisions.reject_points(observatory, keys[0], tables[0].raw_hashes[:5], who=WHO)
    (found,) = review.earlier_nights(observatory, keys[1])
    assert len(found["jd"]) == len(found["mag"]) == len(found["phase"]) == 15
    decisions.reject(observatory, keys[0], who=WHO, why="clouds")
    assert review.earlier_nights(observatory, keys[1]) == []


def test_points_that_were_reported_and_rejected_since_are_named_with_what_to_do(observatory):
    table = nights.a_night()
    key = nights.waiting(observatory, table)
    decisions.approve(observatory, key, who=WHO)
    lines = [
        NewLine(
            observer=WHO, star="TX Eri", band="V", jd=f"2460963.{i + 1}", content_hash="1",
            line="…", key=key, raw_hash=table.raw_hashes[i],
        )
        for i in range(3)
    ]  # fmt: skip
    ledger = ReportLedger(observatory.status.path)
    ledger.record(lines, file="a.txt", who=WHO)
    ledger.submit(file="a.txt", who=WHO)
    assert review.observation(observatory, key)["notes"] == []
    decisions.reject_points(observatory, key, table.raw_hashes[1:5], who=WHO)
    assert review.observation(observatory, key)["notes"] == [
        "Rejected after it was reported: delete at the AAVSO: TX Eri, V, JD 2460963.2, 2460963.3"
    ]


# ------------------------------------------------------------------------------------ pictures


def test_every_frame_has_its_own_picture(observatory):
    table = nights.a_night()
    key = nights.waiting(observatory, table)
    nights.write_pictures(observatory, key, table)
    greys = [_grey(review.thumbnail_jpeg(observatory, key, x)) for x in table.raw_hashes[:6]]
    assert greys == pytest.approx([0, 10, 20, 30, 40, 50], abs=1)
    assert review.thumbnail_jpeg(observatory, key, table.raw_hashes[-1]) is None
    assert review.thumbnail_jpeg(observatory, key, "../../x") is None


def test_a_page_of_frames_of_another_run_gives_no_wrong_pictures(observatory):
    table = nights.a_night()
    key = nights.waiting(observatory, table)
    nights.write_pictures(observatory, key, table)
    path = observatory.layout.product_path(key, "frames.html")
    text = path.read_text()
    head, first, rest = text.partition("<tr class='best'>")
    path.write_text(head + first + rest + "<tr class=''><td></td></tr>")
    assert review.thumbnail_jpeg(observatory, key, table.raw_hashes[0]) is None


def test_a_row_without_or_with_a_damaged_picture_has_none():
    good = "<tr class='x'><img src='data:image/jpeg;base64,/9j/'></tr>"
    assert thumbnails_of(f"<table>{good}<tr class='x'><td>no</td></tr>") == (b"\xff\xd8\xff", None)
    assert thumbnails_of("<tr class='x'><img src='data:image/jpeg;base64,/9j'></tr>") == (None,)


def _grey(jpeg):
    import io

    from PIL import Image

    return float(np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).mean())


# --------------------------------------------------------------------------------- frame facts


def test_the_facts_of_frames_are_those_of_the_whole_table(tmp_path):
    table = with_flag(nights.a_night(field_mags=(12.0, 13.0)), 2, 1, Flag.BLENDED)
    path = tmp_path / "photometry.npz"
    path.write_bytes(photometry_to_bytes(table))
    facts = read_frame_facts(path)
    assert facts.raw_hashes == table.raw_hashes
    np.testing.assert_array_equal(facts.fwhm_px, table.frame_fwhm_px)
    np.testing.assert_array_equal(facts.t1_flags, table.measured.flags[:, 0])
    assert facts.t2_flags[2] == Flag.BLENDED


def test_a_damaged_table_is_said_to_be(tmp_path):
    path = tmp_path / "photometry.npz"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(UnreadableProduct, match=r"photometry\.npz"):
        read_frame_facts(path)


def test_every_flag_has_words():
    bits = [value for name, value in vars(domain.Flag).items() if name.isupper()]
    words = [flag_words(bit) for bit in bits]
    assert all(words)
    assert len(set(words)) == len(bits)
    assert flag_words(0) == ""
