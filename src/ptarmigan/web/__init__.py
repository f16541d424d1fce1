"""Serve a generator to other programs, and runs to a browser, on this machine alone unless the user says otherwise."""
