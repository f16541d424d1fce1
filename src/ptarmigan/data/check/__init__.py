"""What may be wrong with a data set, as findings: pure functions of files, images, labels and features."""
