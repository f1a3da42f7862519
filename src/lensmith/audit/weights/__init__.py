"""An operator's own output head, read from safetensors or GGUF without torch, to compare with what leaked."""
