"""zshrs's own cache file, `autoloads.rkyv`: read with every check, and written byte for byte.

Bytes and values only: no daemon, no files. docs/zshrs.md has the layout.
"""
