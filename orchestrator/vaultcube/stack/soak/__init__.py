"""Soaks: begun, looked on, gone on with, judged by their files; they outlive whoever began them."""
