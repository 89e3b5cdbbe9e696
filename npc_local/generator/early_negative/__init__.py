"""A negative prompt in the first denoising steps alone, of any pipeline."""
