"""The model server: OpenAI-compatible HTTP over one model, batched and streaming."""
