"""Floor 1: frozen dataclasses, presets as values, strict JSON in and out."""
