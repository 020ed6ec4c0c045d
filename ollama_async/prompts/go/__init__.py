"""Go's text/template as models use it: source → tree → text, with limits on all three."""
