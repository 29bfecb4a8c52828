"""adamant finds out what it takes to change a model's mind, and then makes the model adamant."""
