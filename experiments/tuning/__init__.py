"""The code of `es-rl tune`: what is searched, the study of trials, and what it writes."""
