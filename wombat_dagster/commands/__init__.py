"""Commands of `wombat` that are not about running it, one module each; registered in `cli`."""
