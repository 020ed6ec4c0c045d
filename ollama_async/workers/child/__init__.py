"""The worker process of one model.

A request passes :mod:`.pipe`, :mod:`.preprocessor` (threads that prepare it), :mod:`.mailbox`,
:mod:`.engine_loop` (the step thread), :mod:`.message_batch`, and :mod:`.pipe` again.
"""
