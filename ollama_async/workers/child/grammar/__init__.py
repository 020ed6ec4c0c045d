"""ConstraintFactory that constrain answers: JSON Schema formats and tool calls."""
