"""The TensorFlow workload: every device alone, then all under MirroredStrategy. Run it as `python3 -m mirrored`."""
