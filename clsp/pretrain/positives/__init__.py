"""Where the third image comes from; a file here is a value of `source` in params.yaml."""
