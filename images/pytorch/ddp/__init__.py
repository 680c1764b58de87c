"""The DDP workload: every device alone, then all together, timed the same way. Run it as `python3 -m ddp`."""
