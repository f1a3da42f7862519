"""Language models from transformers: built from a configuration, or loaded."""
