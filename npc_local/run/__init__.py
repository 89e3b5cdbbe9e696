"""A run of one or many prompts: who does the work, in what order, what is kept.

A *run directory* is what `--out` names. A *result folder* is what one prompt leaves in it. A
*journal* is what makes a run go on; it lies in the run directory itself, or in its folder journal/
where the prompts are those of the command line.
"""
