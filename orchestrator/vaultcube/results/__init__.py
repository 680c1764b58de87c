"""What a run leaves behind: its schema, its events, where it is kept, and how it is judged."""
