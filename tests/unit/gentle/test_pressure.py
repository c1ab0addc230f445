"""The kernel's figures of pressure: how they are read, and which share of them others made."""

from pathlib import Path

import pytest

from questdb_backup.gentle.pressure import PressureReader, PressureSample, Stall, parse_stall, shares

PSI = (
    "some avg10=12.50 avg60=1.00 avg300=0.10 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"
)


def test_the_some_line_of_a_pressure_file_is_read() -> None:
    assert parse_stall(PSI) == Stall(avg10=0.125, total=2.5)


@pytest.mark.parametrize(
    "text", ["", "full avg10=0.00 total=0\n", "some avg10=1.0\n", "some avg10=x total=1\n"]
)
def test_what_is_no_pressure_file_is_told_from_one(text: str) -> None:
    with pytest.raises(ValueError):
        parse_stall(text)


def write_pressure(folder: Path, **text: str) -> PressureReader:
    folder.mkdir(exist_ok=True)
    for name, each in text.items():
        (folder / name).write_text(each)
    task = folder / "tasks" / "7"
    task.mkdir(parents=True, exist_ok=True)
    (task / "schedstat").write_text("1 1500000000 3\n")
    return PressureReader(folder, folder / "tasks")


def test_the_pressure_of_all_three_and_the_own_waits_are_read(tmp_path: Path) -> None:
    sample = write_pressure(tmp_path, io=PSI, cpu=PSI, memory=PSI).read()
    assert dict(sample.stalls) == dict.fromkeys(("io", "memory", "cpu"), Stall(0.125, 2.5))
    assert sample.own_cpu_wait == 1.5


def test_a_host_without_pressure_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = PressureReader(tmp_path / "none", tmp_path / "none")
    assert reader.read() == reader.read() == PressureSample()
    assert len(caplog.records) == 1
    assert "only WAL lag and backup.read.limit hold a backup down" in caplog.text


def test_one_missing_file_does_not_hide_the_others(tmp_path: Path) -> None:
    assert set(write_pressure(tmp_path, io=PSI, cpu="nonsense").read().stalls) == {"io"}


def sample(own: float = 0.0, **totals: float) -> PressureSample:
    return PressureSample(
        stalls={name: Stall(0.0, total) for name, total in totals.items()}, own_cpu_wait=own
    )


def test_shares_are_those_of_the_time_between_two_samples() -> None:
    before, now = sample(io=1.0, cpu=5.0, memory=2.0), sample(io=2.0, cpu=7.0, memory=2.0)
    assert shares(before, now, 2.0) == {"io": 0.5, "cpu": 1.0, "memory": 0.0}
    assert shares(before, now, 0.0) == {}
    assert shares(sample(), now, 2.0) == {}


def test_the_waits_of_this_process_are_no_pressure_on_others() -> None:
    assert shares(sample(cpu=5.0), sample(own=1.2, cpu=7.0), 2.0) == {"cpu": pytest.approx(0.4)}
    assert shares(sample(cpu=5.0), sample(own=9.0, cpu=7.0), 2.0) == {"cpu": 0.0}
    assert shares(sample(own=9.0, cpu=5.0), sample(own=1.0, cpu=6.0), 2.0) == {"cpu": 0.5}
