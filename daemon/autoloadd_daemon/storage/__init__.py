"""Files: journal, image, staged bulks, recovery. No trio here: plain code that threads may run."""
