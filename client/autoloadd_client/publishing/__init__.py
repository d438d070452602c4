"""What is handed to a shell as files: zsh's functions, as one digest that zsh itself maps."""
