"""Measures a vLLM server: asks it questions with known answers, then has `vllm bench serve` put load on it."""
