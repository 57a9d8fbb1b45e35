"""What `trace` is made of."""
