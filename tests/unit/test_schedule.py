from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from questdb_backup.cron import ALIASES, WeekDays, parse_cron
from questdb_backup.errors import ConfigurationError
from questdb_backup.schedule import Schedule, explain, next_runs, to_eventbridge
from tests.support.eventbridge_cron import EventBridgeCron

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)
# Shortly before leap days, a year's end, and both changes of the clock (Lord Howe's is half an hour,
# Cairo's is at midnight, so whole days begin late).
STARTS = {
    "UTC": ["2024-02-27T00Z", "2023-02-27T00Z", "2023-12-30T00Z", "2100-02-26T00Z"],
    "America/New_York": ["2024-03-10T05Z", "2024-11-03T04Z"],
    "Europe/Berlin": ["2028-03-25T23Z", "2028-10-28T23Z"],
    "Australia/Lord_Howe": ["2024-10-05T14Z", "2024-04-06T13Z"],
    "Africa/Cairo": ["2024-04-25T20Z", "2024-10-31T19Z"],
}


def ranged(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    pair = st.tuples(number, number).map(sorted).filter(lambda ends: ends[0] < ends[1])
    step = st.integers(2, high)
    return st.one_of(
        number.map(str),
        pair.map(lambda ends: f"{ends[0]}-{ends[1]}"),
        st.tuples(pair, step).map(lambda drawn: f"{drawn[0][0]}-{drawn[0][1]}/{drawn[1]}"),
        step.map(lambda each: f"*/{each}"),
    )


def listed(items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(items, min_size=1, max_size=3).map(",".join)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    return st.one_of(st.just("*"), listed(ranged(low, high)))


SUNDAY_FIRST = ["SUN", "mon", "TUE", "WED", "THU", "FRI", "SAT"]
WEEK_DAY = st.one_of(ranged(0, 7), st.sampled_from([*SUNDAY_FIRST, "MON-FRI", "TUE-SAT/2"]))
UNIX_DAYS = st.tuples(
    st.one_of(st.just("*"), listed(ranged(1, 28))), st.one_of(st.just("*"), listed(WEEK_DAY))
)
SPECIAL_MONTH_DAY = st.one_of(st.just("L"), st.integers(1, 28).map(lambda day: f"{day}W"))
SPECIAL_WEEK_DAY = st.builds(
    lambda day, nth: f"{day}{nth}",
    st.one_of(st.integers(0, 7).map(str), st.sampled_from(SUNDAY_FIRST)),
    st.sampled_from(["L", "#1", "#3", "#5"]),
)
ALL_DAYS = st.tuples(
    st.one_of(st.just("*"), listed(st.one_of(ranged(1, 28), SPECIAL_MONTH_DAY))),
    st.one_of(st.just("*"), listed(st.one_of(WEEK_DAY, SPECIAL_WEEK_DAY))),
)
MONTH = st.one_of(st.just("*"), listed(st.one_of(ranged(1, 12), st.sampled_from(["FEB", "oct", "JAN-MAR"]))))


def crons(days: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda minute, hour, day, month: f"{minute} {hour} {day[0]} {month} {day[1]}",
        field(0, 59),
        field(0, 23),
        days,
        MONTH,
    )


STARTING = st.sampled_from([(tz, start) for tz, starts in STARTS.items() for start in starts])


@given(crons(UNIX_DAYS), st.sampled_from(STARTS["UTC"]))
@settings(max_examples=60, deadline=None)
@example("0 0 * * 5-7", STARTS["UTC"][0])
@example("0 0 */2 * 1", STARTS["UTC"][0])
@example("*/7 */5 * 2 0", STARTS["UTC"][1])
def test_runs_of_a_plain_unix_expression_are_those_of_croniter(cron: str, start: str) -> None:
    # croniter takes seven days of the week for none given, but only where the other field has a star.
    assume(WeekDays(tuple(range(7))) not in parse_cron(cron).days)
    schedule, after = Schedule(cron=cron), datetime.fromisoformat(start)
    walk = croniter(cron, after, ret_type=datetime)

    assert next_runs(schedule, after, 100) == [walk.get_next() for _ in range(100)]


@given(crons(ALL_DAYS), STARTING)
@settings(max_examples=120, deadline=None)
@example("0 0 1 * 1", ("UTC", STARTS["UTC"][0]))
@example("30 2 * * *", ("America/New_York", STARTS["America/New_York"][0]))
@example("30 1 * * *", ("America/New_York", STARTS["America/New_York"][1]))
@example("*/10 * * * *", ("Australia/Lord_Howe", STARTS["Australia/Lord_Howe"][0]))
@example("*/2,31 * * * *", ("Australia/Lord_Howe", STARTS["Australia/Lord_Howe"][0]))
@example("0 0 * * *", ("Africa/Cairo", STARTS["Africa/Cairo"][0]))
@example("0 0 15W,L * 5L,1#2", ("Europe/Berlin", STARTS["Europe/Berlin"][0]))
def test_eventbridge_runs_at_the_same_times_but_for_those_that_a_change_of_the_clock_skips(
    cron: str, starting: tuple[str, str]
) -> None:
    tz, start = starting
    zone, after = ZoneInfo(tz), datetime.fromisoformat(start)
    schedule = Schedule(cron=cron, tz=tz)
    ours = set(next_runs(schedule, after, 200))
    until = max(ours)

    theirs = {
        run
        for expression in to_eventbridge(schedule)
        for run in EventBridgeCron.parse(expression).runs(zone, after, until)
    }

    assert theirs <= ours
    assert all(follows_a_skipped_hour(run, zone) for run in ours - theirs)
    if tz == "UTC":
        assert ours == theirs


def follows_a_skipped_hour(run: datetime, zone: ZoneInfo) -> bool:
    local = run.astimezone(zone)
    before = (run - timedelta(hours=1)).astimezone(zone)
    return (local.utcoffset() or timedelta()) > (before.utcoffset() or timedelta())


def test_a_time_that_the_clock_skips_runs_an_hour_later_by_the_wall_clock() -> None:
    schedule = Schedule(cron="30 2 * * *", tz="America/New_York")

    assert local_runs(schedule, datetime(2024, 3, 9, 12, tzinfo=UTC), 2) == [
        "2024-03-10T03:30:00-04:00",
        "2024-03-11T02:30:00-04:00",
    ]


def test_a_time_that_the_clock_repeats_runs_the_first_time_only() -> None:
    schedule = Schedule(cron="30 1 * * *", tz="America/New_York")

    assert local_runs(schedule, datetime(2024, 11, 3, 4, tzinfo=UTC), 2) == [
        "2024-11-03T01:30:00-04:00",
        "2024-11-04T01:30:00-05:00",
    ]


def test_a_start_just_after_a_skipped_hour_still_sees_the_run_that_was_moved() -> None:
    schedule = Schedule(cron="30 2 * * *", tz="America/New_York")

    assert local_runs(schedule, datetime(2024, 3, 10, 7, 10, tzinfo=UTC), 1) == ["2024-03-10T03:30:00-04:00"]


def local_runs(schedule: Schedule, after: datetime, n: int) -> list[str]:
    return [run.astimezone(ZoneInfo(schedule.tz)).isoformat() for run in next_runs(schedule, after, n)]


def test_a_run_is_never_due_at_the_very_moment_it_is_asked_after() -> None:
    midnight = datetime(2024, 1, 2, tzinfo=UTC)

    assert next_runs(Schedule(cron="0 0 * * *"), midnight, 1) == [midnight + timedelta(days=1)]


@pytest.mark.parametrize(
    ("cron", "expressions"),
    [
        ("0 0 * * *", ["cron(0 0 * * ? *)"]),
        ("*/15 * * * *", ["cron(0/15 * * * ? *)"]),
        ("5/20 3 * * *", ["cron(5/20 3 * * ? *)"]),
        ("10-40/15 3 * * *", ["cron(10,25,40 3 * * ? *)"]),
        ("0 9-17 * * MON-FRI", ["cron(0 9-17 ? * MON,TUE,WED,THU,FRI *)"]),
        ("0 0 * * 0", ["cron(0 0 ? * SUN *)"]),
        ("0 0 * * 7", ["cron(0 0 ? * SUN *)"]),
        ("0 0 * * 5-7", ["cron(0 0 ? * SUN,FRI,SAT *)"]),
        ("0 0 * * fri-MON", ["cron(0 0 ? * SUN,MON,FRI,SAT *)"]),
        ("0 0 * * */2", ["cron(0 0 ? * SUN,TUE,THU,SAT *)"]),
        ("0 0 1,15 * *", ["cron(0 0 1,15 * ? *)"]),
        ("0 0 1 JAN,jul *", ["cron(0 0 1 1,7 ? *)"]),
        ("0 0 L * *", ["cron(0 0 L * ? *)"]),
        ("0 0 15W * *", ["cron(0 0 15W * ? *)"]),
        ("0 0 * * 5L", ["cron(0 0 ? * 6L *)"]),
        ("0 0 * * 7#2", ["cron(0 0 ? * 1#2 *)"]),
        ("0 0 1 * 1", ["cron(0 0 1 * ? *)", "cron(0 0 ? * MON *)"]),
        ("@weekly", ["cron(0 0 ? * SUN *)"]),
        ("3-3 * * * *", ["cron(3 * * * ? *)"]),
    ],
)
def test_an_expression_is_converted_for_eventbridge(cron: str, expressions: list[str]) -> None:
    assert to_eventbridge(Schedule(cron=cron)) == expressions


def test_the_longest_lists_still_fit_into_eventbridges_256_characters() -> None:
    def pairs(low: int, high: int) -> str:
        return ",".join(str(number) for number in range(low, high + 1) if (high - number) % 3 != 2)

    cron = f"{pairs(0, 59)} {pairs(0, 23)} {pairs(1, 31)} {pairs(1, 12)} *"

    assert 220 < len(to_eventbridge(Schedule(cron=cron))[0]) <= 256


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("0 0 * * *", "at 00:00, every day (Europe/London)"),
        ("30 2,14 * * *", "at 02:30 and 14:30, every day (Europe/London)"),
        ("*/15 * * * *", "every 15 minutes, every day (Europe/London)"),
        ("* * * * *", "every minute, every day (Europe/London)"),
        ("@hourly", "every hour, on the hour, every day (Europe/London)"),
        ("5 * * * *", "at minute 5, every day (Europe/London)"),
        ("0 9-17 * * 1-5", "at minute 0 of the hours 9 to 17, from Monday to Friday (Europe/London)"),
        (
            "0,15,40 9-17 * * 6,0",
            "at the minutes 0, 15 and 40 of the hours 9 to 17, every Sunday and Saturday (Europe/London)",
        ),
        ("0 2 1 * 1", "at 02:00, on day 1 of the month, or every Monday (Europe/London)"),
        ("0 2 L 1,7 *", "at 02:00, on the last day of the month, in January and July (Europe/London)"),
        ("0 2 15W * *", "at 02:00, on the weekday nearest to day 15 of the month (Europe/London)"),
        ("0 2 * * 5#3", "at 02:00, on the third Friday of the month (Europe/London)"),
        ("0 2 * * FRIL", "at 02:00, on the last Friday of the month (Europe/London)"),
    ],
)
def test_a_schedule_is_explained_in_plain_words_with_its_zone(cron: str, words: str) -> None:
    assert explain(Schedule(cron=cron, tz="Europe/London")) == words


@pytest.mark.parametrize(
    ("cron", "complaint"),
    [
        ("0 0 0 * * *", "has 6 fields, a cron expression here has 5"),
        ("0 0 0 * * * 2024", "has 7 fields"),
        ("0 0 * *", "has 4 fields"),
        ("", "has 0 fields"),
        ("@reboot", "is not a schedule.*@daily"),
        ("H 0 * * *", "'H' in the minute field"),
        ("R 0 * * *", "'R' in the minute field"),
        ("60 0 * * *", "60 in the minute field is not within 0-59"),
        ("0 24 * * *", "24 in the hour field"),
        ("0 0 0 * *", "0 in the day of month field"),
        ("0 0 * 13 *", "13 in the month field"),
        ("0 0 * * 8", "8 in the day of week field"),
        ("0 0 * * FREITAG", "'FREITAG' in the day of week field"),
        ("0 22-2 * * *", "runs backwards"),
        ("*/0 * * * *", "step of .* is 0"),
        ("1,,2 * * * *", "'' in the minute field"),
        ("0 0 ? * MON", r"'\?' in the day of month field"),
        ("0 0 LW * *", "'LW'"),
        ("0 0 L-3 * *", "'L' in the day of month field"),
        ("0 0 31W * *", "not every month has that day"),
        ("0 0 * * L", "'L' in the day of week field"),
        ("0 0 * * 1#6", "'1#6'"),
        ("0 0 30 2 *", "day 30 never comes"),
        ("0 0 31 4,6 1", "day 31 never comes"),
        ("٣ 0 * * *", "in the minute field"),
    ],
)
def test_an_expression_of_another_form_is_refused_with_its_fault(cron: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Schedule(cron=cron)


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_the_schedule_it_stands_for(alias: str) -> None:
    assert next_runs(Schedule(cron=alias.upper()), NEW_YEAR, 3) == next_runs(
        Schedule(cron=ALIASES[alias]), NEW_YEAR, 3
    )


@pytest.mark.parametrize(
    ("tz", "hint"),
    [
        ("Europe/Lodnon", "the nearest one is Europe/London"),
        ("utc", "the nearest one is UTC"),
        ("America", ""),
        ("../etc/passwd", ""),
        ("+02:00", "IANA"),
    ],
)
def test_a_wrong_zone_is_refused_with_the_nearest_name(tz: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"is not a time zone.*{hint}"):
        Schedule(cron="0 0 * * *", tz=tz)
