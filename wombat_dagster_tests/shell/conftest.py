"""One observation with its masters made, to be run again and again."""

import datetime as dt

import pytest

from wombat_dagster.simulate.aavso import Service


@pytest.fixture(scope="session")
def service_place(open_place, tmp_path_factory):
    with open_place(tmp_path_factory.mktemp("services") / "obs") as place:
        place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
        assert place.run_night(dt.date(2025, 10, 14)) == {}
        yield place


@pytest.fixture
def services(service_place):
    """The place with both services well and nothing remembered of them."""
    service_place.forget_services()
    for service in Service:
        service_place.aavso.fail(service, "none")
    return service_place


@pytest.fixture(scope="session")
def ending():
    """Return the function that runs the observation, finished or not, and gives its row."""

    def run_again(place):
        assert place.run(night=dt.date(2025, 10, 14), nights=False) == {}
        return place.row("SV Wom")

    return run_again
