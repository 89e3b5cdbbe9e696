"""From results to statistics, summaries and tables."""
