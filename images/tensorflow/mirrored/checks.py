"""What every device has to prove before anything is timed: results, memory, sums. Imports TensorFlow.

What is expected is worked out in whole numbers by Python, so that a device is never compared with itself.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from common.outcome import Problem
from training.allreduce import PERIOD, SIZES_BYTES, expected_factor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from training.params import Params

SIDE = 256
_MODULI = {"row": 5, "left": 3, "right": 2, "column": 7}
_MEBIBYTE = 1 << 20
ALLOCATED_BYTES = {"cuda": 256 * _MEBIBYTE, "cpu": 16 * _MEBIBYTE}
_WRAP = 1 << 16
"""Values start over here: float32 holds them all exactly."""


def operations(device: str) -> Iterator[dict[str, Any]]:
    """Multiply two matrices on `device`, plainly and compiled by XLA; yield the fields of the `operation` events."""
    left = [[(row % _MODULI["row"] + 1) * (k % _MODULI["left"] + 1) for k in range(SIDE)] for row in range(SIDE)]
    right = [
        [(k % _MODULI["right"] + 1) * (column % _MODULI["column"] + 1) for column in range(SIDE)] for k in range(SIDE)
    ]
    for name, compiled in (("matmul", False), ("xla_matmul", True)):
        with tf.device(device):
            # The logarithm of 1 + 0 adds nothing, and makes XLA need libdevice.
            product = tf.function(lambda a, b, zero: tf.matmul(a, b) + tf.math.log1p(zero), jit_compile=compiled)
            zero = tf.zeros([SIDE, SIDE])
            result = product(tf.constant(left, tf.float32), tf.constant(right, tf.float32), zero)
        yield {
            "name": name,
            "placed": result.device,
            "elements": SIDE * SIDE,
            "mismatches": mismatches(result.numpy().tolist()),
        }


def mismatches(product: list[list[float]]) -> int:
    """Return how many elements of the product of `operations` are not what they have to be.

    Element (r, c) is (r % 5 + 1)(c % 7 + 1) times the sum of (k % 3 + 1)(k % 2 + 1) over k: below 2**24, so exact.
    """
    inner = sum((k % _MODULI["left"] + 1) * (k % _MODULI["right"] + 1) for k in range(SIDE))
    return sum(
        value != (row % _MODULI["row"] + 1) * (column % _MODULI["column"] + 1) * inner
        for row, values in enumerate(product)
        for column, value in enumerate(values)
    )


def wrong_result(device: str, name: str, wrong: int) -> Problem:
    """Return the problem of a device that computes, or remembers, wrongly."""
    return Problem(
        "device-wrong-result",
        f"{device} returned {wrong} wrong values ({name})",
        "stop using this GPU until a stress test has cleared it",
    )


def allocation(params: Params, device: str, peak: Callable[[str], int | None]) -> tuple[dict[str, Any], int]:
    """Take memory on `device`, write it, read it back.

    Returns the fields of the `allocation` event, and how many values came back wrong. `peak` tells the most bytes
    taken on a device at once.
    """
    size = ALLOCATED_BYTES[params.device]
    with tf.device("/device:CPU:0"):
        values = tf.cast(tf.range(size // 4) % _WRAP, tf.float32)
    with tf.device(device):
        written = values + 1
    with tf.device("/device:CPU:0"):
        wrong = tf.math.count_nonzero(tf.identity(written) != values + 1)
    fields = {"growth": grows(params, device), "bytes": size, "peak_bytes": peak(device)}
    return fields, int(wrong.numpy())


def grows(params: Params, device: str) -> bool:
    """Say whether the device's memory is taken as it is needed; main memory always is."""
    if params.device == "cpu":
        return True
    gpu = tf.config.get_visible_devices("GPU")[int(device.rpartition(":")[2])]
    return bool(tf.config.experimental.get_memory_growth(gpu))


def allreduce(strategy: tf.distribute.Strategy, params: Params) -> list[dict[str, Any]]:
    """Sum whole numbers over all ranks and compare every value; return the fields of each rank's `allreduce` event."""
    start = time.monotonic()
    wrong = [0] * params.ranks
    for size in SIZES_BYTES:
        for rank, count in enumerate(_wrong_sums(strategy, params.ranks, size // 4)):
            wrong[rank] += count
    elapsed_s = time.monotonic() - start
    return [
        {
            "backend": "nccl" if params.device == "cuda" else "ring",
            "correct": not count,
            "mismatches": count,
            "sizes_bytes": list(SIZES_BYTES),
            "elapsed_s": elapsed_s,
        }
        for count in wrong
    ]


def _wrong_sums(strategy: tf.distribute.Strategy, ranks: int, count: int) -> list[int]:
    """Return how many of `count` sums are wrong on each rank."""

    def one_rank() -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        pattern = tf.cast(tf.range(count) % PERIOD + 1, tf.float32)
        rank = tf.cast(context.replica_id_in_sync_group, tf.float32)
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, pattern * (rank + 1))
        # A NaN is unequal too.
        return tf.math.count_nonzero(total != pattern * expected_factor(ranks))

    reduced = tf.function(lambda: strategy.run(one_rank))()
    return [int(value.numpy()) for value in strategy.experimental_local_results(reduced)]
