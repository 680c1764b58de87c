"""Measures a server of a language model."""
