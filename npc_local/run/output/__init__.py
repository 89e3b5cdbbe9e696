"""What a person reads about a run: pictures and pages made from its records."""
