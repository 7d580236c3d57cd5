"""Networks: encoders, projection heads, momentum copies and the denoiser."""
