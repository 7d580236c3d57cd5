"""Training the denoiser and sampling from it: diffusers' networks and schedulers, our own loop."""
