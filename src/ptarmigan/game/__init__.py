"""One batch of the game: its draws, the update of each player, the moving average of G."""
