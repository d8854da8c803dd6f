from __future__ import annotations

import pytest

from prefetch.scheduler.crontab import Crontab


def test_a_line_says_what_each_field_allows() -> None:
    found = Crontab.parse("*/20 0-6/3,22 1,15 jan-MAR mon,5-7")
    assert found.minutes == {0, 20, 40}
    assert found.hours == {0, 3, 6, 22}
    assert found.days == {1, 15}
    assert found.months == {1, 2, 3}
    assert found.weekdays == {1, 5, 6, 0}
    assert found.either_day


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("50/5 * * * *", {50, 55}),
        ("0-10/15 * * * *", {0}),
        ("59/59 * * * *", {59}),
        ("*/90 * * * *", {0}),
        ("* * * * *", set(range(60))),
    ],
)
def test_steps(text: str, minutes: set[int]) -> None:
    assert Crontab.parse(text).minutes == minutes


@pytest.mark.parametrize("text", ["0 0 1 * *", "0 0 * * 1", "0 0 */2 * 1", "0 0 1 * */2"])
def test_a_field_that_begins_with_a_star_restricts_no_day(text: str) -> None:
    assert not Crontab.parse(text).either_day


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31 4 */2"])
def test_a_day_that_never_comes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a day that comes"):
        Crontab.parse(text)


@pytest.mark.parametrize("text", ["0 0 29 2 *", "0 0 31 1,2 *", "0 0 30 2 mon"])
def test_a_day_that_seldom_comes_is_none_of_these(text: str) -> None:
    Crontab.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 3 * *", "expected five fields"),
        ("0 3 * * * *", "expected five fields"),
        ("@daily", "expected five fields"),
        ("0 24 * * *", "expected an hour from 0 to 23, got '24'"),
        ("0 3 * * sat-mon", "expected a day of week from 0 to 7"),
        ("0 3 * * 8", "expected a day of week from 0 to 7"),
        ("0 3 * 0 *", "expected a month from 1 to 12"),
        ("0,,1 3 * * *", "expected a minute"),
        ("1-2-3 3 * * *", "expected a minute"),
        ("1/0 3 * * *", "expected a minute"),
        ("-1 3 * * *", "expected a minute"),
        ("x" * 100 + " * * * *", "…"),
        ("\x1b[31m * * * *", r"\\x1b"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Crontab.parse(text)
