"""How well rules find the salient tokens, against labels made by hand."""
