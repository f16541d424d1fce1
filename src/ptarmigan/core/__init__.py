"""What every other package uses: types, random draws, files, devices, ranks, convolutions, log and console."""
