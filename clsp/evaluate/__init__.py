"""Judge a frozen encoder: linear probe, weighted kNN and transfer (methods.md section 4)."""
