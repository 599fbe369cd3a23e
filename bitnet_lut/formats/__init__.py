"""Model files: containers (GGUF, safetensors) and one NumPy codec per weight format."""
