"""Computes samples of finished artefacts again, for audits."""
