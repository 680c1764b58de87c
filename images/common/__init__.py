"""What every workload image shares: events, measuring windows, the watchdog. Python's standard library only."""
