"""Contrastive pretraining: one loop, methods and positive sources as plug-ins."""
