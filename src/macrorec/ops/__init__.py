"""What three or more models share: losses, layers, propagation."""
