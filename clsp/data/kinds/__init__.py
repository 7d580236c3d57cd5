"""Dataset kinds; the file name is the name. Each has Config, INFO, read and, if drawn, draw."""
