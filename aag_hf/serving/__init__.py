"""Saved models behind a server: the OpenAI API on transformers, and plain LoRAs for vLLM."""
