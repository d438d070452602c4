"""The goals, by what has to be run for them. Each module names its goals and measures a round."""
