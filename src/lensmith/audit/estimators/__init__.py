"""Numerics on matrices of outputs, without an endpoint: rank, width, last layer, rotation, image."""
