"""How code is compiled, kept, started and stopped, on processors and on GPUs; and the table of families."""
