"""The formats that a model can be exported in. Needs no torch: a command line reads it before anything is exported."""

from typing import Literal

ExportFormat = Literal["groundup", "hf", "gguf", "onnx", "ct2"]
"""groundup: a model folder of ours; hf: transformers; gguf: llama.cpp; onnx: onnxruntime; ct2: CTranslate2."""
