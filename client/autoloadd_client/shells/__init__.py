"""What is particular to one shell: where its functions lie, and how it compiles them."""
