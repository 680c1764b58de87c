from training.summary import rates, table


def window(phase: str, rank: int, samples: int, elapsed_s: float) -> dict[str, object]:
    return {"kind": "window", "phase": phase, "rank": rank, "samples": samples, "elapsed_s": elapsed_s}


EVENTS = [
    {"kind": "started", "rank": -1},
    window("solo", 0, 10, 1.0),
    window("solo", 0, 10, 3.0),
    window("solo", 1, 30, 2.0),
    window("all", 0, 16, 4.0),
    window("all", 1, 16, 4.0),
]


def test_rates_weigh_windows_by_their_time() -> None:
    assert rates(EVENTS) == ({0: 5.0, 1: 15.0}, {0: 4.0, 1: 4.0})


def test_the_table_has_every_rank_the_efficiency_and_no_verdict() -> None:
    assert table(EVENTS, "ddp") == [
        "",
        "rank   alone samples/s   together samples/s",
        "   0               5.0                  4.0",
        "   1              15.0                  4.0",
        " all              20.0                  8.0",
        "weak scaling efficiency: 8.0 / (2 x 10.0) = 40.0%",
        "These are measurements, not a verdict: `vaultcube bench ddp` judges them.",
    ]


def test_a_run_that_ended_early_shows_what_there_is() -> None:
    lines = table(EVENTS[:3], "ddp")
    assert lines[2] == "   0               5.0                    -"
    assert not any("efficiency" in line for line in lines)


def test_a_run_without_windows_has_no_table() -> None:
    assert table(EVENTS[:1], "ddp") == []
