"""One module a model family: a tiny random pipeline, and its loop written out plainly."""
