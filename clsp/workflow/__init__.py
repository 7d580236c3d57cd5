"""What surrounds Snakemake: the jobs' environment, its records, and snapshots with DVC."""
