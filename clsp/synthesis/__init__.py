"""Banks of synthetic positives: drawn in shards by a generator, then gathered into one array."""
