"""How does a bundle answer requests, live? Events are logged, counted at once, and change the next answer."""
