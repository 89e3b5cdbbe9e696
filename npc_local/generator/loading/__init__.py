"""From a model directory to a pipeline on its device: checks, quantization, LoRA files."""
