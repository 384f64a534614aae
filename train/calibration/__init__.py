"""From rewards to probabilities: fits, their comparison, operating points, `csrm calibrate`."""
