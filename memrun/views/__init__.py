"""What is shown on a terminal, and how: cells, frames, the live view of a batch, `memrun top`, `memrun logs`."""
