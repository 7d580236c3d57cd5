"""Re-derives every number from stored bytes and compares; read-only on what it audits."""
