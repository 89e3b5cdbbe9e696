"""What a run leaves for people: a folder for each prompt, and a sheet of its images."""
