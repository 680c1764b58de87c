"""Measuring data-parallel training, whatever the framework: every device alone, then all together.

A program (ddp, mirrored) says with a `training.program.Program` what is its own, and brings the process that trains.
"""
