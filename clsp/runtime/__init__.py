"""Plumbing shared by every stage: errors, hashing, manifests, random streams, checkpoints."""
