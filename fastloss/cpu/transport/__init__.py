"""Transport distances of histograms, samples and clouds of points."""
