"""Self-supervised methods; a file here is a value of `method` in params.yaml."""
