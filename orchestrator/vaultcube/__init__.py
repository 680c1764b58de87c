"""Vault Cube: turns a bare multi-GPU workstation into one that is proven to work."""

__version__ = "0.1.0"
