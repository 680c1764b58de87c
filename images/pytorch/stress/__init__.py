"""The soak of one GPU: load for hours, every result checked bit by bit. Run it as `python3 -m stress`."""
