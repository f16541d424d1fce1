"""What every other package uses: types, addressed draws, files, devices, ranks, convolutions, log and console."""
