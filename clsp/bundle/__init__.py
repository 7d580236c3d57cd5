"""Bundles: everything that an audit at L2 reads, in one archive that says nothing of its maker."""
