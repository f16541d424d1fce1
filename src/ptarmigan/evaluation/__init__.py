"""Features of images, the scores computed from them, and the report of those scores."""
