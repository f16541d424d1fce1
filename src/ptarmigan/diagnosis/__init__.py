"""What is wrong with a run of a GAN: statistics of its samples, findings from its log, and the logs of other tools."""
