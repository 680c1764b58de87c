"""Products with every result checked, and the same products bare, in turns.

Run inside the image: `python3 bare_matmul.py ROUNDS SECONDS`. Prints `checked BARE` in TFLOP/s, a line a round. The
checked side is what `python3 -m stress` does between two reports: its load and the digest at the end. On a GPU it takes
bf16 and most of the memory, on the CPU a small fp32, on one thread whose CPU time counts: others on the machine do not.
"""

import sys
import time
from collections.abc import Callable

import torch
from stress import loads

rounds, seconds = int(sys.argv[1]), float(sys.argv[2])
torch.set_grad_enabled(False)
torch.set_num_threads(1)
cuda = torch.cuda.is_available()
device, phase = (torch.device("cuda", 0), "bf16") if cuda else (torch.device("cpu"), "fp32")
made = loads.matmul(loads.Site(device, phase, 0, None), int(torch.cuda.mem_get_info()[0] * 0.8) if cuda else None)
assert isinstance(made, loads.Matmul)
load = made
load.settle()
clock = time.perf_counter if cuda else time.process_time
a, b = (torch.empty_like(one).uniform_(-1, 1) for one in (load._a, load._b))
out = torch.empty_like(load._slots[0])


def bare(count: int) -> None:
    for _ in range(count):
        torch.mm(a, b, out=out)
    load._wait()


def checked(count: int) -> None:
    for first in range(0, count, load.capacity):
        assert load.run(first, min(load.capacity, count - first)) == []
    load.digest(0)


def speed(work: Callable[[int], None], count: int) -> float:
    start = clock()
    work(count)
    return load.work * count / (clock() - start) / 1e12


bare(2)
start = clock()
bare(4)
count = max(8, int(seconds * 4 / (clock() - start)))
for _ in range(rounds):
    print(speed(checked, count), speed(bare, count), flush=True)
