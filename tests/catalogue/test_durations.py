"""Durations: exact arithmetic, one spelling for each."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ravine.catalogue.durations import canonical, parse, steps
from ravine.errors import InputError

amounts = st.decimals(0, 10**9, places=9).map("{:f}".format) | st.integers(0, 10**12).map(str)
before, between, units = map(st.sampled_from, (["", " ", "00"], ["", " "], ["ep", "it", "%"]))
written = st.builds("{}{}{}{}".format, before, amounts, between, units)


@given(written)
def test_canonical_changes_the_spelling_alone(text):
    assert parse(canonical(text)) == parse(text)
    assert canonical(canonical(text)) == canonical(text)


def test_more_than_any_machine_trains_is_refused():
    assert parse("1000000000000ep")[0] == 10**12
    for text in ("1000000000000.1ep", f"{10**200}it", "9999999999999%"):
        with pytest.raises(InputError, match="at most 1,000,000,000,000"):
            parse(text)


@given(written, written)
def test_equal_durations_have_one_spelling(one, other):
    assert (parse(one) == parse(other)) == (canonical(one) == canonical(other))


@pytest.mark.parametrize(
    "text", [" 5.0 % -> 5%", "007ep -> 7ep", "0.50ep -> 0.5ep", "0.00001ep -> 0.00001ep"]
)
def test_spellings(text):
    said, _, form = text.partition(" -> ")
    assert canonical(said) == form


@given(st.integers(0, 10**6), st.integers(1, 10**5), st.integers(1, 10**7))
def test_whole_amounts_are_exact(n, epoch_steps, total):
    assert steps(f"{n}it", epoch_steps) == n
    assert steps(f"{n}ep", epoch_steps) == n * epoch_steps
    assert steps("100%", epoch_steps, total) == total


@given(st.decimals(0, 1000, places=4), st.integers(1, 10**5), st.integers(0, 10**7))
def test_to_the_nearest_step_halves_up(amount, epoch_steps, total):
    for unit, whole in (
        ("ep", Fraction(epoch_steps)),
        ("%", Fraction(total, 100)),
        ("it", Fraction(1)),
    ):
        exact = Fraction(amount) * whole
        found = steps(f"{amount:f}{unit}", epoch_steps, total)
        assert exact - Fraction(1, 2) < found <= exact + Fraction(1, 2)


NO_DURATIONS = [
    30,
    2.5,
    None,
    "",
    "ep",
    "30",
    "30 epochs",
    "-1ep",
    "1e3it",
    "5%%",
    "٣ep",
    ["3ep"],
    ".5ep",
    "5.ep",
]


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration(text):
    with pytest.raises(InputError, match="expected a duration with its unit"):
        canonical(text)


def test_the_repair_of_a_missing_unit():
    with pytest.raises(InputError, match='write "30ep" for epochs or "30it" for steps'):
        parse(30)


def test_a_percentage_needs_a_whole():
    with pytest.raises(InputError, match="there is no whole of which this could be a percentage"):
        steps("5%", 10)
