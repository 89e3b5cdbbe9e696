"""A run of one or many prompts: who does the work, in what order, what is kept."""
