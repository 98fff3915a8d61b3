"""A page on which a saved model is tried in the browser: `aag demo`."""
