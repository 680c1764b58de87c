"""Shows results. Decides nothing."""
