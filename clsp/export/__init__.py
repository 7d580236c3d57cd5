"""Views of a finished experiment in formats that others read; nothing in the suite reads them."""
