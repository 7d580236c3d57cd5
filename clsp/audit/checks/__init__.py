"""Audit checks: one file each, found by its name; all of them run."""
