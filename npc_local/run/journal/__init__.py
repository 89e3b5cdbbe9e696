"""What a run has done, kept so that a run that was killed goes on."""
