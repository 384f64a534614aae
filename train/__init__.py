"""The trainer of csrm models: data, model, losses, calibration, evaluation. Needs `csrm[train]`."""
