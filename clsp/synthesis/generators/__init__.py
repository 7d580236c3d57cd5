"""Generators: each module draws candidates for anchors; the file name is the registration."""
