"""What is measured: one module for each subject, run by `./run bench NAME`; never a timed assertion in a test."""
