"""Frozen dataclasses, presets as values, strict JSON in and out."""
