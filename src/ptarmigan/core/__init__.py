"""What every room stands on: types, addressed draws, files, devices, ranks, convolutions, the log."""
