"""What `ptarmigan losses` says, draws and identifies."""
