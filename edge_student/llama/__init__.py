"""The student engine: continuous batching over one llama.cpp context. The only package that imports llama_cpp."""
