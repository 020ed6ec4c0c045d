"""Go's ``text/template``: source to tree (``lex``, ``parse``, ``node``) to text (``exec``)."""
