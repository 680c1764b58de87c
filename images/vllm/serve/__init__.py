"""vLLM as a service: checks the model, starts the server, says what it is doing and how it ended."""
