from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan.link.units import BadUnit, address, kilobits, milliseconds


@given(st.integers(0, 60_000))
def test_times(value: int) -> None:
    assert milliseconds(f"{value}ms") == value
    assert milliseconds(f"{value / 1000:.3f}s") == pytest.approx(value)


@given(st.integers(1, 100_000))
def test_bandwidths(value: int) -> None:
    assert kilobits(f"{value}kbit") == value
    assert kilobits(f"{value}mbit") == value * 1000
    assert kilobits(f"{value / 1000:.3f}gbit") == pytest.approx(value * 1000)


def test_no_limit() -> None:
    assert kilobits("unlimited") is None


@given(st.text())
def test_what_is_no_quantity_is_an_error_that_shows_it(text: str) -> None:
    for parse, units in ((milliseconds, ("ms", "s")), (kilobits, ("kbit", "mbit", "gbit", "unlimited"))):
        if not text.endswith(units):
            with pytest.raises(BadUnit) as caught:
                parse(text)
            assert text in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["80", "80 ms", "-80ms", "+80ms", "80MS", "80m", "ms", "1e3ms", "nanms", "infs", "٣ms", "0.5.ms", "61s", "80ms "],
)
def test_times_are_strict(text: str) -> None:
    with pytest.raises(BadUnit, match=r"80ms or 0.6s|at most 60s"):
        milliseconds(text)


@pytest.mark.parametrize("text", ["2", "2mb", "2Mbit", "2 mbit", "0kbit", "0.0mbit", "-1kbit", "none", "101gbit", ""])
def test_bandwidths_are_strict(text: str) -> None:
    with pytest.raises(BadUnit, match=r"mbit|above 0"):
        kilobits(text)


@given(st.integers(0, 65535))
def test_addresses(port: int) -> None:
    assert address(f"{port}") == ("127.0.0.1", port)
    assert address(f"cloud:{port}") == ("cloud", port)
    assert str(address(f"[::1]:{port}")) == f"[::1]:{port}"


@pytest.mark.parametrize(
    "text", ["", ":", ":80", "cloud", "cloud:", "cloud:65536", "::1:80", "http://cloud:80", "a b:1", "x:٣"]
)
def test_addresses_are_strict(text: str) -> None:
    with pytest.raises(BadUnit, match="HOST:PORT"):
        address(text)
