"""Our models in the formats of other programs: Hugging Face, llama.cpp, ONNX, CTranslate2."""
