"""Tables by mask ratio: the run over a data set, the classical methods beside the models, and the files."""
