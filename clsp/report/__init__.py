"""Manifests -> frame, tables, figures and the HTML report; never imports torch."""
