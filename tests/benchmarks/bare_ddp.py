"""The plain torchrun script that our DDP program is compared with: the same steps, nothing else.

Run inside the image: `python3 -m torch.distributed.run --standalone --nproc-per-node 2 bare_ddp.py WARMUP WINDOWS STEPS`.
Prints `samples/s VALUE` on rank 0.
"""

import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torchvision.models import resnet50

BATCH, SIDE = 4, 64
warmup, windows, steps = (int(word) for word in sys.argv[1:4])
dist.init_process_group("gloo")
torch.set_num_threads(1)
torch.manual_seed(20260101)
images, labels = torch.randn(BATCH, 3, SIDE, SIDE), torch.randint(0, 1000, (BATCH,))
lossfn = torch.nn.CrossEntropyLoss()


def trainer(model: torch.nn.Module) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        lossfn(model(images), labels).backward()
        optimizer.step()

    return step


# The same history: every rank alone first. A process that has trained a while has an allocator that has settled.
for rank in range(dist.get_world_size()):
    if rank == dist.get_rank():
        alone = trainer(resnet50())
        for _ in range(warmup + windows * steps):
            alone()
        del alone
    dist.barrier()
step = trainer(DistributedDataParallel(resnet50()))
for _ in range(warmup):
    step()
elapsed = 0.0
for _ in range(windows):
    dist.barrier()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    mine = torch.tensor([time.perf_counter() - start])
    dist.all_reduce(mine, op=dist.ReduceOp.MAX)
    elapsed += mine.item()
if dist.get_rank() == 0:
    print("samples/s", BATCH * dist.get_world_size() * steps * windows / elapsed)
dist.destroy_process_group()
