"""Checks and times the kernels and their peers on a GPU."""
