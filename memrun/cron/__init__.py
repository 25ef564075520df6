"""For those who are not there to watch: when a run may begin, and the letter that tells how it ended."""
