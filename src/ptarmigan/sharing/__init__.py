"""What leaves ptarmigan: a generator as a page, a file or a folder, the report of a run, and its log for trackers."""
