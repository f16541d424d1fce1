"""The commands that take a trained model, a run or a data set, one module each."""
