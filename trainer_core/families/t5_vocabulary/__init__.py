"""T5's vocabulary, and the tokenizer that is made of it."""
