"""Manual pages and completions, made from the parsers so that they say what the parsers take."""
