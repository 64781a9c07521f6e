"""What every rank checks for itself: ``mpiexec -n N python distributed_collectives.py``."""

import numpy as np

import flambeau as fb
from flambeau import distributed as dist
from flambeau import nn

dist.init_process_group()
rank, size = dist.get_rank(), dist.get_world_size()
ranks = size * (size - 1) / 2

for dtype in (fb.float32, fb.float64, fb.bfloat16, fb.int64):
    x = (fb.arange(7) + rank).to(dtype)
    dist.all_reduce(x)
    assert x.float().tolist() == [size * i + ranks for i in range(7)], x
x = fb.tensor([rank])
dist.all_reduce(x, dist.ReduceOp.MAX)
assert x.item() == size - 1
x = fb.tensor([float(rank)])
work = dist.all_reduce(x, dist.ReduceOp.AVG, async_op=True)
assert work.wait() and work.is_completed() and x.item() == (size - 1) / 2

rows = [fb.zeros(2) for _ in range(size)]
dist.all_gather(rows, fb.full((2,), float(rank)))
assert [row[0].item() for row in rows] == list(range(size))
x = fb.tensor([rank])
dist.broadcast(x, size - 1)
assert x.item() == size - 1
out = fb.zeros(2)
dist.reduce_scatter(out, [fb.full((2,), float(i + rank)) for i in range(size)])
assert out[0].item() == size * rank + ranks
objects = [None] * size
dist.all_gather_object(objects, {"rank": rank})
assert objects == [{"rank": i} for i in range(size)]
if size > 1 and rank == 0:
    dist.send(fb.ones(3), 1)
if rank == 1:
    x = fb.zeros(3)
    assert dist.recv(x) == 0 and x.sum().item() == 3

# The parallel module: the gradient of the mean over all, one bucket a parameter, with and without no_sync.
net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
parallel = nn.parallel.DistributedDataParallel(net, bucket_cap_mb=1e-5)
fb.manual_seed(5)
data = fb.randn(8, 3)
for twice in (False, True):
    parallel.zero_grad()
    if twice:
        with parallel.no_sync():
            parallel(data[rank::size]).mean().backward()
    parallel(data[rank::size]).mean().backward()
    got = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    with parallel.no_sync():
        parallel(data).mean().backward()
    for a, p in zip(got, net.parameters(), strict=True):
        assert np.allclose(a.numpy(), (1 + twice) * p.grad.numpy(), atol=1e-6), (a, p.grad)
assert all(key.startswith("module.") for key in parallel.state_dict())
print("ok", flush=True)
