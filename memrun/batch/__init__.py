"""A job file's jobs within one budget of memory: who starts when, what is known of each, and everything around that."""
