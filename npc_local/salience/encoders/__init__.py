"""Text encoders that score: T5 packed without padding, others in length buckets."""
