"""GGUF conversion, tokenizer files and chat formats of Hugging Face models."""
