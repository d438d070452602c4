"""What users of real shells wait for, with autoloadd and without it."""
