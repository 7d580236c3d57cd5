"""Losses: pure functions of embeddings. Queues, averages and centres belong to the methods."""
