"""Datasets: fetched or drawn, then prepared into arrays that every later stage maps into memory."""
