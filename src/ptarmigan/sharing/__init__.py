"""A trained generator outside of ptarmigan: as a page that draws images."""
