"""What to run: the schema of params.yaml and its expansion into one spec per job (torch-free)."""
