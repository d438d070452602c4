"""What slow tools print: asked of the cache, or made by running the tool as the shell would."""
