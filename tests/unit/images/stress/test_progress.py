import pytest
from stress import progress


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.9, "0 s"), (59, "59 s"), (61, "1 min 01 s"), (3600, "1 h 00 min"), (86399, "23 h 59 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


def test_speeds() -> None:
    assert progress.speed(10**15, "flop", 5) == "200.0 TFLOP/s"
    assert progress.speed(7 * 10**12, "bytes", 5) == "1400.0 GB/s"
    assert progress.speed(1, "flop", 0) == "- TFLOP/s"


def test_a_line_says_it_all() -> None:
    line = progress.line("gpu-0", "bf16", "203 TFLOP/s", 1800, 86400, 0)
    assert line == "gpu-0  bf16        203 TFLOP/s  30 min 00 s of 24 h 00 min (2.1 %)  no mismatch"
    assert progress.line("gpu-0", "bf16", "-", 1, 2, 3).endswith("3 MISMATCHES")
