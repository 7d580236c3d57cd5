"""Proves the audit: makes a small tree of results, damages it, and looks at what is found."""
