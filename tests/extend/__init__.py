"""What users bring, as code outside of our folders: a file each, of at most 40 lines of code."""
