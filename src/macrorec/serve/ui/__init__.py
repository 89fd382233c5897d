"""A page for people: look up a user, see why, post an event, watch the list change."""
