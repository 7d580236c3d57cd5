"""Dataset kinds; the file name is the name. Each has Config, read and, if it is fetched, draw."""
