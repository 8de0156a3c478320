"""Demo: the saved models at work, on a local page or as text."""
